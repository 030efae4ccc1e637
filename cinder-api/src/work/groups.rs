//! Groups: made from others, deleted; their snapshots, at one instant.

use super::{Trouble, conclude};
use crate::api::groups::volumes_of;
use crate::quota::{self, Amounts};
use crate::records::group::{Group, GroupStatus};
use crate::records::snapshot::SnapshotStatus;
use crate::records::volume::VolumeStatus;
use crate::records::{Edit, Job, Snapshot, Stored, Tables, Volume};
use crate::service::Service;

/// Makes the volumes of a group, all of one instant.
pub(super) async fn create(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let Some((group, volumes)) = look(service, id, GroupStatus::Creating) else {
        return conclude(service, job, |_| {}).await;
    };
    if group.source_group_id.is_some() {
        clone_together(service, &group, &volumes).await?;
    } else {
        for volume in &volumes {
            let origin = snapshot_of(&service.records.tables(), volume);
            let (from, snapshot) = origin.ok_or_else(|| Trouble::Failed("a snapshot is gone".to_owned()))?;
            service
                .storage
                .clone_snapshot((&from, &snapshot), &volume.storage_name, volume.size)
                .await?;
        }
    }
    let mut pools = Vec::new();
    for volume in &volumes {
        let name = &volume.storage_name;
        super::limits::settle(service, name, &volume.type_id, volume.size).await?;
        let there = service.storage.volume(name).await?;
        pools.push((volume.id.clone(), there.map(|volume| volume.pool)));
    }
    conclude(service, job, |edit| {
        settle(edit, id, GroupStatus::Available);
        for (id, pool) in &pools {
            change_volume(edit, id, |volume| {
                volume.status = VolumeStatus::Available;
                volume.pool.clone_from(pool);
            });
        }
    })
    .await
}

/// Clones volumes from snapshots that are taken of all of them together, and are named after the new group. What was cloned
/// before this process took over has its snapshot still, and those are all of one instant.
async fn clone_together(service: &Service, group: &Group, volumes: &[Volume]) -> Result<(), Trouble> {
    let origins: Vec<String> = {
        let tables = service.records.tables();
        let origin = |volume: &Volume| {
            let source = tables.volumes.get(volume.source_id.as_deref()?)?;
            Some(source.storage_name.clone())
        };
        let found: Option<Vec<String>> = volumes.iter().map(origin).collect();
        found.ok_or_else(|| Trouble::Failed("a volume of the group is gone".to_owned()))?
    };
    let name = format!("group-{}", group.id);
    let first = origins.first().map(String::as_str).unwrap_or_default();
    let taken = service
        .storage
        .directory()
        .snapshots(first)
        .await?
        .unwrap_or_default();
    if !taken.iter().any(|snapshot| snapshot.name == name) {
        service
            .storage
            .directory()
            .snapshot_together(&origins, &name)
            .await?;
    }
    for (volume, origin) in volumes.iter().zip(&origins) {
        service
            .storage
            .clone_snapshot((origin, &name), &volume.storage_name, volume.size)
            .await?;
    }
    for origin in &origins {
        service.storage.delete_snapshot(origin, &name).await?;
    }
    Ok(())
}

/// Ends a group when its volumes are gone; says so if one of them stays.
pub(super) async fn delete(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let mut changes = service.records.changes();
    while let Some((_, volumes)) = look(service, id, GroupStatus::Deleting) {
        let stays = |volume: &Volume| volume.status == VolumeStatus::ErrorDeleting;
        if volumes.iter().any(stays) {
            let why = "a volume of the group cannot be deleted";
            return Err(Trouble::Failed(why.to_owned()));
        }
        if volumes.is_empty() {
            break;
        }
        // Their own jobs delete them, and each end of one is a change.
        if changes.changed().await.is_err() {
            return Err(Trouble::Later("cinder-api is ending".to_owned()));
        }
    }
    conclude(service, job, |edit| {
        let group = edit.tables.groups.get(id);
        if let Some(group) = group.filter(|group| group.status == GroupStatus::Deleting) {
            quota::give_back(edit, &group.project_id, &Amounts::plain(quota::GROUPS, 1));
            edit.remove(group);
        }
    })
    .await
}

