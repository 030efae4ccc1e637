//! `POST /backups/ID/restore`: to a volume that is there, or to a new one.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{check_restorable, find_for};
use crate::api::volumes;
use crate::fault::Fault;
use crate::keys::{self, Made, Need};
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
    let named = name.unwrap_or_else(|| format!("restore_backup_{id}"));
    let mut wanted = volumes::create::Wanted::of_backup(named, id.clone());
    let made = if volume.is_some() {
        over_needs(&service, &context, &id).await?
    } else {
        wanted.get_key(&service, &context).await?;
        Vec::new()
    };
    let promised = service.records.edit(|edit| {
        let backup = find_for(&service, edit.tables, &context, "backup:restore", &id)?;
        check_restorable(backup)?;
        match &volume {
            Some(volume) => over(edit, &context, (backup, made.first()), volume),
            None => {
                volumes::create::promise(&service, edit, &context, &wanted, &new).map(|volume| (volume, None))
            }
        }
    });
    let promised = wanted.kept(&service, &context, promised.await).await;
    if promised.is_err() {
        keys::unmake(&service, &context, &made).await;
    }
    let (volume, former) = promised?;
    if let Some(id) = former {
        // What it opened is being overwritten.
        keys::unmake(
            &service,
            &context,
            &[Made {
                need: Need::Copy(id.clone()),
                id,
            }],
        )
        .await;
    }
    let shown = json!({"restore": {
        "backup_id": id,
        "volume_id": volume.id,
        "volume_name": volume.name.unwrap_or_default(),
    }});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// The key that a volume gets with a backup's bytes, if those are encrypted.
async fn over_needs(service: &Service, context: &Context, id: &str) -> Result<Vec<Made>, Fault> {
    let key = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        let backup = find_for(service, &tables, context, "backup:restore", id)?;
        backup.encryption_key_id.clone()
    };
    keys::make(service, context, key.into_iter().map(Need::Copy).collect()).await
}

/// Over what a volume holds; gives the volume, and the key that it had before.
fn over(
    edit: &mut Edit<'_>,
    context: &Context,
    (backup, made): (&Stored<Backup>, Option<&Made>),
    volume: &str,
) -> Result<(Volume, Option<String>), Fault> {
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
    let key = keys::fits(backup.encryption_key_id.clone().map(Need::Copy).as_ref(), made)?;
    let is_alike = match &key {
        Some(_) => backup.source.type_id.as_ref() == Some(&stored.type_id),
        None => stored.encryption_key_id.is_none(),
    };
    if !is_alike {
        return Err(Fault::bad_request(
            "Invalid volume: a backup of an encrypted volume is restored to volumes of its type, and any other one to volumes \
             that are not encrypted.",
        ));
    }
    let former = stored.encryption_key_id.clone();
    edit.change(backup, |backup| backup.status = BackupStatus::Restoring);
    let volume = edit.change(stored, |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = VolumeStatus::RestoringBackup;
        volume.encryption_key_id.clone_from(&key);
    });
    let task = Task::RestoreBackup {
        backup: backup.id.clone(),
        volume: volume.id.clone(),
    };
    volumes::later(edit, context, &volume.project_id, task);
    Ok((volume, former))
}
