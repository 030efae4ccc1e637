//! Does what was accepted. Each process looks for jobs that nobody carries out, claims them, and carries them out; a claim
//! goes away with the process that has it, and then another one begins the job anew.
//!
//! A job ends in one transaction that changes the state and removes the job. So what is `creating` has a job, and what has
//! no job is not `creating`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use admin_client::AskError;
use coordination::{Compare, CoordinationError, LeaseId, Outcome, Transaction};
use tokio::sync::{Notify, Semaphore};
use tracing::{Instrument, info, info_span, warn};

use crate::connections::ConnectionError;
use crate::fault::Fault;
use crate::metrics::{self, Outcome as Ended};
use crate::records::job::{self, Task};
use crate::records::tables::{CLAIMS, PROCESSES};
use crate::records::{Edit, Job, Record, Stored};
use crate::service::Service;

mod backups;
mod expiry;
mod groups;
mod images;
mod limits;
mod messages;
mod snapshots;
mod volumes;

pub use backups::amounts as backup_amounts;
pub use snapshots::forget as forget_snapshot;
pub use volumes::{POOL_SPEC, forget as forget_volume};

/// How long the claims of a process that has died stay.
const CLAIM_TIME: Duration = Duration::from_secs(15);
/// Between renewals: two may fail.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// Jobs that one process carries out at once: most of them wait for the storage.
const JOBS_MAX: usize = 64;
/// Between attempts at a job whose storage is away.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a job did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// Something is away: it is tried again until it is there.
    Later(String),
    /// It cannot be done; the state says so from then on.
    Failed(String),
}

impl From<AskError> for Trouble {
    fn from(error: AskError) -> Self {
        use admin_api::ErrorKind::{Conflict, Internal, Unavailable};
        match (&error, error.kind()) {
            (AskError::Unreachable { .. }, _) | (_, Some(Conflict | Unavailable | Internal)) => {
                Self::Later(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<ConnectionError> for Trouble {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Connector(why) => Self::Failed(why),
            ConnectionError::Away(why) => Self::Later(why),
            ConnectionError::Storage(error) => error.into(),
        }
    }
}

impl From<crate::records::RecordsError> for Trouble {
    fn from(error: crate::records::RecordsError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.message)
    }
}

/// One process's share of the work.
struct Worker {
    service: Arc<Service>,
    lease: Mutex<Held>,
    running: Mutex<HashSet<String>>,
    /// When a job was claimed last, or was found to be another process's.
    tried: Mutex<HashMap<String, Instant>>,
    places: Arc<Semaphore>,
    /// A place is free again.
    ended: Notify,
}

/// The lease that claims go away with, and until when it surely holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: LeaseId,
    until: Instant,
}

/// Works until the process ends.
pub async fn run(service: Arc<Service>) -> Result<(), CoordinationError> {
    let held = grant(&service).await?;
    let worker = Arc::new(Worker {
        service,
        lease: Mutex::new(held),
        running: Mutex::default(),
        tried: Mutex::default(),
        places: Arc::new(Semaphore::new(JOBS_MAX)),
        ended: Notify::new(),
    });
    let service = worker.service.clone();
    let mut expiry =
        std::pin::pin!(async { tokio::join!(expiry::run(&service), images::copies::run(&service)) });
    let mut changes = worker.service.records.changes();
    let mut renewal = tokio::time::interval(RENEW_EVERY);
    loop {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                changes.borrow_and_update();
            }
            _ = renewal.tick() => worker.renew().await,
            _ = &mut expiry => {}
            () = worker.ended.notified() => {}
        }
        worker.look();
    }
}

async fn grant(service: &Service) -> Result<Held, CoordinationError> {
    let until = Instant::now() + CLAIM_TIME;
    let store = service.records.store();
    let lease = store.grant_lease(CLAIM_TIME).await?;
    let name = uuid::Uuid::new_v4();
    let here = Transaction::new().put_leased(format!("{PROCESSES}{name}"), Vec::new(), lease);
    store.commit(here).await?;
    Ok(Held { lease, until })
}

/// How many processes work on the same records, this one included. One that has died counts until its claims lapse.
pub async fn processes(service: &Service) -> Result<usize, CoordinationError> {
    let range = service.records.store().range(PROCESSES).await?;
    Ok(range.entries.len())
}

