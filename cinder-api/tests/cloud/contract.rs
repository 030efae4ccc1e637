//! Every answer that these tests get is one that the document of the API tells of: the path is there, the status is one of
//! its statuses, and what is in the answer has all fields that it should have and no others.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use cinder_api::openapi;
use cinder_api::request::Version;
use jsonschema::Validator;
use serde_json::{Value, json};
use test_openstack::http::{Answer, Method};

/// The document for the version in which these tests ask.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| openapi::document(Version::MAX).unwrap());
/// What was compiled already, by path, method and status.
static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// Fails if an answer is none of the document's. The path is one below `/v3`, with its query.
pub(crate) fn hold(method: &Method, path: &str, answer: &Answer) {
    let bare = path.split('?').next().unwrap().trim_start_matches('/');
    let bare = match bare.split_once('/') {
        Some((project, rest)) if is_project(project) => rest,
        _ => bare,
    };
    let bare = format!("/v3/{bare}");
    let Some((template, methods)) = find(&bare) else {
        assert_eq!(answer.status, 404, "{method} {path} is not described");
        return;
    };
    let operation = &methods[method.as_str().to_lowercase()];
    if operation.is_null() {
        assert_eq!(answer.status, 405, "{method} {path} is not described");
        return;
    }
    let what = format!("{method} {path}: {} {}", answer.status, answer.text);
    let mut response = &operation["responses"][answer.status.to_string()];
    if let Some(reference) = response["$ref"].as_str() {
        response = DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap();
    }
    assert!(!response.is_null(), "the document has no such status. {what}");
    let schema = &response["content"]["application/json"]["schema"];
    let may_be_empty = schema.is_null() || response["x-may-be-empty"] == json!(true);
    if may_be_empty && answer.text.is_empty() {
        return;
    }
    assert!(!schema.is_null(), "the document knows of nothing in it. {what}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    let key = format!("{method} {template} {}", answer.status);
    let errors: Vec<String> = validator(key, schema)
        .iter_errors(&answer.body)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "it is not as described: {errors:?}. {what}");
}

/// Whether a part of a path is a project, which may stand before all of it.
fn is_project(part: &str) -> bool {
    part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The path of the document that an address belongs to: one without braces before one with them.
fn find(path: &str) -> Option<(&'static String, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let (mut parts, mut templates) = (path.split('/'), template.split('/'));
        parts.clone().count() == templates.clone().count()
            && templates.all(|wanted| {
                let part = parts.next().unwrap();
                wanted == part || wanted.starts_with('{') && !part.is_empty()
            })
    };
    let fitting = paths.iter().filter(|(template, _)| fits(template));
    fitting.min_by_key(|(template, _)| template.matches('{').count())
}

fn validator(key: String, schema: &Value) -> &'static Validator {
    let mut known = VALIDATORS.lock().unwrap();
    known.entry(key).or_insert_with(|| {
        let mut root = schema.clone();
        root["components"] = DOCUMENT["components"].clone();
        Box::leak(Box::new(jsonschema::validator_for(&root).unwrap()))
    })
}

#[test]
fn an_answer_with_a_field_too_many_or_too_few_is_found() {
    let good = json!({"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": true}}]});
    let schema = DOCUMENT
        .pointer("/paths/~1v3~1os-availability-zone/get/responses/200/content/application~1json/schema")
        .unwrap();
    let zones = validator("zones".to_owned(), schema);
    assert!(zones.is_valid(&good));
    let mut more = good.clone();
    more["availabilityZoneInfo"][0]["more"] = json!(1);
    let mut less = good;
    less["availabilityZoneInfo"][0]
        .as_object_mut()
        .unwrap()
        .remove("zoneName");
    assert!(!zones.is_valid(&more) && !zones.is_valid(&less));
}
