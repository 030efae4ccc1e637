//! `/messages`: what users should know. A message that has been kept for its time is shown no more; [`crate::work`] takes
//! it away.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::volumes;
use crate::door;
use crate::fault::Fault;
use crate::records::message::Message;
use crate::records::{Instant, Stored, Tables};
use crate::request::filter::{Filter, filters};
use crate::request::listing::{self, Key, Page};
use crate::request::{Context, Query};
use crate::routes::{Routes, get};
use crate::service::{Shared, seen};

/// What messages can be sorted by.
const SORT_KEYS: &[&str] = &[
    "id",
    "event_id",
    "resource_uuid",
    "resource_type",
    "request_id",
    "message_level",
    "created_at",
    "guaranteed_until",
    "expires_at",
];
/// Filters for everybody.
pub const FILTERS: &[&str] = &[
    "resource_uuid",
    "resource_type",
    "event_id",
    "request_id",
    "message_level",
];
/// The version in which messages came.
const SINCE: u8 = 3;
/// The version in which listings have pages and filters.
const PAGES_SINCE: u8 = 5;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/messages", get(list))
        .route("/messages/{id}", get(show).delete(delete))
}

fn find<'a>(tables: &'a Tables, context: &Context, id: &str) -> Result<&'a Arc<Stored<Message>>, Fault> {
    let found = seen(&tables.messages, context, id);
    let kept = found.filter(|message| message.expires_at > Instant::now());
    kept.ok_or_else(|| Fault::missing("Message", id))
}

fn view(context: &Context, message: &Message) -> Value {
    json!({
        "id": message.id,
        "event_id": message.event_id,
        "user_message": message.user_message,
        "message_level": message.message_level,
        "created_at": message.created_at.to_string(),
        "guaranteed_until": message.expires_at.to_string(),
        "request_id": message.request_id,
        "resource_type": message.resource_type,
        "resource_uuid": message.resource_uuid,
        "links": context.links(&format!("messages/{}", message.id)),
    })
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("message:get_all", &context)?;
    let query = if context.version.is(PAGES_SINCE) {
        query
    } else {
        query.without_pages()
    };
    let page = Page::read(&query, SORT_KEYS)?;
    let mut filters = filters(&context, &query, FILTERS)?;
    if !context.version.is(PAGES_SINCE) {
        filters.clear();
    }
    service.records.fresh().await?;
    let tables = service.records.tables();
    let now = Instant::now();
    let keep = |message: &Message| message.expires_at > now && fits(message, &filters);
    let whose = volumes::whose(&context, &query)?;
    let selected = page.select(tables.messages.of(whose.as_deref()), keep, key)?;
    let show = |message: &Stored<Message>| view(&context, message);
    Ok(Json(listing::answer(
        &context,
        &query,
        ("messages", "messages"),
        &selected,
        show,
    )))
}

fn fits(message: &Message, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| match filter.name.as_str() {
        "id" => filter.fits(&message.id),
        "resource_uuid" => filter.fits(&message.resource_uuid),
        "resource_type" => filter.fits(&message.resource_type),
        "event_id" => filter.fits(&message.event_id),
        "request_id" => filter.fits(&message.request_id),
        "message_level" => filter.fits(&message.message_level),
        "project_id" => filter.fits(&message.project_id),
        _ => false,
    })
}

fn key<'a>(message: &'a Message, name: &str) -> Key<'a> {
    match name {
        "id" => message.id.as_str().into(),
        "event_id" => message.event_id.as_str().into(),
        "resource_uuid" => message.resource_uuid.as_str().into(),
        "resource_type" => message.resource_type.as_str().into(),
        "request_id" => message.request_id.as_str().into(),
        "message_level" => message.message_level.as_str().into(),
        "guaranteed_until" | "expires_at" => Key::Moment(message.expires_at),
        _ => Key::Moment(message.created_at),
    }
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let message = find(&tables, &context, &id)?;
    service.check_for("message:get", &context, &message.project_id)?;
    Ok(Json(json!({"message": view(&context, message)})))
}

async fn delete(State(service): Shared, context: Context, Path(id): Path<String>) -> Result<Response, Fault> {
    context.since(SINCE)?;
    let deleted = service.records.edit(|edit| {
        let message = find(edit.tables, &context, &id)?;
        service.check_for("message:delete", &context, &message.project_id)?;
        edit.remove(message);
        Ok::<_, Fault>(())
    });
    deleted.await?;
    Ok(door::empty(StatusCode::NO_CONTENT))
}