impl Worker {
    fn held(&self) -> Held {
        *lock(&self.lease)
    }

    async fn renew(&self) {
        let mut held = self.held();
        let until = Instant::now() + CLAIM_TIME;
        let renewed = match self.service.records.store().keep_lease(held.lease).await {
            Ok(()) => {
                held.until = until;
                Ok(held)
            }
            // Claims under the old one are gone: others may have the jobs, and `is_claimed` says so.
            Err(CoordinationError::NoLease) => grant(&self.service).await,
            Err(error) => Err(error),
        };
        match renewed {
            Ok(held) => *lock(&self.lease) = held,
            Err(error) => warn!(%error, "the claims on jobs cannot be renewed"),
        }
    }

    /// Begins every job whose turn it is and that this process does not carry out yet. What another process has claimed is
    /// looked at again when that claim would have lapsed.
    fn look(self: &Arc<Self>) {
        for job in self.due() {
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                return;
            };
            lock(&self.running).insert(job.id.clone());
            lock(&self.tried).insert(job.id.clone(), Instant::now());
            let worker = self.clone();
            let span = info_span!("job", id = job.id, request = job.request_id);
            let carried_out = async move {
                worker.carry_out(&job).await;
                drop(place);
                lock(&worker.running).remove(&job.id);
                worker.ended.notify_one();
            };
            tokio::spawn(carried_out.instrument(span));
        }
    }

    /// Jobs about one thing are carried out one after the other, in the order in which they were accepted.
    fn due(&self) -> Vec<Arc<Stored<Job>>> {
        let running = lock(&self.running);
        let mut tried = lock(&self.tried);
        let tables = self.service.records.tables();
        tried.retain(|id, _| tables.jobs.get(id).is_some());
        let is_due = |job: &&Arc<Stored<Job>>| {
            let first = tables.jobs.of_parent(job.task.subject()).next();
            first.is_some_and(|first| first.id == job.id)
                && !running.contains(&job.id)
                && tried
                    .get(&job.id)
                    .is_none_or(|tried| tried.elapsed() >= CLAIM_TIME)
        };
        tables
            .jobs
            .iter()
            .filter(is_due)
            .take(JOBS_MAX)
            .cloned()
            .collect()
    }

    async fn carry_out(&self, job: &Stored<Job>) {
        let held = self.held();
        match self.claim(job, held.lease).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                warn!(%error, "a job cannot be claimed");
                return;
            }
        }
        let kind = job::kind(&job.task);
        let _running = metrics::job(&kind);
        loop {
            // Who is not sure that his claim holds does nothing: another process may be at it.
            if self.held().lease != held.lease || Instant::now() >= self.held().until {
                warn!("the claim on a job has lapsed: it is left to others");
                return;
            }
            match perform(&self.service, job).await {
                Ok(()) => {
                    metrics::job_ended(&kind, Ended::Done);
                    break;
                }
                Err(Trouble::Later(why)) => {
                    metrics::job_ended(&kind, Ended::Again);
                    warn!(why, "a job waits");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(Trouble::Failed(why)) => {
                    warn!(why, "a job failed");
                    match give_up(&self.service, job, &why).await {
                        Ok(()) => {
                            metrics::job_ended(&kind, Ended::Failed);
                            break;
                        }
                        Err(why) => {
                            warn!(?why, "that a job failed cannot be said yet");
                            tokio::time::sleep(RETRY_AFTER).await;
                        }
                    }
                }
            }
        }
        let claim = Transaction::new().delete(claim_key(job));
        if let Err(error) = self.service.records.store().commit(claim).await {
            info!(%error, "the claim on a job that is done stays until it lapses");
        }
    }

    /// Whether the job is this process's now. It is nobody's who is late: the job may be done.
    async fn claim(&self, job: &Stored<Job>, lease: LeaseId) -> Result<bool, CoordinationError> {
        let key = claim_key(job);
        let claim = Transaction::new()
            .when(Compare::Absent(key.clone()))
            .when(Compare::Present(crate::records::tables::key::<Job>(job.id())))
            .put_leased(key, Vec::new(), lease);
        let outcome = self.service.records.store().commit(claim).await?;
        Ok(matches!(outcome, Outcome::Committed(_)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn claim_key(job: &Job) -> String {
    format!("{CLAIMS}{}", job.id)
}

/// Ends a job together with what follows from its end; does nothing if somebody else has ended it.
async fn conclude(
    service: &Service,
    job: &Stored<Job>,
    follows: impl Fn(&mut Edit<'_>),
) -> Result<(), Trouble> {
    let ended = service.records.edit(|edit| {
        if let Some(job) = edit.tables.jobs.get(&job.id) {
            follows(edit);
            edit.remove(job);
        }
        Ok(())
    });
    ended.await
}

async fn perform(service: &Service, job: &Stored<Job>) -> Result<(), Trouble> {
    match &job.task {
        Task::CreateVolume { volume } => volumes::create(service, job, volume).await,
        Task::DeleteVolume { volume } => volumes::delete(service, job, volume).await,
        Task::ManageVolume { volume } => volumes::manage(service, job, volume).await,
        Task::ExtendVolume { volume, size } => volumes::extend(service, job, volume, *size).await,
        Task::RevertVolume { volume, snapshot } => volumes::revert(service, job, volume, snapshot).await,
        Task::RetypeVolume { volume, type_id } => volumes::retype(service, job, volume, type_id).await,
        Task::LimitVolume { volume } => limits::apply(service, job, volume).await,
        Task::LimitVolumesOfType { type_id } => {
            limits::spread(service, job, |_, other| other == type_id).await
        }
        Task::LimitVolumesOfQos { qos } => {
            limits::spread(service, job, |tables, type_id| {
                limits::has_qos(tables, type_id, qos)
            })
            .await
        }
        Task::CreateGroup { group } => groups::create(service, job, group).await,
        Task::DeleteGroup { group } => groups::delete(service, job, group).await,
        Task::CreateGroupSnapshot { group_snapshot } => {
            groups::create_snapshot(service, job, group_snapshot).await
        }
        Task::DeleteGroupSnapshot { group_snapshot } => {
            groups::delete_snapshot(service, job, group_snapshot).await
        }
        Task::CreateSnapshot { snapshot } => snapshots::create(service, job, snapshot).await,
        Task::DeleteSnapshot { snapshot } => snapshots::delete(service, job, snapshot).await,
        Task::CreateFromImage { volume, image } => images::create(service, job, (volume, image)).await,
        Task::ReimageVolume { volume, image } => images::reimage(service, job, (volume, image)).await,
        Task::UploadImage {
            volume,
            image,
            endpoint,
            disk_format,
        } => {
            let target = images::Target {
                image,
                endpoint,
                disk_format,
            };
            images::upload(service, job, (volume, target)).await
        }
        Task::CreateBackup { backup } => backups::create(service, job, backup).await,
        Task::RestoreBackup { backup, volume } => backups::restore(service, job, (backup, volume)).await,
        Task::DeleteBackup { backup } => backups::delete(service, job, backup).await,
        Task::ImportBackup { backup } => backups::import(service, job, backup).await,
    }
}

async fn give_up(service: &Service, job: &Stored<Job>, why: &str) -> Result<(), Trouble> {
    match &job.task {
        Task::CreateSnapshot { snapshot } | Task::DeleteSnapshot { snapshot } => {
            snapshots::give_up(service, job, snapshot, why).await
        }
        Task::CreateFromImage { .. } | Task::ReimageVolume { .. } | Task::UploadImage { .. } => {
            images::give_up(service, job, why).await
        }
        Task::CreateBackup { backup }
        | Task::RestoreBackup { backup, .. }
        | Task::DeleteBackup { backup }
        | Task::ImportBackup { backup } => backups::give_up(service, job, backup, why).await,
        Task::CreateGroup { .. } | Task::CreateGroupSnapshot { .. } => {
            groups::give_up(service, job, job.task.subject(), true).await
        }
        Task::DeleteGroup { .. } | Task::DeleteGroupSnapshot { .. } => {
            groups::give_up(service, job, job.task.subject(), false).await
        }
        // Nothing is to be said of the volume: the log has the reason.
        Task::LimitVolume { .. } | Task::LimitVolumesOfType { .. } | Task::LimitVolumesOfQos { .. } => {
            conclude(service, job, |_| {}).await
        }
        _ => volumes::give_up(service, job, why).await,
    }
}
