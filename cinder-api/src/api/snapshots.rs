//! `/snapshots`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::volumes;
use crate::door;
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::job::Task;
use crate::records::snapshot::SnapshotStatus;
use crate::records::volume::VolumeStatus;
use crate::records::{Edit, Instant, Snapshot, Stored, Tables};
use crate::request::{Body, Context, Fields};
use crate::routes::{Routes, get, post};
use crate::service::{Service, Shared, seen};

mod actions;
mod list;
mod metadata;

pub use list::FILTERS;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/snapshots", get(list::list).post(create))
        .route("/snapshots/detail", get(list::list_detail))
        .route("/snapshots/{id}", get(show).put(update).delete(delete))
        .route("/snapshots/{id}/action", post(actions::act))
        .merge(crate::api::metadata::routes::<Snapshot>("/snapshots"))
}

/// A snapshot that a caller may know of.
pub fn find<'a>(tables: &'a Tables, context: &Context, id: &str) -> Result<&'a Arc<Stored<Snapshot>>, Fault> {
    seen(&tables.snapshots, context, id).ok_or_else(|| Fault::missing("Snapshot", id))
}

/// A snapshot that a caller may know of, and do something with that a rule names.
fn find_for<'a>(
    service: &Service,
    tables: &'a Tables,
    context: &Context,
    rule: &str,
    id: &str,
) -> Result<&'a Arc<Stored<Snapshot>>, Fault> {
    let snapshot = find(tables, context, id)?;
    service.check_for(rule, context, &snapshot.project_id)?;
    Ok(snapshot)
}

pub(crate) fn summary(context: &Context, snapshot: &Snapshot) -> Value {
    let mut shown = json!({
        "id": snapshot.id,
        "created_at": snapshot.created_at.to_string(),
        "updated_at": snapshot.updated_at.as_ref().map(Instant::to_string),
        "name": snapshot.name,
        "description": snapshot.description,
        "volume_id": snapshot.volume_id,
        "status": snapshot.status,
        "size": snapshot.size,
        "metadata": snapshot.metadata,
    });
    let version = context.version;
    if version.is(14) {
        shown["group_snapshot_id"] = json!(snapshot.group_snapshot_id);
    }
    if version.is(41) {
        shown["user_id"] = json!(snapshot.user_id);
    }
    if version.is(65) {
        shown["consumes_quota"] = json!(snapshot.consumes_quota);
    }
    shown
}

