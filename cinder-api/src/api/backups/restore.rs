//! `POST /backups/ID/restore`: to a volume that is there, or to a new one.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{check_restorable, find_for};
use crate::api::volumes;
use crate::fault::Fault;
use crate::records::backup::BackupStatus;
use crate::records::job::Task;
use crate::records::volume::VolumeStatus;
use crate::records::{Backup, Edit, Stored, Volume};
use crate::request::{Body, Context};
use crate::service::{Service, Shared};

pub(super) async fn restore(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    body.only(&["restore"])?;
    let fields = body.object("restore")?;
    fields.only(&["name", "volume_id"])?;
    let volume = fields.uuid("volume_id")?;
    let name = fields.short_text("name")?.filter(|name| !name.is_empty());
    service.backups()?;
    let new = uuid::Uuid::new_v4().to_string();
    let promised = service.records.edit(|edit| {
        let backup = find_for(&service, edit.tables, &context, "backup:restore", &id)?;
        check_restorable(backup)?;
        match &volume {
            Some(volume) => over(edit, &context, backup, volume),
            None => beside(&service, edit, &context, (name.as_ref(), backup), &new),
        }
    });
    let volume = promised.await?;
    let shown = json!({"restore": {
        "backup_id": id,
        "volume_id": volume.id,
        "volume_name": volume.name.unwrap_or_default(),
    }});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// Over what a volume holds.
fn over(
    edit: &mut Edit<'_>,
    context: &Context,
    backup: &Stored<Backup>,
    volume: &str,
) -> Result<Volume, Fault> {
    let stored = volumes::find(edit.tables, context, volume)?;
    if stored.status != VolumeStatus::Available {
        return Err(Fault::bad_request(format!(
            "Invalid volume: Volume to be restored to must be available, and it is {}.",
            stored.status
        )));
    }
    if stored.size < backup.size {
        return Err(Fault::bad_request(format!(
            "Invalid volume: volume size {} is too small to restore backup of size {}.",
            stored.size, backup.size
        )));
    }
    edit.change(backup, |backup| backup.status = BackupStatus::Restoring);
    let volume = edit.change(stored, |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = VolumeStatus::RestoringBackup;
    });
    let task = Task::RestoreBackup {
        backup: backup.id.clone(),
        volume: volume.id.clone(),
    };
    volumes::later(edit, context, &volume.project_id, task);
    Ok(volume)
}

/// To a new volume.
fn beside(
    service: &Service,
    edit: &mut Edit<'_>,
    context: &Context,
    (name, backup): (Option<&String>, &Stored<Backup>),
    new: &str,
) -> Result<Volume, Fault> {
    let name = name
        .cloned()
        .unwrap_or_else(|| format!("restore_backup_{}", backup.id));
    let wanted = volumes::create::Wanted::of_backup(name, backup.id.clone());
    volumes::create::promise(service, edit, context, &wanted, new)
}
