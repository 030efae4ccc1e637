//! The document of the API: OpenAPI 3.1, for one microversion at a time, so that it says of each field and path whether it is
//! there, and not whether it may be.
//!
//! It is put together from `cinder-api/openapi/*.yaml`, a file for each family of resources, in a notation ([`notation`]) in which
//! a field takes a word and not four lines. What every path has in common is added here. It cannot drift: a test compares its
//! paths with the routes, in both directions, and the cloud's tests hold every answer against it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::fault::{self, Fault};
use crate::records::backup::BackupStatus;
use crate::records::group::GroupStatus;
use crate::records::snapshot::SnapshotStatus;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::request::Version;

mod notation;
mod operation;

use notation::Notation;

/// The files, by what paths in them are filed under.
const FILES: &[(&str, &str)] = &[
    ("common", include_str!("../openapi/common.yaml")),
    ("volumes", include_str!("../openapi/volumes.yaml")),
    ("snapshots", include_str!("../openapi/snapshots.yaml")),
    ("attachments", include_str!("../openapi/attachments.yaml")),
    ("types", include_str!("../openapi/types.yaml")),
    ("quality", include_str!("../openapi/quality.yaml")),
    ("transfers", include_str!("../openapi/transfers.yaml")),
    ("groups", include_str!("../openapi/groups.yaml")),
    (
        "consistencygroups",
        include_str!("../openapi/consistencygroups.yaml"),
    ),
    ("backups", include_str!("../openapi/backups.yaml")),
    ("operators", include_str!("../openapi/operators.yaml")),
];

/// Refusals that there are, and when.
const REFUSALS: &[(u16, &str)] = &[
    (400, "The request is wrong, or cannot be done as things are."),
    (401, "Keystone does not vouch for the token."),
    (403, "The caller may not do that."),
    (404, "There is no such thing, or not for the caller."),
    (406, "The API does not speak that version."),
    (408, "The body did not come in time."),
    (409, "Something of that name is there, or somebody uses it."),
    (412, "It has changed since it was read."),
    (413, "More than the project may have, or a body that is too long."),
    (415, "The body is no JSON."),
    (429, "The project asks too fast."),
    (503, "Something that is needed is away for now."),
];

/// Part of the files: names, and what stands under them.
type Part = Map<String, Value>;

/// What the files say.
struct Files {
    /// Paths behind the door, each with its file's name.
    paths: Vec<(String, &'static str, Value)>,
    /// Paths for anybody.
    open: Part,
    schemas: Part,
    queries: Part,
    parameters: Part,
}

static READ: LazyLock<Result<Files, String>> = LazyLock::new(Files::read);

impl Files {
    fn read() -> Result<Self, String> {
        let mut files = Self {
            paths: Vec::new(),
            open: Map::new(),
            schemas: Map::new(),
            queries: Map::new(),
            parameters: Map::new(),
        };
        for (name, text) in FILES {
            let file = parse(text).map_err(|error| format!("openapi/{name}.yaml: {error}"))?;
            for (part, inside) in file {
                let Value::Object(inside) = inside else {
                    return Err(format!("openapi/{name}.yaml: {part} is no map"));
                };
                match part.as_str() {
                    "paths" => {
                        let paths = inside.into_iter().map(|(path, inside)| (path, *name, inside));
                        files.paths.extend(paths);
                    }
                    "open" => files.open.extend(inside),
                    "schemas" => files.schemas.extend(inside),
                    "queries" => files.queries.extend(inside),
                    "parameters" => files.parameters.extend(inside),
                    _ => return Err(format!("openapi/{name}.yaml: nobody reads {part}")),
                }
            }
        }
        Ok(files)
    }
}

fn parse(text: &str) -> Result<Part, serde_yaml_ng::Error> {
    let mut yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(text)?;
    yaml.apply_merge()?;
    serde_yaml_ng::from_value(texts(yaml))
}

/// Statuses are numbers in YAML, and keys of JSON are texts.
fn texts(yaml: serde_yaml_ng::Value) -> serde_yaml_ng::Value {
    use serde_yaml_ng::Value as Yaml;
    match yaml {
        Yaml::Mapping(map) => {
            let pairs = map.into_iter().map(|(key, value)| {
                let key = match key {
                    Yaml::Number(number) => Yaml::String(number.to_string()),
                    other => other,
                };
                (key, texts(value))
            });
            Yaml::Mapping(pairs.collect())
        }
        Yaml::Sequence(values) => Yaml::Sequence(values.into_iter().map(texts).collect()),
        other => other,
    }
}

/// The document for a version; an error is one of the files, which a test shows not to be there.
pub fn document(version: Version) -> Result<Value, String> {
    let files = READ.as_ref().map_err(Clone::clone)?;
    let statuses = statuses();
    let named = statuses.iter().map(|(name, _)| *name);
    let known: BTreeSet<&str> = named.chain(files.schemas.keys().map(String::as_str)).collect();
    let notation = Notation {
        version,
        known: &known,
        all: &files.schemas,
    };
    let mut schemas: Part = Map::new();
    for (name, values) in &statuses {
        schemas.insert((*name).to_owned(), json!({"type": "string", "enum": values}));
    }
    for (name, schema) in &files.schemas {
        let schema = notation
            .schema(schema)
            .map_err(|why| format!("schema {name}: {why}"))?;
        schemas.insert(name.clone(), schema);
    }
    let mut paths = Map::new();
    for (path, tag, methods) in &files.paths {
        let at = format!("/v3{path}");
        let inside = operation::path(files, &notation, (&at, tag), methods, true)?;
        if let Some(inside) = inside {
            paths.insert(at, inside);
        }
    }
    for (path, methods) in &files.open {
        let inside = operation::path(files, &notation, (path, "open"), methods, false)?;
        paths.extend(inside.map(|inside| (path.clone(), inside)));
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Block Storage API of storaged",
            "version": format!("3.{}", version.0),
            "description": "Cinder's API over volumes of storaged, in one microversion. The project may stand in each path \
                after /v3: /v3/PROJECT/volumes.",
            "license": {"name": "Apache-2.0 OR MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": refusals(),
            "securitySchemes": {"token": {
                "type": "apiKey",
                "in": "header",
                "name": "X-Auth-Token",
                "description": "A token of Keystone's for a project.",
            }},
        },
    }))
}

