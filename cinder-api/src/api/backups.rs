//! `/backups`: made, shown, changed, deleted, brought back, written down for another cloud.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::volumes::{Wish, later};
use crate::door;
use crate::fault::Fault;
use crate::records::backup::BackupStatus;
use crate::records::job::Task;
use crate::records::{Backup, Edit, Instant, Stored, Tables};
use crate::request::{Body, Context};
use crate::routes::{Routes, get, post};
use crate::service::{Service, Shared, seen};

mod actions;
mod create;
mod list;
mod restore;
mod transport;

pub use list::FILTERS;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/backups", get(list::list).post(create::create))
        .route("/backups/detail", get(list::list_detail))
        .route("/backups/import_record", post(transport::import))
        .route("/backups/{id}", get(show).put(update).delete(delete))
        .route("/backups/{id}/restore", post(restore::restore))
        .route("/backups/{id}/export_record", get(transport::export))
        .route("/backups/{id}/action", post(actions::act))
}

/// A backup that a caller may know of.
pub(crate) fn find<'a>(
    tables: &'a Tables,
    context: &Context,
    id: &str,
) -> Result<&'a Arc<Stored<Backup>>, Fault> {
    seen(&tables.backups, context, id).ok_or_else(|| Fault::missing("Backup", id))
}

/// A backup that a caller may know of, and do something with that a rule names.
fn find_for<'a>(
    service: &Service,
    tables: &'a Tables,
    context: &Context,
    rule: &str,
    id: &str,
) -> Result<&'a Arc<Stored<Backup>>, Fault> {
    let backup = find(tables, context, id)?;
    service.check_for(rule, context, &backup.project_id)?;
    Ok(backup)
}

/// Refuses a backup that no volume can be made of just now.
pub(crate) fn check_restorable(backup: &Backup) -> Result<(), Fault> {
    if backup.status == BackupStatus::Available {
        return Ok(());
    }
    Err(Fault::bad_request(format!(
        "Invalid backup: Backup status must be available, and it is {}.",
        backup.status
    )))
}

fn summary(context: &Context, backup: &Backup) -> Value {
    json!({
        "id": backup.id,
        "name": backup.name,
        "links": context.links(&format!("backups/{}", backup.id)),
    })
}

fn detail(service: &Service, tables: &Tables, context: &Context, backup: &Backup) -> Value {
    let mut shown = json!({
        "id": backup.id,
        "status": backup.status,
        "size": backup.size,
        "object_count": backup.object_count,
        "availability_zone": backup.availability_zone,
        "container": backup.container,
        "created_at": backup.created_at.to_string(),
        "updated_at": backup.updated_at.as_ref().map(Instant::to_string),
        "name": backup.name,
        "description": backup.description,
        "fail_reason": backup.fail_reason,
        "volume_id": backup.volume_id,
        "links": context.links(&format!("backups/{}", backup.id)),
        "is_incremental": backup.parent_id.is_some(),
        "has_dependent_backups": has_dependents(tables, backup),
        "snapshot_id": backup.snapshot_id,
        "data_timestamp": backup.data_timestamp.to_string(),
    });
    let version = context.version;
    let may_see_project = service.allows(
        "backup:backup_project_attribute",
        &context.caller,
        &backup.project_id,
    );
    if version.is(18) && may_see_project {
        shown["os-backup-project-attr:project_id"] = json!(backup.project_id);
    }
    if version.is(43) {
        shown["metadata"] = json!(backup.metadata);
    }
    if version.is(56) {
        shown["user_id"] = json!(backup.user_id);
    }
    if version.is(64)
        && let Some(key) = &backup.encryption_key_id
    {
        shown["encryption_key_id"] = json!(key);
    }
    shown
}

/// Whether others are differences to it.
fn has_dependents(tables: &Tables, backup: &Backup) -> bool {
    tables.backups.of_parent(&backup.id).next().is_some()
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let backup = find_for(&service, &tables, &context, "backup:get", &id)?;
    Ok(Json(
        json!({"backup": detail(&service, &tables, &context, backup)}),
    ))
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    context.since(9)?;
    body.only(&["backup"])?;
    let fields = body.object("backup")?;
    let known: &[&str] = if context.version.is(43) {
        &["name", "description", "metadata"]
    } else {
        &["name", "description"]
    };
    fields.only(known)?;
    fields.any_of(known)?;
    let name = Wish::read(fields, "name")?;
    let description = Wish::read(fields, "description")?;
    let metadata = fields.metadata("metadata")?;
    let changed = service.records.edit(|edit| {
        let stored = find_for(&service, edit.tables, &context, "backup:update", &id)?;
        Ok::<_, Fault>(edit.change(stored, |backup| {
            name.apply(&mut backup.name);
            description.apply(&mut backup.description);
            if let Some(metadata) = &metadata {
                backup.metadata.clone_from(metadata);
            }
        }))
    });
    let backup = changed.await?;
    Ok(Json(json!({"backup": summary(&context, &backup)})))
}

async fn delete(State(service): Shared, context: Context, Path(id): Path<String>) -> Result<Response, Fault> {
    let accepted = service.records.edit(|edit| {
        let tables = edit.tables;
        let backup = find_for(&service, tables, &context, "backup:delete", &id)?;
        if !matches!(
            backup.status,
            BackupStatus::Available | BackupStatus::Error | BackupStatus::ErrorDeleting
        ) {
            return Err(Fault::bad_request(format!(
                "Invalid backup: Backup status must be available or error, and it is {}.",
                backup.status
            )));
        }
        begin_deletion(edit, &context, backup)
    });
    accepted.await?;
    Ok(door::accepted())
}

fn begin_deletion(edit: &mut Edit<'_>, context: &Context, backup: &Stored<Backup>) -> Result<(), Fault> {
    if has_dependents(edit.tables, backup) {
        return Err(Fault::bad_request(
            "Invalid backup: Incremental backups exist for this backup. Delete those first.",
        ));
    }
    edit.change(backup, |backup| backup.status = BackupStatus::Deleting);
    // Whoever makes a difference to the parent at the same time decides anew, and so does whoever deletes it.
    if let Some(parent) = backup.parent_id.as_deref()
        && let Some(parent) = edit.tables.backups.get(parent)
    {
        edit.touch(parent);
    }
    let task = Task::DeleteBackup {
        backup: backup.id.clone(),
    };
    later(edit, context, &backup.project_id, task);
    Ok(())
}