fn detail(context: &Context, snapshot: &Snapshot) -> Value {
    let mut shown = summary(context, snapshot);
    shown["os-extended-snapshot-attributes:project_id"] = json!(snapshot.project_id);
    shown["os-extended-snapshot-attributes:progress"] = json!(snapshot.progress);
    shown
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let snapshot = find_for(&service, &tables, &context, "volume:get_snapshot", &id)?;
    Ok(Json(json!({"snapshot": detail(&context, snapshot)})))
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    let fields = body.object("snapshot")?;
    let known = [
        "volume_id",
        "name",
        "description",
        "display_name",
        "display_description",
        "metadata",
        "force",
    ];
    fields.only(&known)?;
    let volume = match fields.uuid("volume_id")? {
        Some(volume) => volume,
        // Clients that know no volume send null, and are told that there is no such volume.
        None if fields.has("volume_id") => return Err(Fault::missing("Volume", "None")),
        None => return Err(fields.required("volume_id")),
    };
    let name = volumes::named(fields)?.said();
    let description = volumes::described(fields)?.said();
    let metadata = fields.metadata("metadata")?.unwrap_or_default();
    let force = force(&context, fields)?;
    let id = uuid::Uuid::new_v4().to_string();
    let promised = service.records.edit(|edit| {
        let volume =
            volumes::find_for(&service, edit.tables, &context, "volume:create_snapshot", &volume)?.clone();
        check_source(&volume.record, force)?;
        let snapshot = Snapshot {
            id: id.clone(),
            project_id: volume.project_id.clone(),
            user_id: context.caller.user_id.clone(),
            name: name.clone(),
            description: description.clone(),
            volume_id: volume.id.clone(),
            size: volume.size,
            status: SnapshotStatus::Creating,
            progress: "0%".to_owned(),
            created_at: Instant::now(),
            updated_at: None,
            metadata: metadata.clone(),
            type_id: volume.type_id.clone(),
            group_snapshot_id: None,
            consumes_quota: true,
            storage_name: format!("snapshot-{id}"),
        };
        quota::take(
            edit,
            &volume.project_id,
            &Amounts::snapshot(&volume.type_id, volume.size),
        )?;
        // Whoever deletes the volume at the same time decides anew.
        edit.touch(&volume);
        edit.insert(&snapshot);
        let task = Task::CreateSnapshot { snapshot: id.clone() };
        volumes::later(edit, &context, &volume.project_id, task);
        Ok::<_, Fault>(snapshot)
    });
    let snapshot = promised.await?;
    let shown = json!({"snapshot": summary(&context, &snapshot)});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// Whether a volume in use may be taken. From 3.66 on always, and nobody may say no.
fn force(context: &Context, fields: Fields<'_>) -> Result<bool, Fault> {
    let said = fields.boolean("force")?;
    if !context.version.is(66) {
        return Ok(said.unwrap_or(false));
    }
    if said == Some(false) {
        return Err(Fault::bad_request(
            "Invalid input for field/attribute force. Value: False. Since microversion 3.66 snapshots of volumes in use are \
             always taken, and force can only be true.",
        ));
    }
    Ok(true)
}

fn check_source(volume: &crate::records::Volume, force: bool) -> Result<(), Fault> {
    let is_good = match volume.status {
        VolumeStatus::Available => true,
        VolumeStatus::InUse => force,
        _ => false,
    };
    if is_good {
        return Ok(());
    }
    let why = if force { "available or in-use" } else { "available" };
    Err(Fault::bad_request(format!(
        "Invalid volume: Volume {} status must be {why}, but current status is: {}.",
        volume.id, volume.status
    )))
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let fields = body.object("snapshot")?;
    let known = ["name", "description", "display_name", "display_description"];
    fields.only(&known)?;
    fields.any_of(&known)?;
    let name = volumes::named(fields)?;
    let description = volumes::described(fields)?;
    let changed = service.records.edit(|edit| {
        let stored = find_for(&service, edit.tables, &context, "volume:update_snapshot", &id)?;
        Ok::<_, Fault>(edit.change(stored, |snapshot| {
            name.apply(&mut snapshot.name);
            description.apply(&mut snapshot.description);
        }))
    });
    let snapshot = changed.await?;
    Ok(Json(json!({"snapshot": summary(&context, &snapshot)})))
}

async fn delete(State(service): Shared, context: Context, Path(id): Path<String>) -> Result<Response, Fault> {
    let accepted = service.records.edit(|edit| {
        let snapshot = find_for(&service, edit.tables, &context, "volume:delete_snapshot", &id)?.clone();
        let is_good = matches!(
            snapshot.status,
            SnapshotStatus::Available | SnapshotStatus::Error | SnapshotStatus::ErrorDeleting
        );
        if !is_good || snapshot.group_snapshot_id.is_some() {
            return Err(Fault::bad_request(format!(
                "Invalid snapshot: Snapshot status must be available or error, and it must be in no group snapshot; it is {}.",
                snapshot.status
            )));
        }
        begin_deletion(edit, &context, &snapshot);
        Ok(())
    });
    accepted.await?;
    Ok(door::accepted())
}

fn begin_deletion(edit: &mut Edit<'_>, context: &Context, snapshot: &Stored<Snapshot>) {
    edit.change(snapshot, |snapshot| {
        snapshot.status = SnapshotStatus::Deleting;
    });
    let task = Task::DeleteSnapshot {
        snapshot: snapshot.id.clone(),
    };
    volumes::later(edit, context, &snapshot.project_id, task);
}