fn statuses() -> [(&'static str, Vec<&'static str>); 5] {
    [
        (
            "VolumeStatus",
            VolumeStatus::ALL.iter().map(|status| status.as_str()).collect(),
        ),
        (
            "AttachStatus",
            AttachStatus::ALL.iter().map(|status| status.as_str()).collect(),
        ),
        (
            "SnapshotStatus",
            SnapshotStatus::ALL.iter().map(|status| status.as_str()).collect(),
        ),
        (
            "GroupStatus",
            GroupStatus::ALL.iter().map(|status| status.as_str()).collect(),
        ),
        (
            "BackupStatus",
            BackupStatus::ALL.iter().map(|status| status.as_str()).collect(),
        ),
    ]
}

fn refusals() -> Value {
    let refusal = |(status, when): &(u16, &str)| {
        let (name, inside) = match status {
            401 => ("error", "Unauthorized"),
            other => (fault::name(*other), "Refusal"),
        };
        let schema = json!({
            "type": "object",
            "required": [name],
            "additionalProperties": false,
            "properties": {name: {"$ref": format!("#/components/schemas/{inside}")}},
        });
        let content = json!({"application/json": {"schema": schema}});
        (
            status.to_string(),
            json!({"description": when, "content": content}),
        )
    };
    Value::Object(REFUSALS.iter().map(refusal).collect())
}

/// `GET /openapi.json`: for the newest version, or the one of the query.
pub fn answer(query: Option<&str>) -> Response {
    static NEWEST: LazyLock<Result<String, String>> =
        LazyLock::new(|| document(Version::MAX).map(|document| document.to_string()));
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let wanted = pairs.filter(|(name, _)| name == "version").last();
    let version = match wanted.map(|(_, text)| Version::parse(&text)) {
        None => Version::MAX,
        Some(Ok(version)) => version,
        Some(Err(refusal)) => return Fault::bad_request(refusal.message).into_response(),
    };
    let written = if version == Version::MAX {
        NEWEST.clone()
    } else {
        document(version).map(|document| document.to_string())
    };
    match written {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(why) => Fault::internal(&why).into_response(),
    }
}

#[cfg(test)]
mod tests {
    //! The document has the paths that there are, in every version, and every word of the files means something.
    use super::*;
    use crate::{api, door};

    /// Paths and methods of a document, without what it calls the parts in braces.
    fn described(document: &Value) -> BTreeSet<String> {
        let paths = document["paths"].as_object().unwrap();
        let each = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        each.collect()
    }

    fn routed() -> BTreeSet<String> {
        let routes = api::routes();
        let inside = routes
            .list()
            .iter()
            .flat_map(|(path, methods)| methods.iter().map(move |method| format!("{method} /v3{path}")));
        let open = door::OPEN.iter().map(|path| format!("GET {path}"));
        inside.chain(open).collect()
    }

    #[test]
    fn the_newest_document_has_the_paths_and_methods_that_are_routed_and_no_others() {
        let described = described(&document(Version::MAX).unwrap());
        let routed = routed();
        let missing: Vec<_> = routed.difference(&described).collect();
        let invented: Vec<_> = described.difference(&routed).collect();
        assert!(
            missing.is_empty() && invented.is_empty(),
            "not described: {missing:?}; not there: {invented:?}"
        );
        assert!(routed.len() > 150, "{}", routed.len());
    }

    #[test]
    fn every_version_has_a_document_and_none_has_less_than_the_one_before() {
        let mut before = BTreeSet::new();
        for minor in 0..=Version::MAX.0 {
            let now = described(&document(Version(minor)).unwrap());
            assert!(before.is_subset(&now), "3.{minor}");
            before = now;
        }
    }

    #[test]
    fn a_field_is_there_from_its_version_on_and_then_always() {
        let volume = |minor| document(Version(minor)).unwrap()["components"]["schemas"]["Volume"].clone();
        let is_required = |schema: &Value| {
            schema["required"]
                .as_array()
                .unwrap()
                .contains(&json!("group_id"))
        };
        let (old, new) = (volume(12), volume(13));
        assert!(
            old["properties"].get("group_id").is_none() && !is_required(&old),
            "{old}"
        );
        assert!(
            new["properties"].get("group_id").is_some() && is_required(&new),
            "{new}"
        );
    }

    #[test]
    fn every_schema_of_the_files_is_used_and_no_merge_is_left() {
        let text = document(Version::MAX).unwrap().to_string();
        assert!(!text.contains("<<"), "a merge within a merge is not done");
        for name in READ.as_ref().unwrap().schemas.keys() {
            assert!(
                text.contains(&format!("\"#/components/schemas/{name}\"")),
                "{name}"
            );
        }
    }
}
