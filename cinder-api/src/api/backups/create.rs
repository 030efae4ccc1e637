//! `POST /backups`: of a volume, or of one of its snapshots; whole, or as the difference to the newest one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::summary;
use crate::api::{snapshots, volumes};
use crate::backup::Repository;
use crate::backup::manifest::SOURCES_MAX;
use crate::capabilities;
use crate::fault::Fault;
use crate::keys::{self, Made, Need};
use crate::quota;
use crate::records::backup::{BackupStatus, Source};
use crate::records::job::Task;
use crate::records::snapshot::SnapshotStatus;
use crate::records::volume::VolumeStatus;
use crate::records::{Backup, Edit, Instant, Snapshot, Stored, Tables, Volume};
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context, Fields};
use crate::service::{Service, Shared};
use crate::work;

/// What is asked for.
struct Wanted {
    volume: String,
    snapshot: Option<String>,
    name: Option<String>,
    description: Option<String>,
    container: Option<String>,
    incremental: bool,
    force: bool,
    metadata: BTreeMap<String, String>,
}

pub(super) async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    let wanted = read(&service, &context, &body)?;
    service.check("backup:create", &context)?;
    let repository = service.backups()?;
    let id = uuid::Uuid::new_v4().to_string();
    let made = key_of(&service, &context, &wanted).await?;
    let promised = service.records.edit(|edit| {
        let mut backup = promise((&service, repository), edit, &context, &wanted, &id)?;
        let volume = volumes::find(edit.tables, &context, &wanted.volume)?;
        backup.encryption_key_id = keys::fits(
            volume.encryption_key_id.clone().map(Need::Copy).as_ref(),
            made.first(),
        )?;
        edit.insert(&backup);
        Ok::<_, Fault>(backup)
    });
    let promised = promised.await;
    if promised.is_err() {
        keys::unmake(&service, &context, &made).await;
    }
    let backup = promised?;
    let shown = json!({"backup": summary(&context, &backup)});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

fn read(service: &Service, context: &Context, body: &Body) -> Result<Wanted, Fault> {
    body.only(&["backup"])?;
    let fields = body.object("backup")?;
    let mut known = vec![
        "volume_id",
        "container",
        "description",
        "incremental",
        "force",
        "name",
        "snapshot_id",
    ];
    if context.version.is(43) {
        known.push("metadata");
    }
    if context.version.is(51) {
        known.push("availability_zone");
    }
    fields.only(&known)?;
    check_zone(service, fields)?;
    Ok(Wanted {
        volume: fields
            .uuid("volume_id")?
            .ok_or_else(|| fields.required("volume_id"))?,
        snapshot: fields.uuid("snapshot_id")?,
        name: fields.short_text("name")?,
        description: fields.short_text("description")?,
        container: fields
            .text("container", 0..=TEXT_MAX)?
            .filter(|container| !container.is_empty()),
        incremental: fields.boolean("incremental")?.unwrap_or(false),
        force: fields.boolean("force")?.unwrap_or(false),
        metadata: fields.metadata("metadata")?.unwrap_or_default(),
    })
}

/// A backup has a copy of its volume's key: that of the volume ends with the volume.
async fn key_of(service: &Service, context: &Context, wanted: &Wanted) -> Result<Vec<Made>, Fault> {
    let key = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        let volume = volumes::find(&tables, context, &wanted.volume)?;
        volume.encryption_key_id.clone()
    };
    keys::make(service, context, key.into_iter().map(Need::Copy).collect()).await
}

fn check_zone(service: &Service, fields: Fields<'_>) -> Result<(), Fault> {
    let zone = fields.short_text("availability_zone")?;
    match zone.filter(|zone| !zone.is_empty() && *zone != service.settings.availability_zone) {
        Some(zone) => Err(Fault::bad_request(format!(
            "Availability zone '{zone}' is invalid."
        ))),
        None => Ok(()),
    }
}

