//! `/types/ID/os-volume-type-access` and `/types/ID/action`: which projects may use a type that is not public.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::look;
use crate::door;
use crate::fault::Fault;
use crate::records::{Instant, VolumeType};
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context};
use crate::service::Shared;

pub(super) async fn all(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:volume_type_access:get_all_for_type", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let kind = look(&tables, &context, &id)?;
    if kind.is_public {
        return Err(Fault::not_found(
            "Access list not available for public volume types.",
        ));
    }
    let show = |project: &String| json!({"volume_type_id": kind.id, "project_id": project});
    let shown: Vec<Value> = kind.projects.iter().map(show).collect();
    Ok(Json(json!({"volume_type_access": shown})))
}

pub(super) async fn act(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let name = body.0.keys().next().map(String::as_str).unwrap_or_default();
    let adds = name == "addProjectAccess";
    if !adds && name != "removeProjectAccess" {
        return Err(Fault::bad_request(format!("There is no such action: {name}.")));
    }
    service.check(&format!("volume_extension:volume_type_access:{name}"), &context)?;
    body.only(&[name])?;
    let fields = body.object(name)?;
    fields.only(&["project"])?;
    let project = fields.required_text("project", 1..=TEXT_MAX)?;
    let changed = service.records.edit(|edit| {
        let stored = look(edit.tables, &context, &id)?;
        let mut kind = stored.record.clone();
        if kind.is_public {
            return Err(Fault::bad_request(
                "Invalid volume type: Type access modification is not applicable to public volume type.",
            ));
        }
        if adds {
            add(&mut kind, &project)?;
        } else {
            remove(&mut kind, &project)?;
        }
        kind.updated_at = Some(Instant::now());
        edit.replace(stored, &kind);
        Ok(())
    });
    changed.await?;
    Ok(door::accepted())
}

fn add(kind: &mut VolumeType, project: &str) -> Result<(), Fault> {
    if kind.projects.insert(project.to_owned()) {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "Volume type access for {} / {project} combination already exists.",
        kind.id
    )))
}

fn remove(kind: &mut VolumeType, project: &str) -> Result<(), Fault> {
    if kind.projects.remove(project) {
        return Ok(());
    }
    Err(Fault::not_found(format!(
        "Volume type access not found for {} / {project} combination.",
        kind.id
    )))
}
