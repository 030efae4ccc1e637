//! Backups: made, brought back to volumes, deleted, taken over from where they are kept.

use uuid::Uuid;

use super::{Trouble, conclude};
use crate::backup::copy::{self, Plan};
use crate::backup::manifest::{DESCRIPTION_BYTES_MAX, manifest_name};
use crate::backup::{Manifest, ObjectStore};
use crate::device;
use crate::keys;
use crate::quota::{self, Amounts};
use crate::records::backup::{Backup, BackupStatus, Source};
use crate::records::job::Task;
use crate::records::snapshot::SnapshotStatus;
use crate::records::volume::VolumeStatus;
use crate::records::{Edit, Job, Stored, Volume};
use crate::service::Service;
use crate::storage::GIB;

/// Makes a backup. It is read from a snapshot, which is taken for it unless it is one's backup.
pub(super) async fn create(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let Some(backup) = look(service, id, BackupStatus::Creating) else {
        return conclude(service, job, |_| {}).await;
    };
    let store = service.objects_of(&backup)?;
    let identity = identity(&backup.stored_as)?;
    let manifest = match copy::read_manifest(store.as_ref(), identity).await {
        // All was done but to say so.
        Ok(manifest) => manifest,
        Err(_) => read_volume(service, &backup, store.clone(), identity).await?,
    };
    let (volume, own) = names(service, &backup)?;
    if backup.snapshot_id.is_none() {
        service.storage.delete_snapshot(&volume, &own).await?;
    }
    conclude(service, job, |edit| {
        edit.amend::<Backup>(id, |backup| {
            if backup.status == BackupStatus::Creating {
                backup.status = BackupStatus::Available;
                take_over(backup, &manifest);
            }
        });
        release(edit, &backup);
    })
    .await
}

async fn read_volume(
    service: &Service,
    backup: &Backup,
    store: std::sync::Arc<dyn ObjectStore>,
    identity: Uuid,
) -> Result<Manifest, Trouble> {
    let (volume, snapshot) = names(service, backup)?;
    if backup.snapshot_id.is_none() {
        service.storage.snapshot(&volume, &snapshot).await?;
    }
    let parent = match &backup.parent_id {
        Some(parent) => {
            let stored_as = {
                let tables = service.records.tables();
                tables.backups.get(parent).map(|parent| parent.stored_as.clone())
            };
            let stored_as = stored_as.ok_or_else(|| Trouble::Failed(format!("backup {parent} is gone")))?;
            Some(copy::read_manifest(store.as_ref(), self::identity(&stored_as)?).await?)
        }
        None => None,
    };
    let description = serde_json::to_vec(&backup.source).unwrap_or_default();
    if description.len() > DESCRIPTION_BYTES_MAX {
        return Err(Trouble::Failed("the volume has too much metadata".to_owned()));
    }
    let plan = Plan {
        backup: identity,
        volume: self::identity(&backup.volume_id)?,
        taken_at: backup.data_timestamp,
        description,
        parent,
    };
    device::with(
        &service.settings.session_socket,
        (&volume, Some(&snapshot)),
        move |device| Box::pin(async move { copy::store(device, store.as_ref(), plan).await }),
    )
    .await
}

/// What the volume and the snapshot are called in the storage that a backup is read from.
fn names(service: &Service, backup: &Backup) -> Result<(String, String), Trouble> {
    let tables = service.records.tables();
    let gone = |what: &str| Trouble::Failed(format!("{what} is gone"));
    let volume = tables.volumes.get(&backup.volume_id);
    let volume = volume.ok_or_else(|| gone("the volume"))?;
    let snapshot = match &backup.snapshot_id {
        Some(id) => {
            let snapshot = tables.snapshots.get(id);
            snapshot.ok_or_else(|| gone("the snapshot"))?.storage_name.clone()
        }
        None => format!("backup-{}", backup.id),
    };
    Ok((volume.storage_name.clone(), snapshot))
}

