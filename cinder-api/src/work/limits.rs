//! Limits of volumes: those that a volume's type says, in the storage that keeps to them.
//!
//! They are set by jobs about the volume, one after the other, so the last one set goes by the newest records.

use super::{Trouble, conclude};
use crate::qos;
use crate::records::job::Task;
use crate::records::{Instant, Job, Stored, Tables};
use crate::service::Service;

/// The most volumes whose jobs are made in one transaction.
const VOLUMES_AT_ONCE: usize = 50;
/// Changes of the specifications while a volume's limits are set, each by an operator's hand: one is rare.
const ROUNDS_MAX: usize = 8;

/// Has the storage keep to what a type says for a volume of so many GiB. What the type says may change meanwhile, and
/// another job may have set that already: so it is looked at again afterwards.
pub(super) async fn settle(
    service: &Service,
    storage_name: &str,
    type_id: &str,
    gib: u64,
) -> Result<(), Trouble> {
    let said = || {
        let limits = qos::limits_of(&service.records.tables(), type_id, gib);
        limits.map_err(|why| Trouble::Failed(format!("the type's qos specs: {why}")))
    };
    let mut limits = said()?;
    for _ in 0..ROUNDS_MAX {
        service.storage.limit(storage_name, &limits).await?;
        service.records.fresh().await?;
        let present = said()?;
        if present == limits {
            return Ok(());
        }
        limits = present;
    }
    Err(Trouble::Later(
        "the type's qos specs change all the time".to_owned(),
    ))
}

/// Does so for a volume whose type's specifications have changed. One that is not in the storage has none.
pub(super) async fn apply(service: &Service, job: &Stored<Job>, id: &str) -> Result<(), Trouble> {
    let volume = {
        let tables = service.records.tables();
        tables.volumes.get(id).map(|volume| volume.record.clone())
    };
    if let Some(volume) = volume.filter(|volume| !volume.storage_name.is_empty()) {
        let there = service.storage.volume(&volume.storage_name).await?;
        if there.is_some() {
            settle(service, &volume.storage_name, &volume.type_id, volume.size).await?;
        }
    }
    conclude(service, job, |_| {}).await
}

/// Makes a job for each volume that has one of these types, or is just getting it. Those that are made meanwhile go by the
/// new specifications anyway.
pub(super) async fn spread(
    service: &Service,
    job: &Stored<Job>,
    is_meant: impl Fn(&Tables, &str) -> bool,
) -> Result<(), Trouble> {
    let volumes: Vec<String> = {
        let tables = service.records.tables();
        let have = tables.volumes.iter();
        let have = have
            .filter(|volume| is_meant(&tables, &volume.type_id))
            .map(|volume| volume.id.clone());
        let get = tables.jobs.iter().filter_map(|job| match &job.task {
            Task::RetypeVolume { volume, type_id } if is_meant(&tables, type_id) => Some(volume.clone()),
            _ => None,
        });
        have.chain(get).collect()
    };
    for some in volumes.chunks(VOLUMES_AT_ONCE) {
        let made = service.records.edit::<_, Trouble>(|edit| {
            for volume in some {
                edit.insert(&Job {
                    id: uuid::Uuid::new_v4().to_string(),
                    task: Task::LimitVolume {
                        volume: volume.clone(),
                    },
                    project_id: job.project_id.clone(),
                    request_id: job.request_id.clone(),
                    created_at: Instant::now(),
                });
            }
            Ok(())
        });
        made.await?;
    }
    conclude(service, job, |_| {}).await
}

/// Whether a type has these specifications.
pub(super) fn has_qos(tables: &Tables, type_id: &str, qos: &str) -> bool {
    let kind = tables.types.get(type_id);
    kind.is_some_and(|kind| kind.qos_id.as_deref() == Some(qos))
}
