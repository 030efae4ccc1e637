//! How schemas are written in `cinder-api/openapi/*.yaml`, and what they are as JSON schemas.
//!
//! A word is one of those of [`builtin`], or the name of a schema (with a capital), or else the only text that is possible; `a|b` is one of
//! several texts, and `=` nothing. After it `?` says that it may be null, `[]` that it is a list, and ` @13` that it is there from
//! version 3.13 on. A map is
//!
//! - `always` and `sometimes`: an object that has those fields, may have these, and no others; unless it is `open`, or of an older
//!   version than `open_below`;
//! - `any`: one of several; `array`: a list; `first`: the same as in version 3.0; `is`: the same with more said about it;
//! - nothing: an object with nothing in it;
//! - or a JSON schema, in which schemas below are in this notation again.
//!
//! Beside these, `does` says for people what it is, `since` from which version on it is there, and `or_null` that it may be null.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::request::Version;
use crate::request::body::{INTEGER_MAX, TEXT_MAX};

/// What a time looks like.
const TIME: &str = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$";
/// A UUID as this API writes them.
const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
/// Yes and no as texts: clients send these in any case of letters.
const YES_AND_NO: &[&str] = &[
    "true", "false", "yes", "no", "on", "off", "1", "0", "True", "False",
];
/// Schemas that hold other schemas, in JSON schema.
const NESTS: &[&str] = &["items", "additionalProperties"];

/// A version's way to read the notation.
pub(super) struct Notation<'a> {
    pub(super) version: Version,
    /// Names of schemas.
    pub(super) known: &'a BTreeSet<&'a str>,
    /// The files' schemas, as they are written there.
    pub(super) all: &'a Map<String, Value>,
}

impl Notation<'_> {
    /// The JSON schema of something in this notation.
    pub(super) fn schema(&self, written: &Value) -> Result<Value, String> {
        match written {
            Value::String(word) => self.expression(word),
            Value::Object(map) => self.map(map),
            other => Err(format!("{other} is no schema")),
        }
    }

    /// Whether something is there in the version: `@13` after a word, or `since: 13`.
    pub(super) fn is_there(&self, written: &Value) -> Result<bool, String> {
        let since = match written {
            Value::String(word) => match word.split_once(" @") {
                Some((_, minor)) => Some(minor.parse().map_err(|_| format!("{word} names no version"))?),
                None => None,
            },
            other => other.get("since").and_then(Value::as_u64),
        };
        Ok(since.is_none_or(|since| u64::from(self.version.0) >= since))
    }

    fn expression(&self, written: &str) -> Result<Value, String> {
        let word = written.split(" @").next().unwrap_or_default();
        if let Some(inner) = word.strip_suffix('?') {
            return Ok(or_null(self.expression(inner)?));
        }
        if let Some(inner) = word.strip_suffix("[]") {
            return Ok(json!({"type": "array", "items": self.expression(inner)?}));
        }
        if let Some(schema) = builtin(word) {
            return Ok(schema);
        }
        if word.contains('|') {
            let texts: Vec<&str> = word.split('|').collect();
            return Ok(json!({"type": "string", "enum": texts}));
        }
        if word.starts_with(|first: char| first.is_ascii_uppercase()) {
            if !self.known.contains(word) {
                return Err(format!("there is no schema {word}"));
            }
            return Ok(json!({"$ref": format!("#/components/schemas/{word}")}));
        }
        Ok(json!({"type": "string", "const": word.trim_start_matches('=')}))
    }

    fn map(&self, map: &Map<String, Value>) -> Result<Value, String> {
        let mut schema = self.bare(map)?;
        if map.get("or_null").is_some_and(|or_null| *or_null == json!(true)) {
            schema = or_null(schema);
        }
        if let (Some(does), Some(schema)) = (map.get("does"), schema.as_object_mut()) {
            schema.insert("description".to_owned(), does.clone());
        }
        Ok(schema)
    }

    fn bare(&self, map: &Map<String, Value>) -> Result<Value, String> {
        let is_object = map.is_empty() || map.contains_key("always") || map.contains_key("sometimes");
        if is_object {
            return self.object(map);
        }
        if let Some(inner) = map.get("is") {
            return self.schema(inner);
        }
        if let Some(inner) = map.get("array") {
            return Ok(json!({"type": "array", "items": self.schema(inner)?}));
        }
        if let Some(Value::Array(choices)) = map.get("any") {
            return self.any(choices);
        }
        if let Some(Value::String(name)) = map.get("first") {
            let first = Notation {
                version: Version(0),
                ..*self
            };
            let written = self
                .all
                .get(name)
                .ok_or_else(|| format!("there is no schema {name}"))?;
            return first.schema(written);
        }
        self.plain(map)
    }

    fn any(&self, choices: &[Value]) -> Result<Value, String> {
        let mut there = Vec::new();
        for choice in choices {
            if self.is_there(choice)? {
                there.push(self.schema(choice)?);
            }
        }
        Ok(json!({"anyOf": there}))
    }

    fn object(&self, map: &Map<String, Value>) -> Result<Value, String> {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for part in ["always", "sometimes"] {
            let Some(Value::Object(fields)) = map.get(part) else {
                continue;
            };
            for (name, written) in fields {
                if !self.is_there(written)? {
                    continue;
                }
                let schema = self.schema(written).map_err(|why| format!("{name}: {why}"))?;
                properties.insert(name.clone(), schema);
                if part == "always" {
                    required.push(name.as_str());
                }
            }
        }
        let below = map.get("open_below").and_then(Value::as_u64);
        let is_open = map.get("open").is_some_and(|open| *open == json!(true))
            || below.is_some_and(|below| u64::from(self.version.0) < below);
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": is_open});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        Ok(schema)
    }

    /// A JSON schema, in which others are written in the notation.
    fn plain(&self, map: &Map<String, Value>) -> Result<Value, String> {
        let mut schema = Map::new();
        for (name, written) in map {
            let value = match (name.as_str(), written) {
                ("does" | "since" | "or_null", _) => continue,
                ("properties", Value::Object(fields)) => {
                    let each = fields
                        .iter()
                        .map(|(name, written)| Ok((name.clone(), self.schema(written)?)));
                    Value::Object(each.collect::<Result<_, String>>()?)
                }
                (name, Value::String(_) | Value::Object(_)) if NESTS.contains(&name) => {
                    self.schema(written)?
                }
                _ => written.clone(),
            };
            schema.insert(name.clone(), value);
        }
        Ok(schema.into())
    }
}

