//! `/attachments`: which servers use which volumes, and how their hosts reach them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::volumes;
use crate::connections::Connector;
use crate::door;
use crate::fault::Fault;
use crate::records::attachment::AttachMode;
use crate::records::volume::AttachStatus;
use crate::records::{Attachment, Instant, Stored, Tables};
use crate::request::filter::{Filter, filters};
use crate::request::listing::{self, Key, Page};
use crate::request::{Body, Context, Fields, Query};
use crate::routes::{Routes, get, post};
use crate::service::{Service, Shared, seen};

pub mod connection;
pub mod guard;
pub mod state;

/// What attachments can be sorted by.
const SORT_KEYS: &[&str] = &[
    "id",
    "volume_id",
    "created_at",
    "updated_at",
    "status",
    "attach_status",
    "instance_id",
];
/// Filters for everybody.
pub const FILTERS: &[&str] = &["volume_id", "status", "instance_id", "attach_status"];
/// The version in which attachments came.
const SINCE: u8 = 27;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/attachments", get(list).post(create))
        .route("/attachments/detail", get(list_detail))
        .route("/attachments/{id}", get(show).put(update).delete(delete))
        .route("/attachments/{id}/action", post(act))
}

/// An attachment that a caller may know of.
pub fn find<'a>(
    tables: &'a Tables,
    context: &Context,
    id: &str,
) -> Result<&'a Arc<Stored<Attachment>>, Fault> {
    seen(&tables.attachments, context, id).ok_or_else(|| {
        Fault::not_found(format!(
            "Volume attachment could not be found with filter: attachment_id = {id}."
        ))
    })
}

fn summary(attachment: &Attachment) -> Value {
    json!({
        "id": attachment.id,
        "status": attachment.status,
        "instance": attachment.instance_id,
        "volume_id": attachment.volume_id,
    })
}

fn detail(attachment: &Attachment) -> Value {
    let mut shown = summary(attachment);
    let connection = attachment
        .connection
        .as_ref()
        .map(|connection| connection.0.clone());
    shown["attached_at"] = json!(
        attachment
            .attached_at
            .map(|at| at.to_string())
            .unwrap_or_default()
    );
    shown["detached_at"] = json!("");
    shown["attach_mode"] = json!(attachment.mode.map_or("null", AttachMode::as_str));
    shown["connection_info"] = Value::Object(connection.unwrap_or_default());
    shown
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "attachments", summary).await
}

async fn list_detail(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "attachments/detail", detail).await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    path: &str,
    show: impl Fn(&Attachment) -> Value,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    let page = Page::read(query, SORT_KEYS)?;
    let filters = filters(context, query, FILTERS)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |attachment: &Attachment| fits(attachment, &filters);
    let whose = volumes::whose(context, query)?;
    let selected = page.select(tables.attachments.of(whose.as_deref()), keep, key)?;
    let show = |attachment: &Stored<Attachment>| show(attachment);
    Ok(Json(listing::answer(
        context,
        query,
        ("attachments", path),
        &selected,
        show,
    )))
}

fn fits(attachment: &Attachment, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| match filter.name.as_str() {
        "id" => filter.fits(&attachment.id),
        "volume_id" => filter.fits(&attachment.volume_id),
        "status" | "attach_status" => filter.fits(attachment.status.as_str()),
        "instance_id" | "instance_uuid" => filter.fits_some(attachment.instance_id.as_deref()),
        "attached_host" => filter.fits_some(attachment.host.as_deref()),
        "project_id" => filter.fits(&attachment.project_id),
        _ => false,
    })
}

