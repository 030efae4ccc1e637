//! Volumes: made, deleted, made larger, put back, given another type.

use std::time::{Duration, Instant};

use admin_api::ErrorKind;

use super::limits;
use super::messages::{self, Event};
use super::{Trouble, conclude};
use crate::api::volumes::AVAILABLE_OR_IN_USE;
use crate::capabilities;
use crate::connections::agent::VHOST_USER;
use crate::keys;
use crate::nova;
use crate::quota::{self, Amounts};
use crate::records::job::Task;
use crate::records::managed::Managed;
use crate::records::volume::VolumeStatus;
use crate::records::{Attachment, Edit, Job, Stored, Tables, Volume};
use crate::service::Service;

/// How long a volume that is to be deleted may still be open somewhere: gateways let go when their target is gone.
const LETTING_GO: Duration = Duration::from_secs(30);
/// Between looks at something that takes its time in the storage.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The extra specification by which a type chooses a pool.
pub const POOL_SPEC: &str = "storaged:pool";

/// Makes a volume: empty, or from a snapshot, or from another volume.
pub(super) async fn create(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let Some(volume) = look(service, id, VolumeStatus::Creating) else {
        return finish(service, job, id, |_| {}).await;
    };
    let Some(pool) = choose_pool(service, &volume.type_id).await? else {
        return conclude(service, job, |edit| {
            edit.amend::<Volume>(id, |volume| {
                volume.status = VolumeStatus::Error;
                volume.storage_name.clear();
            });
            messages::leave(edit, job, messages::NO_BACKEND, ("VOLUME", id));
        })
        .await;
    };
    let name = &volume.storage_name;
    let origin = origin(&service.records.tables(), &volume);
    match origin {
        Origin::Nothing => service.storage.create(name, volume.size, &pool).await?,
        Origin::Snapshot {
            volume: from,
            snapshot,
        } => {
            service
                .storage
                .clone_snapshot((&from, &snapshot), name, volume.size)
                .await?;
        }
        Origin::Volume(from) => service.storage.clone_volume(&from, name, volume.size).await?,
        Origin::Gone(what) => return Err(Trouble::Failed(format!("{what} is gone"))),
    }
    move_to(service, name, &pool).await?;
    limits::settle(service, name, &volume.type_id, volume.size).await?;
    finish(service, job, id, |volume| {
        volume.status = VolumeStatus::Available;
        volume.pool = Some(pool.clone());
    })
    .await
}

/// What a volume is made from.
enum Origin {
    Nothing,
    Snapshot { volume: String, snapshot: String },
    Volume(String),
    Gone(String),
}

fn origin(tables: &Tables, volume: &Volume) -> Origin {
    if let Some(id) = &volume.snapshot_id {
        let snapshot = tables.snapshots.get(id);
        let parent = snapshot.and_then(|snapshot| tables.volumes.get(&snapshot.volume_id));
        return match (snapshot, parent) {
            (Some(snapshot), Some(parent)) => Origin::Snapshot {
                volume: parent.storage_name.clone(),
                snapshot: snapshot.storage_name.clone(),
            },
            _ => Origin::Gone(format!("snapshot {id}")),
        };
    }
    match &volume.source_id {
        Some(id) => match tables.volumes.get(id) {
            Some(source) => Origin::Volume(source.storage_name.clone()),
            None => Origin::Gone(format!("volume {id}")),
        },
        None => Origin::Nothing,
    }
}

/// The pool that a type's volumes go to; nothing if no pool fits.
pub(super) async fn choose_pool(service: &Service, type_id: &str) -> Result<Option<String>, Trouble> {
    let specs = {
        let tables = service.records.tables();
        if capabilities::is_closed(&service.settings, &tables) {
            return Ok(None);
        }
        let kind = tables.types.get(type_id);
        kind.map(|kind| kind.extra_specs.clone()).unwrap_or_default()
    };
    let pools = service.storage.pools().await?;
    let wanted = specs.get(POOL_SPEC).or(service.settings.default_pool.as_ref());
    let found = pools.into_iter().find(|pool| {
        let is_wanted = wanted.is_none_or(|wanted| *wanted == pool.name);
        is_wanted && capabilities::fit(&capabilities::of_pool(&service.settings, pool), &specs)
    });
    Ok(found.map(|pool| pool.name))
}

