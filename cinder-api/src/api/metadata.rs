//! Metadata of volumes and of snapshots: the same paths and rules for both.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::door;
use crate::fault::Fault;
use crate::records::{Edit, Record, Stored, Tables};
use crate::request::{Body, Context};
use crate::routes::{Routes, get};
use crate::service::{Service, Shared};

/// A user's map.
pub(super) type Metadata = BTreeMap<String, String>;

/// What has metadata.
pub(super) trait Bearer: Record {
    /// The rule for reading it.
    const READ: &'static str;
    /// The rule for writing it.
    const WRITE: &'static str;
    /// The rule for taking a key out of it.
    const DELETE: &'static str;

    /// One that a caller may know of, and do something with that a rule names.
    fn find_for<'a>(
        service: &Service,
        tables: &'a Tables,
        context: &Context,
        rule: &str,
        id: &str,
    ) -> Result<&'a Arc<Stored<Self>>, Fault>;

    /// The map.
    fn metadata(&self) -> &Metadata;

    /// Refuses a change while it is at something that does not go with one.
    fn check_changeable(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Gives it another map.
    fn set_metadata(edit: &mut Edit<'_>, stored: &Stored<Self>, metadata: &Metadata);
}

/// The paths of the metadata of what is below a path: `/volumes`.
pub(super) fn routes<B: Bearer>(below: &str) -> Routes {
    let whole = get(show::<B>).post(merge::<B>).put(replace::<B>);
    let single = get(show_one::<B>).put(set::<B>).delete(remove::<B>);
    Routes::new()
        .route(&format!("{below}/{{id}}/metadata"), whole)
        .route(&format!("{below}/{{id}}/metadata/{{key}}"), single)
}

async fn show<B: Bearer>(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let bearer = B::find_for(&service, &tables, &context, B::READ, &id)?;
    Ok(answer(&context, bearer.metadata()))
}

async fn merge<B: Bearer>(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let more = all(&body)?;
    let merged = edit::<B>(&service, &context, (B::WRITE, &id), &headers, |metadata| {
        metadata.extend(more.clone());
        Ok(())
    });
    Ok(answer(&context, &merged.await?))
}

async fn replace<B: Bearer>(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let new = all(&body)?;
    let replaced = edit::<B>(&service, &context, (B::WRITE, &id), &headers, |metadata| {
        metadata.clone_from(&new);
        Ok(())
    });
    Ok(answer(&context, &replaced.await?))
}

async fn show_one<B: Bearer>(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let bearer = B::find_for(&service, &tables, &context, B::READ, &id)?;
    let value = bearer.metadata().get(&key).ok_or_else(|| no_key(&key))?;
    Ok(Json(json!({"meta": {key: value}})))
}

async fn set<B: Bearer>(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let value = one(&body, &key)?;
    let set = edit::<B>(&service, &context, (B::WRITE, &id), &headers, |metadata| {
        metadata.insert(key.clone(), value.clone());
        Ok(())
    });
    set.await?;
    Ok(Json(json!({"meta": {key: value}})))
}

async fn remove<B: Bearer>(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let removed = edit::<B>(&service, &context, (B::DELETE, &id), &headers, |metadata| {
        metadata.remove(&key).map(|_| ()).ok_or_else(|| no_key(&key))
    });
    removed.await?;
    Ok(door::empty(StatusCode::OK))
}

async fn edit<B: Bearer>(
    service: &Service,
    context: &Context,
    (rule, id): (&str, &str),
    headers: &HeaderMap,
    becomes: impl Fn(&mut Metadata) -> Result<(), Fault>,
) -> Result<Metadata, Fault> {
    let edited = service.records.edit(|edit| {
        let stored = B::find_for(service, edit.tables, context, rule, id)?;
        stored.check_changeable()?;
        check_match(context, headers, stored.metadata())?;
        let mut new = stored.metadata().clone();
        becomes(&mut new)?;
        B::set_metadata(edit, stored, &new);
        Ok(new)
    });
    edited.await
}

/// The map in a body: `{"metadata": {...}}`.
fn all(body: &Body) -> Result<Metadata, Fault> {
    body.only(&["metadata"])?;
    let fields = body.object("metadata")?;
    crate::request::body::metadata("metadata", fields.0)
}

/// The single value in a body: `{"meta": {KEY: ...}}` with the path's key and no other.
fn one(body: &Body, key: &str) -> Result<String, Fault> {
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
fn no_key(key: &str) -> Fault {
    Fault::not_found(format!("Metadata item was not found: there is no key {key}."))
}

/// The whole map as an answer, with its checksum where the version has it.
fn answer(context: &Context, metadata: &Metadata) -> Response {
    let mut response = Json(json!({"metadata": metadata})).into_response();
    if context.version.is(15)
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", tag(metadata)))
    {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Refuses a change of a map that is no longer as the client has seen it (`If-Match`).
fn check_match(context: &Context, headers: &HeaderMap, metadata: &Metadata) -> Result<(), Fault> {
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