/// Takes the snapshots of a group snapshot.
pub(super) async fn create_snapshot(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let parts = parts(service, id);
    let volumes: Vec<String> = {
        let tables = service.records.tables();
        let volume = |part: &Snapshot| Some(tables.volumes.get(&part.volume_id)?.storage_name.clone());
        parts.iter().filter_map(volume).collect()
    };
    let is_meant = parts.iter().any(|part| part.status == SnapshotStatus::Creating);
    if let (Some(part), Some(first), true) = (parts.first(), volumes.first(), is_meant) {
        let name = &part.storage_name;
        let taken = service
            .storage
            .directory()
            .snapshots(first)
            .await?
            .unwrap_or_default();
        if !taken.iter().any(|snapshot| snapshot.name == *name) {
            service
                .storage
                .directory()
                .snapshot_together(&volumes, name)
                .await?;
        }
    }
    conclude(service, job, |edit| {
        settle_snapshot(edit, id, GroupStatus::Available, SnapshotStatus::Available);
    })
    .await
}

/// Deletes the snapshots of a group snapshot.
pub(super) async fn delete_snapshot(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let parts = parts(service, id);
    for part in &parts {
        let volume = {
            let tables = service.records.tables();
            tables
                .volumes
                .get(&part.volume_id)
                .map(|volume| volume.storage_name.clone())
        };
        if let Some(volume) = volume {
            service
                .storage
                .delete_snapshot(&volume, &part.storage_name)
                .await?;
        }
    }
    conclude(service, job, |edit| {
        for part in &parts {
            super::forget_snapshot(edit, &part.id);
        }
        if let Some(snapshot) = edit.tables.group_snapshots.get(id) {
            if let Some(group) = edit.tables.groups.get(&snapshot.group_id) {
                edit.touch(group);
            }
            edit.remove(snapshot);
        }
    })
    .await
}

/// Says that a job about a group failed.
pub(super) async fn give_up(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    is_new: bool,
) -> Result<(), Trouble> {
    let (status, part) = if is_new {
        (GroupStatus::Error, SnapshotStatus::Error)
    } else {
        (GroupStatus::ErrorDeleting, SnapshotStatus::ErrorDeleting)
    };
    conclude(service, job, |edit| {
        settle(edit, id, status);
        settle_snapshot(edit, id, status, part);
        let tables = edit.tables;
        if let Some(group) = tables.groups.get(id).filter(|_| is_new) {
            for volume in volumes_of(tables, group) {
                change_volume(edit, &volume.id, |volume| volume.status = VolumeStatus::Error);
            }
        }
    })
    .await
}

fn settle(edit: &mut Edit<'_>, id: &str, status: GroupStatus) {
    if let Some(stored) = edit.tables.groups.get(id) {
        edit.change(stored, |group| group.status = status);
    }
}

fn settle_snapshot(edit: &mut Edit<'_>, id: &str, status: GroupStatus, part: SnapshotStatus) {
    let tables = edit.tables;
    let Some(stored) = tables.group_snapshots.get(id) else {
        return;
    };
    edit.change(stored, |snapshot| snapshot.status = status);
    let parts = tables.snapshots.of_project(&stored.project_id);
    for stored in parts.filter(|part| part.group_snapshot_id.as_deref() == Some(id)) {
        edit.change(stored, |snapshot| {
            snapshot.status = part;
            "100%".clone_into(&mut snapshot.progress);
        });
    }
}

fn change_volume(edit: &mut Edit<'_>, id: &str, becomes: impl FnOnce(&mut Volume)) {
    if let Some(stored) = edit.tables.volumes.get(id) {
        edit.change(stored, becomes);
    }
}

fn look(service: &Service, id: &str, at: GroupStatus) -> Option<(Group, Vec<Volume>)> {
    let tables = service.records.tables();
    let group = tables.groups.get(id).filter(|group| group.status == at)?;
    let volumes = volumes_of(&tables, group)
        .map(|volume| volume.record.clone())
        .collect();
    Some((group.record.clone(), volumes))
}

fn parts(service: &Service, id: &str) -> Vec<Snapshot> {
    let tables = service.records.tables();
    let Some(snapshot) = tables.group_snapshots.get(id) else {
        return Vec::new();
    };
    let parts = tables.snapshots.of_project(&snapshot.project_id);
    let parts = parts.filter(|part| part.group_snapshot_id.as_deref() == Some(id));
    parts.map(|part| part.record.clone()).collect()
}

fn snapshot_of(tables: &Tables, volume: &Volume) -> Option<(String, String)> {
    let snapshot = tables.snapshots.get(volume.snapshot_id.as_deref()?)?;
    let parent = tables.volumes.get(&snapshot.volume_id)?;
    Some((parent.storage_name.clone(), snapshot.storage_name.clone()))
}
