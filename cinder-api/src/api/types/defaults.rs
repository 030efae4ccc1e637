//! `/default-types`: the types that projects get without asking.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::find;
use crate::api::quotas::check_project;
use crate::door;
use crate::fault::Fault;
use crate::records::volume_type::DefaultType;
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context};
use crate::service::Shared;

/// The version in which they came.
const SINCE: u8 = 62;

fn view(default: &DefaultType) -> Value {
    json!({"project_id": default.project_id, "volume_type_id": default.type_id})
}

pub(super) async fn list(State(service): Shared, context: Context) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("volume_extension:default_get_all", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let shown: Vec<Value> = tables.default_types.iter().map(|default| view(default)).collect();
    Ok(Json(json!({"default_types": shown})))
}

pub(super) async fn show(
    State(service): Shared,
    context: Context,
    Path(project): Path<String>,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("volume_extension:default_get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let default = tables
        .default_types
        .get(&project)
        .ok_or_else(|| Fault::not_found(format!("Default type for project {project} not found.")))?;
    Ok(Json(json!({"default_type": view(default)})))
}

pub(super) async fn set(
    State(service): Shared,
    context: Context,
    Path(project): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("volume_extension:default_set_or_update", &context)?;
    check_project(&project)?;
    let fields = body.object("default_type")?;
    fields.only(&["volume_type"])?;
    let named = fields.required_text("volume_type", 1..=TEXT_MAX)?;
    let set = service.records.edit(|edit| {
        let kind = find(edit.tables, &context, &named).map_err(|fault| Fault::bad_request(fault.message))?;
        let default = DefaultType {
            project_id: project.clone(),
            type_id: kind.id.clone(),
        };
        // Whoever deletes the type at the same time decides anew.
        edit.touch(kind);
        edit.put(&default);
        Ok::<_, Fault>(default)
    });
    Ok(Json(json!({"default_type": view(&set.await?)})))
}

pub(super) async fn unset(
    State(service): Shared,
    context: Context,
    Path(project): Path<String>,
) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("volume_extension:default_unset", &context)?;
    let unset = service.records.edit(|edit| {
        let tables = edit.tables;
        if let Some(default) = tables.default_types.get(&project) {
            edit.remove(default);
        }
        Ok::<_, Fault>(())
    });
    unset.await?;
    Ok(door::empty(StatusCode::NO_CONTENT))
}