/// Moves a volume to a pool unless it is there, and waits until it is.
async fn move_to(service: &Service, name: &str, pool: &str) -> Result<(), Trouble> {
    loop {
        let Some(volume) = service.storage.volume(name).await? else {
            return Err(Trouble::Failed(format!("{name} is gone from the storage")));
        };
        if volume.pool == pool && volume.moving.is_none() {
            return Ok(());
        }
        if volume.pool != pool {
            service.storage.directory().retype(name, pool).await?;
        }
        // How long it takes depends on how much was written; the storage's own task says how far it is.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Deletes a volume with its snapshots.
pub(super) async fn delete(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let Some(volume) = look(service, id, VolumeStatus::Deleting) else {
        return finish(service, job, id, |_| {}).await;
    };
    if volume.previous_status == Some(VolumeStatus::ErrorManaging) {
        // It was never OpenStack's: only the record goes.
        return conclude(service, job, |edit| {
            forget(edit, id);
        })
        .await;
    }
    // Nothing of it is in the storage if no pool was found for it.
    if !volume.storage_name.is_empty() {
        delete_from_storage(service, &volume).await?;
    }
    keys::end(service, volume.encryption_key_id.as_deref()).await?;
    let snapshots: Vec<String> = {
        let tables = service.records.tables();
        tables
            .snapshots
            .of_parent(id)
            .map(|snapshot| snapshot.id.clone())
            .collect()
    };
    for snapshot in snapshots {
        service
            .records
            .edit::<_, Trouble>(|edit| {
                super::snapshots::forget(edit, &snapshot);
                Ok(())
            })
            .await?;
    }
    conclude(service, job, |edit| {
        forget(edit, id);
    })
    .await
}

async fn delete_from_storage(service: &Service, volume: &Volume) -> Result<(), Trouble> {
    service.connections.withdraw(&service.storage, volume).await?;
    let deadline = Instant::now() + LETTING_GO;
    loop {
        match service.storage.delete(&volume.storage_name).await {
            Err(error) if error.kind() == Some(ErrorKind::InUse) && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            other => return Ok(other?),
        }
    }
}

/// Takes a volume's record away, with all that hangs on it, and gives back what it took.
pub fn forget(edit: &mut Edit<'_>, id: &str) {
    let tables = edit.tables;
    let Some(volume) = tables.volumes.get(id) else {
        return;
    };
    if volume.consumes_quota {
        quota::give_back(
            edit,
            &volume.project_id,
            &Amounts::volume(&volume.type_id, volume.size),
        );
    }
    for attachment in tables.attachments.of_parent(id) {
        edit.remove(attachment);
    }
    for transfer in tables.transfers.of_parent(id) {
        edit.remove(transfer);
    }
    if let Some(managed) = tables.managed.get(&Managed::key(&volume.storage_name)) {
        edit.remove(managed);
    }
    edit.remove(volume);
}

/// Takes over a volume of the storage: it becomes as large as whole GiB are.
pub(super) async fn manage(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    if let Some(volume) = look(service, id, VolumeStatus::Managing) {
        let name = &volume.storage_name;
        if service.storage.volume(name).await?.is_none() {
            return Err(Trouble::Failed(format!("{name} is gone from the storage")));
        }
        service.storage.grow(name, volume.size).await?;
        limits::settle(service, name, &volume.type_id, volume.size).await?;
    }
    finish(service, job, id, |volume| {
        if volume.status == VolumeStatus::Managing {
            volume.status = VolumeStatus::Available;
        }
    })
    .await
}

/// Makes a volume larger. Its project has the room already.
pub(super) async fn extend(service: &Service, job: &Stored<Job>, id: &str, size: u64) -> Result<(), Trouble> {
    if let Some(volume) = look(service, id, VolumeStatus::Extending) {
        service.storage.grow(&volume.storage_name, size).await?;
        limits::settle(service, &volume.storage_name, &volume.type_id, size).await?;
    }
    finish(service, job, id, |volume| {
        if volume.status == VolumeStatus::Extending {
            volume.size = size;
            volume.status = back(volume);
        }
    })
    .await?;
    // A guest behind a socket is told by the storage; Nova could not tell it.
    tell_servers(service, "volume-extended", id, |attachment| {
        attachment.kind() != Some(VHOST_USER)
    })
    .await;
    Ok(())
}

/// Tells the hypervisors of the servers that have a volume, by attachments of which it is worth it, what has become of it.
pub(super) async fn tell_servers(
    service: &Service,
    event: &str,
    id: &str,
    is_worth_it: impl Fn(&Attachment) -> bool,
) {
    let servers: Vec<String> = {
        let tables = service.records.tables();
        let attached = tables.attachments.of_parent(id);
        attached
            .filter(|attachment| is_worth_it(attachment))
            .filter_map(|attachment| attachment.instance_id.clone())
            .collect()
    };
    nova::tell(&service.keystone, event, id, &servers).await;
}

/// Puts a volume back to a snapshot.
pub(super) async fn revert(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    snapshot: &str,
) -> Result<(), Trouble> {
    let name = {
        let tables = service.records.tables();
        tables
            .snapshots
            .get(snapshot)
            .map(|snapshot| snapshot.storage_name.clone())
    };
    if let (Some(volume), Some(name)) = (look(service, id, VolumeStatus::Reverting), name) {
        service.storage.roll_back(&volume.storage_name, &name).await?;
    }
    finish(service, job, id, |volume| {
        if volume.status == VolumeStatus::Reverting {
            volume.status = back(volume);
        }
    })
    .await
}

/// Gives a volume another type, and moves it to that type's pool.
pub(super) async fn retype(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    type_id: &str,
) -> Result<(), Trouble> {
    let Some(volume) = look(service, id, VolumeStatus::Retyping) else {
        return finish(service, job, id, |_| {}).await;
    };
    let Some(pool) = choose_pool(service, type_id).await? else {
        return Err(Trouble::Failed("no pool fits the type".to_owned()));
    };
    move_to(service, &volume.storage_name, &pool).await?;
    limits::settle(service, &volume.storage_name, type_id, volume.size).await?;
    conclude(service, job, |edit| {
        let tables = edit.tables;
        if let Some(stored) = tables
            .volumes
            .get(id)
            .filter(|stored| stored.status == VolumeStatus::Retyping)
        {
            let amounts = Amounts::volume(&stored.type_id, stored.size);
            quota::give_back(edit, &stored.project_id, &amounts);
            let kind = tables.types.get(type_id);
            edit.change(stored, |volume| {
                type_id.clone_into(&mut volume.type_id);
                volume.multiattach = kind.is_some_and(|kind| kind.says_yes("multiattach"));
                volume.pool = Some(pool.clone());
                volume.status = back(volume);
            });
        }
    })
    .await
}

/// Says that no pool fits a volume's type.
pub(super) async fn no_backend(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    fail(service, job, id, messages::NO_BACKEND, VolumeStatus::Error).await
}

/// Says that an image could not be written to a volume.
pub(super) async fn not_copied(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    fail(service, job, id, messages::NO_IMAGE, VolumeStatus::Error).await
}

/// Says that a job about a volume failed.
pub(super) async fn give_up(service: &Service, job: &Stored<Job>, why: &str) -> Result<(), Trouble> {
    let id = job.task.subject();
    match &job.task {
        Task::ExtendVolume { size, .. } => {
            let size = *size;
            conclude(service, job, |edit| {
                if let Some(volume) = edit.tables.volumes.get(id) {
                    let more = size.saturating_sub(volume.size);
                    quota::give_back(edit, &volume.project_id, &Amounts::growth(&volume.type_id, more));
                    edit.amend::<Volume>(id, |volume| volume.status = VolumeStatus::ErrorExtending);
                    messages::leave(edit, job, messages::NOT_EXTENDED, ("VOLUME", id));
                }
            })
            .await
        }
        Task::RetypeVolume { type_id, .. } => {
            conclude(service, job, |edit| {
                if let Some(volume) = edit.tables.volumes.get(id) {
                    quota::give_back(edit, &volume.project_id, &Amounts::volume(type_id, volume.size));
                    edit.amend::<Volume>(id, |volume| volume.status = back(volume));
                }
            })
            .await
        }
        Task::DeleteVolume { .. } => {
            finish(service, job, id, |volume| {
                volume.status = VolumeStatus::ErrorDeleting;
            })
            .await
        }
        Task::ManageVolume { .. } => {
            finish(service, job, id, |volume| {
                volume.status = VolumeStatus::ErrorManaging;
            })
            .await
        }
        Task::RevertVolume { .. } => {
            finish(service, job, id, |volume| volume.status = VolumeStatus::Error).await
        }
        _ => {
            tracing::warn!(volume = id, why, "a volume could not be made");
            fail(service, job, id, messages::NOT_MADE, VolumeStatus::Error).await
        }
    }
}

async fn fail(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    event: Event,
    status: VolumeStatus,
) -> Result<(), Trouble> {
    conclude(service, job, |edit| {
        edit.amend::<Volume>(id, |volume| volume.status = status);
        messages::leave(edit, job, event, ("VOLUME", id));
    })
    .await
}

/// Ends a job about a volume, with what becomes of the volume.
async fn finish(
    service: &Service,
    job: &Stored<Job>,
    id: &str,
    becomes: impl Fn(&mut Volume),
) -> Result<(), Trouble> {
    conclude(service, job, |edit| {
        edit.amend::<Volume>(id, &becomes);
    })
    .await
}

/// A volume, if it is still at what the job is for. An operator may have said otherwise meanwhile.
pub(super) fn look(service: &Service, id: &str, at: VolumeStatus) -> Option<Volume> {
    let tables = service.records.tables();
    let volume = tables.volumes.get(id)?;
    (volume.status == at).then(|| volume.record.clone())
}

/// The status to which a volume returns.
pub(super) fn back(volume: &Volume) -> VolumeStatus {
    let before = volume
        .previous_status
        .filter(|status| AVAILABLE_OR_IN_USE.contains(status));
    before.unwrap_or(VolumeStatus::Available)
}