/// Gives the volume, or the snapshot, its former status back.
fn release(edit: &mut Edit<'_>, backup: &Backup) {
    let tables = edit.tables;
    if let Some(id) = &backup.snapshot_id {
        if let Some(stored) = tables
            .snapshots
            .get(id)
            .filter(|stored| stored.status == SnapshotStatus::BackingUp)
        {
            edit.change(stored, |snapshot| snapshot.status = SnapshotStatus::Available);
        }
        return;
    }
    edit.amend::<Volume>(&backup.volume_id, |volume| {
        if volume.status == VolumeStatus::BackingUp {
            volume.status = super::volumes::back(volume);
        }
    });
}

/// What a record says of what is stored.
fn take_over(backup: &mut Backup, manifest: &Manifest) {
    backup.object_count = manifest.own_objects();
    backup.size = manifest.size.div_ceil(GIB);
    backup.data_timestamp = manifest.taken_at;
    let others = manifest.sources.iter().skip(1);
    backup.rests_on = others.map(Uuid::to_string).collect();
}

/// Writes a backup to a volume, which is made first if it is a new one.
pub(super) async fn restore(
    service: &Service,
    job: &Stored<Job>,
    (id, volume_id): (&str, &str),
) -> Result<(), Trouble> {
    let target = {
        let tables = service.records.tables();
        let is_meant = |volume: &Volume| {
            matches!(
                volume.status,
                VolumeStatus::Creating | VolumeStatus::RestoringBackup
            )
        };
        let volume = tables.volumes.get(volume_id).filter(|volume| is_meant(volume));
        let backup = tables.backups.get(id);
        volume
            .zip(backup)
            .map(|(volume, backup)| (volume.record.clone(), backup.record.clone()))
    };
    let mut pool = None;
    let mut source = Source::default();
    if let Some((volume, backup)) = target {
        pool.clone_from(&volume.pool);
        if pool.is_none() {
            let chosen = super::volumes::choose_pool(service, &volume.type_id).await?;
            let chosen = chosen.ok_or_else(|| Trouble::Failed("no pool fits the type".to_owned()))?;
            service
                .storage
                .create(&volume.storage_name, volume.size, &chosen)
                .await?;
            pool = Some(chosen);
            begin_writing(service, volume_id).await?;
        }
        let store = service.objects_of(&backup)?;
        let manifest = copy::read_manifest(store.as_ref(), identity(&backup.stored_as)?).await?;
        source = backup.source;
        device::with(
            &service.settings.session_socket,
            (&volume.storage_name, None),
            move |device| Box::pin(async move { copy::restore(device, store.as_ref(), &manifest).await }),
        )
        .await?;
        // Only now: a new volume is filled as fast as it can be.
        super::limits::settle(service, &volume.storage_name, &volume.type_id, volume.size).await?;
    }
    conclude(service, job, |edit| {
        edit.amend::<Backup>(id, |backup| {
            if backup.status == BackupStatus::Restoring {
                backup.status = BackupStatus::Available;
            }
        });
        edit.amend::<Volume>(volume_id, |volume| {
            if matches!(
                volume.status,
                VolumeStatus::Creating | VolumeStatus::RestoringBackup
            ) {
                volume.status = VolumeStatus::Available;
                volume.pool.clone_from(&pool);
                volume.bootable = source.bootable;
                volume.metadata.extend(source.metadata.clone());
                volume.image_metadata.clone_from(&source.image_metadata);
            }
        });
    })
    .await
}

async fn begin_writing(service: &Service, volume: &str) -> Result<(), Trouble> {
    let shown = service.records.edit(|edit| {
        edit.amend::<Volume>(volume, |volume| {
            if volume.status == VolumeStatus::Creating {
                volume.status = VolumeStatus::RestoringBackup;
            }
        });
        Ok::<_, Trouble>(())
    });
    shown.await
}

/// Deletes what is stored of a backup, unless another record has it too, and then its record.
pub(super) async fn delete(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let Some(backup) = look(service, id, BackupStatus::Deleting) else {
        return conclude(service, job, |_| {}).await;
    };
    let is_needed = {
        let tables = service.records.tables();
        let needs = |other: &Backup| {
            other.id != backup.id
                && other.status != BackupStatus::Deleting
                && (other.stored_as == backup.stored_as || other.rests_on.contains(&backup.stored_as))
        };
        tables.backups.iter().any(|other| needs(other))
    };
    if !is_needed {
        remove_objects(service, &backup).await?;
    }
    if let (None, Ok((volume, snapshot))) = (&backup.snapshot_id, names(service, &backup)) {
        // One that was interrupted by force has left its snapshot.
        service.storage.delete_snapshot(&volume, &snapshot).await?;
    }
    keys::end(service, backup.encryption_key_id.as_deref()).await?;
    conclude(service, job, |edit| {
        if let Some(stored) = edit.tables.backups.get(id) {
            quota::give_back(edit, &stored.project_id, &amounts(stored.size));
            edit.remove(stored);
        }
    })
    .await
}

