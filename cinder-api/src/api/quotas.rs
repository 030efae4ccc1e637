//! `/os-quota-sets` and `/os-quota-class-sets`: what projects may have.
//!
//! Resources of a type are called by the type's name in the API and by its identity in records, for a type can get another
//! name.

use serde_json::Map;

use crate::fault::Fault;
use crate::quota::{PER_TYPE, RESOURCES, of_type};
use crate::records::Tables;
use crate::records::quota::DEFAULT_CLASS;
use crate::request::Fields;
use crate::request::body::{INTEGER_MAX, TEXT_MAX};
use crate::routes::{Routes, get};

mod classes;
mod sets;

/// Keys of a set that are no resources, but that clients send.
const NO_RESOURCES: &[&str] = &["tenant_id", "id"];

pub(super) fn routes() -> Routes {
    Routes::new()
        .route(
            "/os-quota-sets/{project}",
            get(sets::show).put(sets::update).delete(sets::delete),
        )
        .route("/os-quota-sets/{project}/defaults", get(sets::defaults))
        .route(
            "/os-quota-class-sets/{class}",
            get(classes::show).put(classes::update),
        )
}

/// Refuses a project that no record can be kept of: identities are letters, digits and dashes, and one of them is taken.
pub(super) fn check_project(project: &str) -> Result<(), Fault> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
    let is_good = !project.is_empty() && project.len() <= TEXT_MAX && project.bytes().all(is_known);
    if is_good && project != DEFAULT_CLASS {
        return Ok(());
    }
    Err(Fault::bad_request(format!(
        "Invalid input received: {project} is no project's identity: those are letters, digits and dashes."
    )))
}

/// Every resource: its name for people, and its name in records.
fn resources(tables: &Tables) -> Vec<(String, String)> {
    let plain = RESOURCES
        .iter()
        .map(|(name, _)| ((*name).to_owned(), (*name).to_owned()));
    let of_types = tables.types.iter().flat_map(|kind| {
        PER_TYPE
            .iter()
            .map(|resource| (of_type(resource, &kind.name), of_type(resource, &kind.id)))
    });
    plain.chain(of_types).collect()
}

/// The limits that a body sets, by their names in records. A key that is no resource is refused.
fn read(tables: &Tables, fields: Fields<'_>, set: &str) -> Result<Vec<(String, String, i64)>, Fault> {
    let known = resources(tables);
    let mut limits = Vec::new();
    let mut unknown = Vec::new();
    for key in fields.0.keys() {
        if NO_RESOURCES.contains(&key.as_str()) {
            continue;
        }
        match known.iter().find(|(shown, _)| shown == key) {
            Some((shown, kept)) => {
                let limit = fields.integer(key, -1..=INTEGER_MAX)?;
                let limit = limit.ok_or_else(|| null(key))?;
                limits.push((shown.clone(), kept.clone(), limit));
            }
            None => unknown.push(key.as_str()),
        }
    }
    if unknown.is_empty() {
        return Ok(limits);
    }
    Err(Fault::bad_request(format!(
        "Invalid input received: Bad key(s) in {set}: {}",
        unknown.join(", ")
    )))
}

fn null(key: &str) -> Fault {
    Fault::field(key, &serde_json::Value::Null, "None is not of type 'integer'")
}

/// A set with something for each resource.
fn set_of<V: Into<serde_json::Value>>(
    tables: &Tables,
    value: impl Fn(&str) -> V,
) -> Map<String, serde_json::Value> {
    let named = resources(tables).into_iter();
    named.map(|(shown, kept)| (shown, value(&kept).into())).collect()
}

#[cfg(test)]
mod tests {
    //! Names outside and inside, and what is refused.
    use serde_json::{Value, json};

    use super::*;

    fn names(body: &Value) -> Option<Vec<(String, String, i64)>> {
        read(&Tables::default(), Fields(body.as_object().unwrap()), "quota set").ok()
    }

    #[test]
    fn limits_are_whole_numbers_from_minus_one_of_known_resources() {
        let limits = names(&json!({"volumes": -1, "id": "x", "tenant_id": "y"})).unwrap();
        assert_eq!(limits, [("volumes".to_owned(), "volumes".to_owned(), -1)]);
        for bad in [
            json!({"volumes": -2}),
            json!({"volumes": null}),
            json!({"volumes": "many"}),
            json!({"cores": 1}),
            json!({"volumes": 1, "volumes_none": 1}),
        ] {
            assert_eq!(names(&bad), None, "{bad}");
        }
    }

    #[test]
    fn the_record_of_all_projects_is_no_projects() {
        assert!(check_project("0123456789abcdef0123456789abcdef").is_ok());
        for bad in ["", DEFAULT_CLASS, "a/b", "\u{e9}"] {
            assert!(check_project(bad).is_err(), "{bad}");
        }
    }
}