/// The same, or null.
fn or_null(schema: Value) -> Value {
    match schema {
        Value::Object(mut map)
            if map.get("type").is_some_and(Value::is_string) && !map.contains_key("const") =>
        {
            if let Some(Value::Array(values)) = map.get_mut("enum") {
                values.push(Value::Null);
            }
            let kind = map.remove("type");
            map.insert("type".to_owned(), json!([kind, "null"]));
            map.into()
        }
        other => json!({"anyOf": [other, {"type": "null"}]}),
    }
}

/// Words that mean a schema each.
fn builtin(word: &str) -> Option<Value> {
    let short = json!({"type": "string", "maxLength": TEXT_MAX});
    Some(match word {
        "any" => json!({}),
        "boolean" => json!({"type": "boolean"}),
        "count" => json!({"type": "integer", "minimum": 0}),
        "flag" => json!({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": YES_AND_NO}]}),
        "gib" => json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": INTEGER_MAX},
            {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
        ]}),
        "integer" => json!({"type": "integer"}),
        "long" => json!({"type": "string"}),
        "map" => json!({"type": "object", "additionalProperties": short}),
        "metadata" => json!({
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": TEXT_MAX},
            "additionalProperties": short,
        }),
        "name" | "owner" => json!({"type": "string", "minLength": 1, "maxLength": TEXT_MAX}),
        "null" => json!({"type": "null"}),
        "object" => json!({"type": "object"}),
        "size" => json!({"type": "integer", "minimum": 0, "maximum": INTEGER_MAX}),
        "specs" => json!({
            "type": "object",
            "propertyNames": {"pattern": "^[a-zA-Z0-9_:.-]{1,255}$"},
            "additionalProperties": {"type": ["string", "null"], "maxLength": TEXT_MAX},
        }),
        "text" => short,
        "time" => json!({"type": "string", "pattern": TIME}),
        "uuid" => json!({"type": "string", "pattern": UUID}),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    //! Each form of the notation, and what cannot be one.
    use super::*;

    fn read(version: u8, written: &Value) -> Result<Value, String> {
        let known = BTreeSet::from(["Link"]);
        let all = Map::new();
        let notation = Notation {
            version: Version(version),
            known: &known,
            all: &all,
        };
        notation.schema(written)
    }

    #[test]
    fn words_may_be_null_or_lists_and_have_versions() {
        assert_eq!(
            read(0, &json!("boolean?")),
            Ok(json!({"type": ["boolean", "null"]}))
        );
        assert_eq!(
            read(0, &json!("Link[]")),
            Ok(json!({"type": "array", "items": {"$ref": "#/components/schemas/Link"}}))
        );
        assert_eq!(
            read(0, &json!("rw|ro")),
            Ok(json!({"type": "string", "enum": ["rw", "ro"]}))
        );
        assert_eq!(
            read(0, &json!("bare")),
            Ok(json!({"type": "string", "const": "bare"}))
        );
        assert!(read(0, &json!("Lnik")).unwrap_err().contains("Lnik"));
    }

    #[test]
    fn an_object_has_the_fields_of_its_version_and_is_closed_unless_it_is_said_to_be_open() {
        let written =
            json!({"always": {"a": "count", "b": "count @13"}, "sometimes": {"c": "text"}, "open_below": 53});
        let old = read(12, &written).unwrap();
        assert_eq!(old["required"], json!(["a"]));
        assert_eq!(old["additionalProperties"], json!(true));
        let new = read(53, &written).unwrap();
        assert_eq!(new["required"], json!(["a", "b"]));
        assert_eq!(new["additionalProperties"], json!(false));
        assert!(new["properties"].get("c").is_some());
    }
}
