//! What is written about a path in `cinder-api/openapi/*.yaml`, and what that is in the document.
//!
//! Under a path stand its methods and, if all of them came later, `since`. Under a method: `does` (a sentence), `since`, `query` (words
//! of `queries`, names of texts, or `name: schema`), `headers` (names), `body` (a schema), `answers` (schemas by status; null: nothing in it;
//! with `?`: sometimes nothing in it; `=text`: no JSON), and `refusals` (statuses beside those that follow from all this).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Files;
use super::notation::Notation;
use crate::request::version;

/// A path in the document; nothing if it is not there in the version.
pub(super) fn path(
    files: &Files,
    notation: &Notation<'_>,
    (path, tag): (&str, &str),
    methods: &Value,
    is_inside: bool,
) -> Result<Option<Value>, String> {
    let Value::Object(methods) = methods else {
        return Err(format!("{path}: no methods"));
    };
    let mut written = Map::new();
    if notation.is_there(&Value::Object(methods.clone()))? {
        for (method, operation) in methods.iter().filter(|(method, _)| *method != "since") {
            if !notation.is_there(operation)? {
                continue;
            }
            let place = Place {
                path,
                tag,
                method,
                is_inside,
                came_later: methods.contains_key("since") || operation.get("since").is_some(),
            };
            let operation = place
                .write(files, notation, operation)
                .map_err(|why| format!("{method} {path}: {why}"))?;
            written.insert(method.clone(), operation);
        }
    }
    Ok(Some(written)
        .filter(|written| !written.is_empty())
        .map(Value::Object))
}

/// Where an operation is.
struct Place<'a> {
    path: &'a str,
    tag: &'a str,
    method: &'a str,
    /// Behind the door, where a token is needed and versions are known.
    is_inside: bool,
    /// Not there in the oldest version, which is that of requests that name none.
    came_later: bool,
}

impl Place<'_> {
    fn write(&self, files: &Files, notation: &Notation<'_>, operation: &Value) -> Result<Value, String> {
        let known = ["does", "since", "query", "headers", "body", "answers", "refusals"];
        let keys = operation.as_object().ok_or("it is no map")?.keys();
        if let Some(unknown) = keys.into_iter().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("nobody reads {unknown}"));
        }
        let parameters = self.parameters(files, notation, operation)?;
        let body = operation.get("body");
        let mut responses = answers(notation, operation)?;
        for status in self.refusals(&parameters, operation) {
            let reference = json!({"$ref": format!("#/components/responses/{status}")});
            responses.insert(status.to_string(), reference);
        }
        let mut written = json!({
            "operationId": self.id(),
            "tags": [self.tag],
            "summary": operation.get("does").ok_or("nobody says what it does")?,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(body) = body {
            written["requestBody"] = json!({
                "required": true,
                "content": {"application/json": {"schema": notation.schema(body)?}},
            });
        }
        if !self.is_inside {
            written["security"] = json!([]);
        }
        Ok(written)
    }

    /// A name that only this operation has: `put_volumes_id_metadata`.
    fn id(&self) -> String {
        let words = self
            .path
            .trim_start_matches("/v3")
            .split(['/', '{', '}', '-', '.']);
        let words: Vec<&str> = std::iter::once(self.method)
            .chain(words.filter(|word| !word.is_empty()))
            .collect();
        // The two documents of versions would be called alike.
        if self.path == "/v3" {
            "get_v3".to_owned()
        } else {
            words.join("_")
        }
    }

    fn parameters(
        &self,
        files: &Files,
        notation: &Notation<'_>,
        operation: &Value,
    ) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        let mut add = |place: &str, name: &str, written: &Value, required: bool| {
            let mut schema = notation.schema(written)?;
            let does = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            let mut parameter = json!({"name": name, "in": place, "required": required, "schema": schema});
            if let Some(does) = does {
                parameter["description"] = does;
            }
            all.push(parameter);
            Ok::<_, String>(())
        };
        for name in self
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        {
            let written = files
                .parameters
                .get(name)
                .ok_or_else(|| format!("nobody says what {name} is"))?;
            add("path", name, written, true)?;
        }
        if self.is_inside {
            let exact = json!({
                "is": format!("={}", version::header_of(notation.version)),
                "does": "Without it a request is one of version 3.0, and so is its answer: ask for that document.",
            });
            add("header", "OpenStack-API-Version", &exact, false)?;
        }
        for header in operation
            .get("headers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            add(
                "header",
                header.as_str().unwrap_or_default(),
                &json!("name"),
                false,
            )?;
        }
        for (name, written) in queries(files, operation)? {
            if notation.is_there(&written)? {
                add("query", &name, &written, false)?;
            }
        }
        Ok(all)
    }

    /// The statuses of refusals that follow from what an operation has, and those that it names.
    fn refusals(&self, parameters: &[Value], operation: &Value) -> BTreeSet<u64> {
        let named = operation
            .get("refusals")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let mut statuses: BTreeSet<u64> = named.filter_map(Value::as_u64).collect();
        if self.is_inside {
            statuses.extend([400, 401, 403, 406, 429, 503]);
            let names_something =
                |parameter: &Value| parameter["in"] == "path" || parameter["name"] == "marker";
            let has_body = operation.get("body").is_some();
            if self.came_later || has_body || parameters.iter().any(names_something) {
                statuses.insert(404);
            }
        }
        if operation.get("body").is_some() {
            statuses.extend([408, 413, 415]);
        }
        statuses
    }
}

/// The names of a query, each with its schema.
fn queries(files: &Files, operation: &Value) -> Result<Vec<(String, Value)>, String> {
    let mut all = Vec::new();
    for query in operation
        .get("query")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        match query {
            Value::String(name) => match files.queries.get(name) {
                Some(Value::Array(several)) => {
                    for one in several {
                        all.extend(
                            one.as_object()
                                .into_iter()
                                .flatten()
                                .map(|(name, written)| (name.clone(), written.clone())),
                        );
                    }
                }
                Some(written) => all.push((name.clone(), written.clone())),
                None => all.push((name.clone(), json!("text"))),
            },
            Value::Object(named) => {
                all.extend(
                    named
                        .iter()
                        .map(|(name, written)| (name.clone(), written.clone())),
                );
            }
            other => return Err(format!("{other} is no name in a query")),
        }
    }
    Ok(all)
}

fn answers(notation: &Notation<'_>, operation: &Value) -> Result<Map<String, Value>, String> {
    let mut responses = Map::new();
    let answers = operation
        .get("answers")
        .and_then(Value::as_object)
        .ok_or("it has no answers")?;
    for (status, written) in answers {
        let response = match written {
            Value::Null => json!({"description": "It is so, or will be."}),
            Value::String(word) if word == "=text" => {
                json!({"description": "It is so.", "content": {"text/plain": {"schema": {"type": "string"}}}})
            }
            Value::String(word) if word.ends_with('?') => json!({
                "description": "It is so, or will be; in most cases nothing more is said.",
                "x-may-be-empty": true,
                "content": content(notation, &json!(word.trim_end_matches('?')))?,
            }),
            written => {
                json!({"description": "It is so, or will be.", "content": content(notation, written)?})
            }
        };
        responses.insert(status.clone(), response);
    }
    Ok(responses)
}

fn content(notation: &Notation<'_>, written: &Value) -> Result<Value, String> {
    Ok(json!({"application/json": {"schema": notation.schema(written)?}}))
}
