//! `/os-volume-transfer` and `/volume-transfers`: volumes for other projects. Who has the key of an offer may take it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::volumes;
use crate::fault::Fault;
use crate::records::transfer::Transfer;
use crate::records::{Stored, Tables};
use crate::request::filter::{Filter, any};
use crate::request::listing::{self, Key, Page};
use crate::request::{Context, Query};
use crate::routes::{Routes, get, post};
use crate::service::{Service, Shared, seen};

mod accept;
mod key;
mod offer;
mod passage;

/// What transfers can be sorted by.
const SORT_KEYS: &[&str] = &["id", "name", "display_name", "volume_id", "created_at"];
/// The version in which the newer path came, and with it the choice of leaving snapshots behind.
const SNAPSHOTS_SINCE: u8 = 55;
/// The version in which listings have pages.
const PAGES_SINCE: u8 = 59;

pub(super) fn routes() -> Routes {
    routes_at("/os-volume-transfer").merge(routes_at("/volume-transfers").since(SNAPSHOTS_SINCE))
}

/// The paths below a name.
fn routes_at(path: &str) -> Routes {
    let below = |rest: &str| format!("{path}{rest}");
    Routes::new()
        .route(path, get(list).post(offer::create))
        .route(&below("/detail"), get(list_detail))
        .route(&below("/{id}"), get(show).delete(offer::delete))
        .route(&below("/{id}/accept"), post(accept::accept))
}

/// An offer that a caller may know of: one of his own project.
fn find<'a>(tables: &'a Tables, context: &Context, id: &str) -> Result<&'a Arc<Stored<Transfer>>, Fault> {
    seen(&tables.transfers, context, id).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Fault {
    Fault::missing("Transfer", id)
}

fn summary(context: &Context, transfer: &Transfer) -> Value {
    json!({
        "id": transfer.id,
        "volume_id": transfer.volume_id,
        "name": transfer.name,
        "links": context.links(&format!("os-volume-transfer/{}", transfer.id)),
    })
}

fn detail(context: &Context, transfer: &Transfer) -> Value {
    let mut shown = summary(context, transfer);
    shown["created_at"] = json!(transfer.created_at.to_string());
    if context.version.is(SNAPSHOTS_SINCE) {
        shown["no_snapshots"] = json!(transfer.no_snapshots);
    }
    if context.version.is(57) {
        shown["source_project_id"] = json!(transfer.source_project_id);
        shown["destination_project_id"] = json!(transfer.destination_project_id);
        shown["accepted"] = json!(transfer.accepted);
    }
    shown
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    answer(&service, &context, query, "os-volume-transfer", summary).await
}

async fn list_detail(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    answer(&service, &context, query, "os-volume-transfer/detail", detail).await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: Query,
    path: &str,
    show: impl Fn(&Context, &Transfer) -> Value,
) -> Result<Json<Value>, Fault> {
    service.check("volume:get_all_transfers", context)?;
    let query = if context.version.is(PAGES_SINCE) {
        query
    } else {
        // As it was before: oldest first.
        let mut query = query.without_pages();
        query.0.push(("sort".to_owned(), "created_at:asc".to_owned()));
        query
    };
    let page = Page::read(&query, SORT_KEYS)?;
    let filters = any(&query);
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |transfer: &Transfer| filters.iter().all(|filter| fits(transfer, filter));
    let whose = volumes::whose(context, &query)?;
    let selected = page.select(tables.transfers.of(whose.as_deref()), keep, sort_key)?;
    let show = |transfer: &Stored<Transfer>| show(context, transfer);
    Ok(Json(listing::answer(
        context,
        &query,
        ("transfers", path),
        &selected,
        show,
    )))
}

fn fits(transfer: &Transfer, filter: &Filter) -> bool {
    match filter.name.as_str() {
        "id" => filter.fits(&transfer.id),
        "name" | "display_name" => filter.fits_some(transfer.name.as_deref()),
        "volume_id" => filter.fits(&transfer.volume_id),
        "project_id" | "source_project_id" => filter.fits(&transfer.source_project_id),
        _ => false,
    }
}

fn sort_key<'a>(transfer: &'a Transfer, name: &str) -> Key<'a> {
    match name {
        "id" => transfer.id.as_str().into(),
        "name" | "display_name" => transfer.name.as_deref().into(),
        "volume_id" => transfer.volume_id.as_str().into(),
        _ => Key::Moment(transfer.created_at),
    }
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let transfer = find(&tables, &context, &id)?;
    service.check_for("volume:get_transfer", &context, &transfer.source_project_id)?;
    Ok(Json(json!({"transfer": detail(&context, transfer)})))
}

fn accepted(shown: &Value) -> Response {
    let body = Json(json!({"transfer": shown}));
    (StatusCode::ACCEPTED, body).into_response()
}
