//! `/manageable_volumes` and `/manageable_snapshots`, and both under their older names: what the storage has is taken over
//! as OpenStack's, under the name that it has there.

use serde_json::{Value, json};

use crate::capabilities::{VOLUME_BINARY, backend};
use crate::fault::Fault;
use crate::request::filter::dictionary;
use crate::request::{Fields, Query};
use crate::routes::{Routes, get};
use crate::service::Service;
use crate::storage::GIB;

mod listing;
mod snapshots;
mod volumes;

/// The version in which the newer paths came.
const SINCE: u8 = 8;
/// The name of a name in references.
const BY_NAME: &str = "source-name";
/// The name of a number in references: what storaged gives to nothing else.
const BY_NUMBER: &str = "source-id";

pub(super) fn routes() -> Routes {
    let volumes = || get(volumes::list).post(volumes::manage);
    let snapshots = || get(snapshots::list).post(snapshots::manage);
    Routes::new()
        .route("/os-volume-manage", volumes())
        .route("/os-volume-manage/detail", get(volumes::list_detail))
        .route("/os-snapshot-manage", snapshots())
        .route("/os-snapshot-manage/detail", get(snapshots::list_detail))
        .merge(
            Routes::new()
                .route("/manageable_volumes", volumes())
                .route("/manageable_volumes/detail", get(volumes::list_detail))
                .route("/manageable_snapshots", snapshots())
                .route("/manageable_snapshots/detail", get(snapshots::list_detail))
                .since(SINCE),
        )
}

/// Refuses a host that is not this storage's, with or without one of its pools, in the words for it.
fn check_host(service: &Service, host: Option<&str>, no_host: impl Fn(&str) -> Fault) -> Result<(), Fault> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Err(Fault::bad_request(
            "Invalid input received: One of cluster and host must be set, and there is no cluster.",
        ));
    };
    if host.split('#').next() == Some(backend(&service.settings).as_str()) {
        return Ok(());
    }
    Err(no_host(host))
}

/// The refusal of a list of what a host has that is not there.
fn nothing_listed(host: &str) -> Fault {
    Fault::not_found(format!(
        "Service {VOLUME_BINARY} could not be found on host {host}."
    ))
}

/// Something of the storage, as a request calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reference {
    /// By its name.
    Name(String),
    /// By its number.
    Number(u64),
}

impl Reference {
    /// Reads `{"source-name": "..."}`, `{"source-id": "..."}`, or a name alone; objects also as text.
    /// A prefix that clients put before names, and that the storage does not know, is left out.
    fn read(fields: Fields<'_>, prefix: &str) -> Result<Self, Fault> {
        let named = |name: &str| Self::named(name.strip_prefix(prefix).unwrap_or(name));
        let value = fields.value("ref").ok_or_else(|| fields.required("ref"))?;
        let read = match value {
            Value::String(text) => match dictionary(text) {
                Some(map) => Self::of(|key| map.get(key).cloned(), named),
                None => named(text),
            },
            Value::Object(map) => {
                let text = |key: &str| match map.get(key) {
                    Some(Value::String(text)) => Some(text.clone()),
                    Some(Value::Number(number)) => Some(number.to_string()),
                    _ => None,
                };
                Self::of(text, named)
            }
            _ => None,
        };
        read.ok_or_else(|| {
            Fault::field(
                "ref",
                value,
                "It must be {\"source-name\": NAME} with a name that the storage could have, or {\"source-id\": NUMBER}.",
            )
        })
    }

    fn of(get: impl Fn(&str) -> Option<String>, named: impl Fn(&str) -> Option<Self>) -> Option<Self> {
        match get(BY_NAME) {
            Some(name) => named(&name),
            None => get(BY_NUMBER)?.parse().ok().map(Self::Number),
        }
    }

    fn named(name: &str) -> Option<Self> {
        admin_api::names::check_name(name).ok()?;
        Some(Self::Name(name.to_owned()))
    }
}

/// A reference as answers show it.
fn shown(name: &str) -> Value {
    json!({BY_NAME: name})
}

/// Bytes in GiB, as whole ones.
fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(GIB)
}

/// The host in a query.
fn host(query: &Query) -> Option<&str> {
    query.get("host")
}

#[cfg(test)]
mod tests {
    //! Every spelling of a reference.
    use super::*;

    fn read(value: &Value) -> Option<Reference> {
        let body = json!({"ref": value});
        Reference::read(Fields(body.as_object().unwrap()), "_").ok()
    }

    #[test]
    fn a_reference_is_read_in_every_spelling() {
        let name = Some(Reference::Name("volume-1".to_owned()));
        for value in [
            json!({"source-name": "volume-1"}),
            json!({"source-name": "_volume-1"}),
            json!("volume-1"),
            json!("{'source-name': 'volume-1'}"),
        ] {
            assert_eq!(read(&value), name, "{value}");
        }
        assert_eq!(read(&json!({"source-id": 7})), Some(Reference::Number(7)));
        assert_eq!(read(&json!({"source-id": "7"})), Some(Reference::Number(7)));
    }

    #[test]
    fn what_the_storage_cannot_have_is_no_reference() {
        for value in [
            json!({}),
            json!({"source-name": "../x"}),
            json!({"source-name": ""}),
            json!({"source-id": "x"}),
            json!(7),
            json!("a/b"),
        ] {
            assert_eq!(read(&value), None, "{value}");
        }
        assert_eq!(gib(1), 1);
        assert_eq!(gib(GIB), 1);
        assert_eq!(gib(GIB + 1), 2);
    }
}