async fn remove_objects(service: &Service, backup: &Backup) -> Result<(), Trouble> {
    let store = service.objects_of(backup)?;
    let identity = identity(&backup.stored_as)?;
    // Without a manifest it is no backup any more, whatever else is still there.
    store.remove(&manifest_name(identity)).await?;
    store.remove(&identity.to_string()).await?;
    Ok(())
}

/// Takes a backup over that is stored, and that a record was imported for.
pub(super) async fn import(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let Some(backup) = look(service, id, BackupStatus::Creating) else {
        return conclude(service, job, |_| {}).await;
    };
    let store = service.objects_of(&backup)?;
    let manifest = copy::read_manifest(store.as_ref(), identity(&backup.stored_as)?).await?;
    conclude(service, job, |edit| {
        edit.amend::<Backup>(id, |backup| {
            if backup.status == BackupStatus::Creating {
                backup.status = BackupStatus::Available;
                // Its quota was counted by the size that the record says.
                let counted = backup.size;
                take_over(backup, &manifest);
                backup.size = counted;
            }
        });
    })
    .await
}

/// Says that a job about a backup failed.
pub(super) async fn give_up(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    why: &str,
) -> Result<(), Trouble> {
    tracing::warn!(backup = id, why, "a job about a backup failed");
    if let (Task::CreateBackup { .. }, Some(backup)) = (&job.task, look(service, id, BackupStatus::Creating))
    {
        if let (None, Ok((volume, snapshot))) = (&backup.snapshot_id, names(service, &backup)) {
            service.storage.delete_snapshot(&volume, &snapshot).await?;
        }
        // Where it was to be stored may be what is away: then its deletion removes what is there.
        if let Err(error) = remove_objects(service, &backup).await {
            tracing::warn!(
                backup = id,
                ?error,
                "what was stored of it stays until it is deleted"
            );
        }
    }
    conclude(service, job, |edit| {
        let tables = edit.tables;
        let fail = |status: BackupStatus| {
            move |backup: &mut Backup| {
                backup.status = status;
                backup.fail_reason = Some(why.chars().take(crate::request::body::TEXT_MAX).collect());
            }
        };
        match &job.task {
            Task::RestoreBackup { volume, .. } => {
                edit.amend::<Backup>(id, |backup| {
                    if backup.status == BackupStatus::Restoring {
                        backup.status = BackupStatus::Available;
                        backup.fail_reason = Some(why.to_owned());
                    }
                });
                edit.amend::<Volume>(volume, |volume| {
                    volume.status = match volume.status {
                        VolumeStatus::Creating => VolumeStatus::Error,
                        VolumeStatus::RestoringBackup => VolumeStatus::ErrorRestoring,
                        other => other,
                    };
                });
            }
            Task::DeleteBackup { .. } => edit.amend::<Backup>(id, fail(BackupStatus::ErrorDeleting)),
            _ => {
                edit.amend::<Backup>(id, fail(BackupStatus::Error));
                if let Some(backup) = tables.backups.get(id) {
                    release(edit, backup);
                }
            }
        }
    })
    .await
}

/// What a backup of so many GiB takes of its project's quota.
pub fn amounts(gib: u64) -> Amounts {
    Amounts::plain(quota::BACKUPS, 1).with(&Amounts::plain(quota::BACKUP_GIGABYTES, gib))
}

fn identity(text: &str) -> Result<Uuid, Trouble> {
    Uuid::try_parse(text).map_err(|_| Trouble::Failed(format!("{text:?} is no UUID")))
}

/// A backup, if it is still at what the job is for.
fn look(service: &Service, id: &str, at: BackupStatus) -> Option<Backup> {
    let tables = service.records.tables();
    let backup = tables.backups.get(id)?;
    (backup.status == at).then(|| backup.record.clone())
}