fn promise(
    (service, repository): (&Service, &Repository),
    edit: &mut Edit<'_>,
    context: &Context,
    wanted: &Wanted,
    id: &str,
) -> Result<Backup, Fault> {
    let tables = edit.tables;
    // An administrator's backup of somebody else's volume is his own project's.
    let project = context.project()?;
    if capabilities::makes_no_backups(&service.settings, tables) {
        return Err(Fault::unavailable(
            "Service not found for creating backup: an operator has disabled cinder-backup.",
        ));
    }
    let volume = volumes::find(tables, context, &wanted.volume)?;
    service.check_for("backup:create", context, &volume.project_id)?;
    let snapshot = if let Some(snapshot) = &wanted.snapshot {
        Some(check_snapshot(tables, context, volume, snapshot)?)
    } else {
        check_volume(volume, wanted.force)?;
        None
    };
    let now = Instant::now();
    let data_timestamp = snapshot.map_or(now, |snapshot| snapshot.created_at);
    let parent = if wanted.incremental {
        Some(newest(tables, project, volume, data_timestamp)?)
    } else {
        None
    };
    let inherited = parent.map(|parent| parent.container.as_deref());
    let container = repository.container(wanted.container.as_deref(), inherited)?;
    quota::take(edit, project, &work::backup_amounts(volume.size))?;
    match snapshot {
        Some(stored) => {
            edit.change(stored, |snapshot| snapshot.status = SnapshotStatus::BackingUp);
            // Whoever deletes the volume at the same time decides anew.
            edit.touch(volume);
        }
        None => {
            edit.change(volume, |volume| {
                volume.previous_status = Some(volume.status);
                volume.status = VolumeStatus::BackingUp;
            });
        }
    }
    if let Some(parent) = parent {
        edit.touch(parent);
    }
    let backup = Backup {
        id: id.to_owned(),
        project_id: project.to_owned(),
        user_id: context.caller.user_id.clone(),
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        volume_id: volume.id.clone(),
        snapshot_id: wanted.snapshot.clone(),
        parent_id: parent.map(|parent| parent.id.clone()),
        size: volume.size,
        status: BackupStatus::Creating,
        fail_reason: None,
        container,
        availability_zone: service.settings.availability_zone.clone(),
        created_at: now,
        updated_at: None,
        data_timestamp,
        metadata: wanted.metadata.clone(),
        object_count: 0,
        stored_as: id.to_owned(),
        rests_on: parent.map(|parent| needed(parent)).unwrap_or_default(),
        encryption_key_id: None,
        source: Source {
            type_id: Some(volume.type_id.clone()),
            bootable: volume.bootable,
            metadata: volume.metadata.clone(),
            image_metadata: volume.image_metadata.clone(),
        },
    };
    let task = Task::CreateBackup {
        backup: id.to_owned(),
    };
    volumes::later(edit, context, project, task);
    Ok(backup)
}

/// Until it is known what a difference needs: all that its parent does.
fn needed(parent: &Backup) -> Vec<String> {
    let own = std::iter::once(&parent.stored_as);
    own.chain(&parent.rests_on).cloned().collect()
}

fn check_volume(volume: &Volume, force: bool) -> Result<(), Fault> {
    match volume.status {
        VolumeStatus::Available => Ok(()),
        VolumeStatus::InUse if force => Ok(()),
        VolumeStatus::InUse => Err(Fault::bad_request(
            "Invalid volume: Backing up an in-use volume must use the force flag.",
        )),
        other => Err(Fault::bad_request(format!(
            "Invalid volume: Volume to be backed up must be available or in-use, but the current status is \"{other}\"."
        ))),
    }
}

fn check_snapshot<'a>(
    tables: &'a Tables,
    context: &Context,
    volume: &Volume,
    id: &str,
) -> Result<&'a Arc<Stored<Snapshot>>, Fault> {
    let snapshot = snapshots::find(tables, context, id)?;
    if snapshot.volume_id != volume.id {
        return Err(Fault::bad_request(format!(
            "Invalid snapshot: The snapshot {id} is none of volume {}.",
            volume.id
        )));
    }
    if snapshot.status != SnapshotStatus::Available {
        return Err(Fault::bad_request(format!(
            "Invalid snapshot: Snapshot to be backed up must be available, but the current status is \"{}\".",
            snapshot.status
        )));
    }
    Ok(snapshot)
}

/// What an increment is the difference to: the project's newest backup of the volume that is older than what is to be stored.
fn newest<'a>(
    tables: &'a Tables,
    project: &str,
    volume: &Volume,
    before: Instant,
) -> Result<&'a Arc<Stored<Backup>>, Fault> {
    let of_volume = tables.backups.of_project(project);
    let possible = of_volume.filter(|backup| {
        backup.volume_id == volume.id
            && backup.status == BackupStatus::Available
            && backup.data_timestamp < before
    });
    let newest = possible.max_by_key(|backup| backup.data_timestamp);
    let newest = newest.ok_or_else(|| {
        Fault::bad_request("Invalid backup: No backups available to do an incremental backup.")
    })?;
    if newest.rests_on.len() + 2 > SOURCES_MAX {
        return Err(Fault::bad_request(format!(
            "Invalid backup: The increments would need the objects of more than {SOURCES_MAX} backups: make a full one."
        )));
    }
    Ok(newest)
}
