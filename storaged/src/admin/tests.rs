//! The OpenAPI document tells the truth: every route is in it, and everything in it can be found.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn document_json() -> Value {
    serde_json::to_value(document()).unwrap()
}

/// The rows of the table in the documentation of `admin-api`.
fn promised() -> BTreeSet<(String, String)> {
    let text = include_str!("../../../crates/admin-api/src/lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() > 2 && cells[1].starts_with('`'))
        .map(|cells| (cells[0].to_lowercase(), cells[1].trim_matches('`').to_owned()))
        .collect()
}

fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .keys()
                .map(move |method| (method.clone(), path.clone()))
        })
        .collect()
}

#[test]
fn every_promised_route_is_documented_and_no_other() {
    let promised = promised();
    assert!(promised.len() > 25, "the table was not found: {promised:?}");
    assert_eq!(documented(&document_json()), promised);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = document_json();
    let mut references = Vec::new();
    walk(&document, &mut references);
    assert!(references.len() > 30);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_operation_says_what_it_does_and_its_parameters_are_those_of_its_path() {
    let document = document_json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert!(
                !operation["responses"].as_object().unwrap().is_empty(),
                "{method} {path}"
            );
            let in_path: BTreeSet<&str> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let described: BTreeSet<&str> = parameters
                .filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            assert_eq!(in_path, described, "{method} {path}");
        }
    }
}

/// What each operation needs over the network. A new one is thought about here.
const NEEDED: &str = include_str!("permissions.txt");

#[test]
fn what_each_operation_needs_over_the_network_is_as_decided() {
    use axum::http::Method;
    let mut lines = Vec::new();
    for (method, path) in documented(&document_json()) {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let role = crate::access::permission::needed(&method, &path);
        let needed = role.map_or("nobody".to_owned(), |role| format!("{role:?}").to_lowercase());
        lines.push(format!("{needed:<13} {method:<6} {path}\n"));
    }
    lines.sort();
    assert_eq!(lines.concat(), NEEDED, "the new table is on the left");
}
