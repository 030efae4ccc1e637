//! Snapshots: made and deleted.

use super::messages;
use super::{Trouble, conclude};
use crate::quota::{self, Amounts};
use crate::records::job::Task;
use crate::records::snapshot::SnapshotStatus;
use crate::records::{Edit, Job, Snapshot, Stored};
use crate::service::Service;

/// Makes a snapshot.
pub(super) async fn create(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    if let Some((volume, snapshot)) = look(service, id, SnapshotStatus::Creating) {
        service.storage.snapshot(&volume, &snapshot).await?;
    }
    finish(service, job, id, |snapshot| {
        if snapshot.status == SnapshotStatus::Creating {
            snapshot.status = SnapshotStatus::Available;
            "100%".clone_into(&mut snapshot.progress);
        }
    })
    .await
}

/// Deletes a snapshot.
pub(super) async fn delete(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let Some((volume, snapshot)) = look(service, id, SnapshotStatus::Deleting) else {
        return finish(service, job, id, |_| {}).await;
    };
    service.storage.delete_snapshot(&volume, &snapshot).await?;
    conclude(service, job, |edit| {
        forget(edit, id);
    })
    .await
}

/// Takes a snapshot's record away, and gives back what it took.
pub fn forget(edit: &mut Edit<'_>, id: &str) {
    let tables = edit.tables;
    let Some(snapshot) = tables.snapshots.get(id) else {
        return;
    };
    if snapshot.consumes_quota {
        quota::give_back(
            edit,
            &snapshot.project_id,
            &Amounts::snapshot(&snapshot.type_id, snapshot.size),
        );
    }
    if let Some(volume) = tables.volumes.get(&snapshot.volume_id) {
        edit.touch(volume);
    }
    edit.remove(snapshot);
}

/// Says that a job about a snapshot failed.
pub(super) async fn give_up(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    why: &str,
) -> Result<(), Trouble> {
    tracing::warn!(snapshot = id, why, "a job about a snapshot failed");
    let (event, status) = match job.task {
        Task::DeleteSnapshot { .. } => (messages::SNAPSHOT_STAYS, SnapshotStatus::ErrorDeleting),
        _ => (messages::NO_SNAPSHOT, SnapshotStatus::Error),
    };
    conclude(service, job, |edit| {
        edit.amend::<Snapshot>(id, |snapshot| snapshot.status = status);
        messages::leave(edit, job, event, ("VOLUME_SNAPSHOT", id));
    })
    .await
}

async fn finish(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    becomes: impl Fn(&mut Snapshot),
) -> Result<(), Trouble> {
    conclude(service, job, |edit| {
        edit.amend::<Snapshot>(id, &becomes);
    })
    .await
}

/// The names that a snapshot and its volume have in the storage, if the snapshot is still at what the job is for.
fn look(service: &Service, id: &str, at: SnapshotStatus) -> Option<(String, String)> {
    let tables = service.records.tables();
    let snapshot = tables
        .snapshots
        .get(id)
        .filter(|snapshot| snapshot.status == at)?;
    let volume = tables.volumes.get(&snapshot.volume_id)?;
    Some((volume.storage_name.clone(), snapshot.storage_name.clone()))
}