fn key<'a>(attachment: &'a Attachment, name: &str) -> Key<'a> {
    match name {
        "id" => attachment.id.as_str().into(),
        "volume_id" => attachment.volume_id.as_str().into(),
        "status" | "attach_status" => attachment.status.as_str().into(),
        "instance_id" => attachment.instance_id.as_deref().into(),
        _ => Key::Moment(attachment.created_at),
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
    let attachment = find(&tables, &context, &id)?;
    Ok(Json(json!({"attachment": detail(attachment)})))
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    body.only(&["attachment"])?;
    let fields = body.object("attachment")?;
    let mut known = vec!["volume_uuid", "instance_uuid", "connector"];
    if context.version.is(54) {
        known.push("mode");
    }
    fields.only(&known)?;
    let volume = fields
        .uuid("volume_uuid")?
        .ok_or_else(|| fields.required("volume_uuid"))?;
    let instance = fields.uuid("instance_uuid")?;
    let connector = connector(fields)?;
    let mode = mode(fields)?;
    let id = uuid::Uuid::new_v4().to_string();
    let reserved = service.records.edit(|edit| {
        let volume = volumes::find_for(
            &service,
            edit.tables,
            &context,
            "volume:attachment_create",
            &volume,
        )?
        .clone();
        state::reserve(&service, edit, &context, &volume, instance.as_deref())?;
        let attachment = Attachment {
            id: id.clone(),
            project_id: volume.project_id.clone(),
            volume_id: volume.id.clone(),
            instance_id: instance.clone(),
            host: None,
            mount_point: None,
            status: AttachStatus::Reserved,
            mode,
            connector: None,
            connection: None,
            created_at: Instant::now(),
            attached_at: None,
        };
        edit.insert(&attachment);
        Ok::<_, Fault>(attachment)
    });
    let mut attachment = reserved.await?;
    if let Some(connector) = connector {
        let connected = connection::connect(&service, &context, &id, &connector).await;
        if let Err(fault) = connected {
            // The promise is taken back: who asked does not know its name.
            connection::disconnect(&service, &context, &id).await?;
            return Err(fault);
        }
        attachment = connected?;
    }
    Ok(Json(json!({"attachment": detail(&attachment)})))
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    body.only(&["attachment"])?;
    let fields = body.object("attachment")?;
    fields.only(&["connector"])?;
    let connector = connector(fields)?.filter(|connector| !connector.is_empty());
    let connector = connector.ok_or_else(|| {
        Fault::bad_request(
            "Invalid input for field/attribute connector. Value: {}. {} does not have enough properties",
        )
    })?;
    let attachment = connection::connect(&service, &context, &id, &connector).await?;
    Ok(Json(json!({"attachment": detail(&attachment)})))
}

/// What a host said of itself; an empty one counts as none.
fn connector(fields: Fields<'_>) -> Result<Option<Connector>, Fault> {
    match fields.value("connector") {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map.clone()).filter(|map| !map.is_empty())),
        Some(other) => Err(Fault::field("connector", other, "it is no object")),
    }
}

fn mode(fields: Fields<'_>) -> Result<Option<AttachMode>, Fault> {
    match fields.value("mode") {
        None => Ok(None),
        Some(value) => {
            let mode = value.as_str().and_then(AttachMode::parse);
            mode.map(Some)
                .ok_or_else(|| Fault::field("mode", value, "it must be rw or ro"))
        }
    }
}

async fn act(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    context.since(44)?;
    let name = body.0.keys().next().map(String::as_str).unwrap_or_default();
    if body.0.len() != 1 || name != "os-complete" {
        return Err(Fault::bad_request(format!("There is no such action: {name}.")));
    }
    let completed = service.records.edit(|edit| {
        let attachment = find(edit.tables, &context, &id)?.clone();
        service.check_for("volume:attachment_complete", &context, &attachment.project_id)?;
        state::complete(edit, &attachment)
    });
    completed.await?;
    Ok(door::empty(StatusCode::NO_CONTENT))
}

async fn delete(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.records.fresh().await?;
    let attachment = {
        let tables = service.records.tables();
        let attachment = find(&tables, &context, &id)?;
        service.check_for("volume:attachment_delete", &context, &attachment.project_id)?;
        attachment.record.clone()
    };
    guard::check(&service, &context, &attachment).await?;
    connection::disconnect(&service, &context, &id).await?;
    let tables = service.records.tables();
    let left: Vec<Value> = tables
        .attachments
        .of_parent(&attachment.volume_id)
        .map(|left| summary(left))
        .collect();
    Ok(Json(json!({"attachments": left})))
}
