//! Metadata of volumes and of snapshots: the same paths and rules for both.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::fault::Fault;
use crate::request::{Body, Context};

/// A user's map.
pub type Metadata = BTreeMap<String, String>;

/// The map in a body: `{"metadata": {...}}`.
pub fn all(body: &Body) -> Result<Metadata, Fault> {
    body.only(&["metadata"])?;
    let fields = body.object("metadata")?;
    crate::request::body::metadata("metadata", fields.0)
}

/// The single value in a body: `{"meta": {KEY: ...}}` with the path's key and no other.
pub fn one(body: &Body, key: &str) -> Result<String, Fault> {
    body.only(&["meta"])?;
    let fields = body.object("meta")?;
    let mut map = crate::request::body::metadata("meta", fields.0)?;
    if map.len() != 1 {
        return Err(Fault::bad_request("Request body contains too many items"));
    }
    map.remove(key)
        .ok_or_else(|| Fault::bad_request("Request body and URI mismatch"))
}

/// The refusal where a key is not there.
pub fn no_key(key: &str) -> Fault {
    Fault::not_found(format!("Metadata item was not found: there is no key {key}."))
}

/// The whole map as an answer, with its checksum where the version has it.
pub fn answer(context: &Context, metadata: &Metadata) -> Response {
    let mut response = axum::Json(json!({"metadata": metadata})).into_response();
    if context.version.is(15)
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", tag(metadata)))
    {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Refuses a change of a map that is no longer as the client has seen it (`If-Match`).
pub fn check_match(context: &Context, headers: &HeaderMap, metadata: &Metadata) -> Result<(), Fault> {
    let wanted = headers
        .get(header::IF_MATCH)
        .and_then(|value| value.to_str().ok());
    let Some(wanted) = wanted.filter(|_| context.version.is(15)) else {
        return Ok(());
    };
    let tag = tag(metadata);
    let mut tags = wanted.split(',').map(|tag| tag.trim().trim_matches('"'));
    if tags.any(|wanted| wanted == "*" || wanted == tag) {
        return Ok(());
    }
    Err(Fault::precondition_failed(
        "The metadata has changed since it was read: read it again.",
    ))
}

/// A checksum that differs when the map does.
fn tag(metadata: &Metadata) -> String {
    let text = json!(metadata).to_string();
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes())
        .simple()
        .to_string()
}
