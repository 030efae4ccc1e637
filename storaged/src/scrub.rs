//! Scrubs: begins those of this node's disks, when somebody wants one or when one is due, has other nodes do their parts
//! of a check, and tells what is found.
//!
//! What a scrub looks at and what follows from what it finds is `replication`'s business, how fast it goes the
//! disk's. Kept in memory: after a restart of `storaged` a scrub that was cut short is ordered again when it is due or
//! wanted, and the disk then goes on where it was (`disk::bookmark`).

mod parts;
mod place;
mod schedule;
mod sentence;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admin_api::scrubs::ScrubReport;
use protocol::session::SlotState;
use protocol::{DiskId, FamilyId, LayerChain};
use replication::scrub::Order;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::warn;

use crate::config;
use crate::disk::{Remote, Report, Totals};
use crate::disks::Disks;
use crate::events::Events;
use crate::peers::Peers;
use crate::peers::words::PartOrder;
use crate::tasks::{Tasks, Worker};
use crate::volumes::{OperationError, Volumes};

use parts::Part;
use schedule::Schedule;
use sentence::sentence;

/// How often a disk is asked how far its scrub is.
const LOOK: Duration = Duration::from_millis(200);
/// Between looks at what is due, and at what disks met by themselves.
const TURN: Duration = Duration::from_secs(2);
/// Reports that are kept; as many as tasks that ended.
const REPORTS_MAX: usize = 200;

/// Scrubs. Cheap to clone.
#[derive(Clone)]
pub struct Scrubs(Arc<Shared>);

struct Shared {
    volumes: Arc<Volumes>,
    disks: Arc<Disks>,
    tasks: Tasks,
    events: Events,
    peers: Peers,
    reports: Mutex<BTreeMap<u64, ScrubReport>>,
    schedule: Mutex<Schedule>,
}

/// What is to be looked at.
struct Job {
    subject: String,
    deep: bool,
    disks: Vec<(DiskId, Remote)>,
    elsewhere: Vec<DiskId>,
    only: Option<(FamilyId, LayerChain)>,
    /// What other nodes are asked to do.
    parts: Vec<Part>,
    order: Option<PartOrder>,
    /// What is known before it begins not to be looked at, in sentences.
    missing: Vec<String>,
}

impl Scrubs {
    /// Scrubs these disks.
    pub fn new(
        settings: config::Scrub,
        volumes: &Arc<Volumes>,
        disks: &Arc<Disks>,
        tasks: &Tasks,
        events: &Events,
        peers: Peers,
    ) -> Self {
        let schedule = Mutex::new(Schedule::new(settings, &events.page(None, usize::MAX).events));
        Self(Arc::new(Shared {
            volumes: Arc::clone(volumes),
            disks: Arc::clone(disks),
            tasks: tasks.clone(),
            events: events.clone(),
            peers,
            reports: Mutex::default(),
            schedule,
        }))
    }

    /// Begins a scrub of all that a disk of this node has; gives its task.
    pub async fn disk(&self, id: DiskId, deep: bool) -> Result<u64, OperationError> {
        let map = self.0.volumes.map();
        let disk = map.disks().get(&id);
        let disk = disk.ok_or_else(|| OperationError::NotFound(format!("there is no disk {}", id.0)))?;
        let node = disk.record.node;
        if node != self.0.disks.node() {
            let message = format!("{id} is on {node}: say this there");
            return Err(OperationError::Invalid(message));
        }
        let disks = self.running([id]).await?;
        Ok(self.begin(Job {
            subject: id.to_string(),
            deep,
            disks,
            elsewhere: Vec::new(),
            only: None,
            parts: Vec::new(),
            order: None,
            missing: Vec::new(),
        }))
    }

    /// Begins a scrub of all disks of this node that a pool has; gives its task.
    pub async fn pool(&self, name: &str, deep: bool) -> Result<u64, OperationError> {
        let map = self.0.volumes.map();
        let missing = || OperationError::NotFound(format!("there is no pool {name:?}"));
        let (pool, _) = map.pool_named(name).ok_or_else(missing)?;
        let slots = map.groups(pool).flat_map(|group| &group.slots);
        let (here, elsewhere) = self.split(slots.map(|slot| slot.disk).collect());
        let disks = self.running(here).await?;
        Ok(self.begin(Job {
            subject: format!("pool {name}"),
            deep,
            disks,
            elsewhere,
            only: None,
            parts: Vec::new(),
            order: None,
            missing: Vec::new(),
        }))
    }

    /// Begins a check of all copies of a volume or of one of its snapshots, on all nodes; gives its task.
    pub async fn volume(
        &self,
        name: &str,
        snapshot: Option<&str>,
        deep: bool,
    ) -> Result<u64, OperationError> {
        let (mut job, here) = self.job(name, snapshot, deep)?;
        let map = self.0.volumes.map();
        job.parts = parts::parts(&map, &job.elsewhere);
        job.order = Some(PartOrder {
            volume: name.to_owned(),
            snapshot: snapshot.map(str::to_owned),
            deep,
            revision: map.revision().0,
        });
        match self.running(here).await {
            Ok(disks) => job.disks = disks,
            Err(error) if job.parts.is_empty() => return Err(error),
            // The other nodes look after theirs all the same.
            Err(OperationError::Unavailable(why)) => job.missing.push(why),
            Err(_) => {}
        }
        Ok(self.begin(job))
    }

    /// The same of the copies on disks of this node only, against all others.
    async fn volume_here(
        &self,
        name: &str,
        snapshot: Option<&str>,
        deep: bool,
    ) -> Result<u64, OperationError> {
        let (mut job, here) = self.job(name, snapshot, deep)?;
        job.disks = self.running(here).await?;
        Ok(self.begin(job))
    }

    /// A check that nobody does yet, and the disks of this node that are to.
    fn job(
        &self,
        name: &str,
        snapshot: Option<&str>,
        deep: bool,
    ) -> Result<(Job, Vec<DiskId>), OperationError> {
        let map = self.0.volumes.map();
        let missing = || OperationError::NotFound(format!("there is no volume {name:?}"));
        let id = map.volume_named(name).ok_or_else(missing)?;
        let (family, volume) = map.volume(id).ok_or_else(missing)?;
        let layer = match snapshot {
            None => volume.record.head,
            Some(wanted) => {
                let gone = || OperationError::NotFound(format!("there is no snapshot {name}@{wanted}"));
                family.snapshot(id, wanted).ok_or_else(gone)?.record.layer
            }
        };
        let chain = family.chain(layer).ok_or_else(missing)?;
        let groups = family.pool().into_iter().flat_map(|pool| map.groups(pool));
        let slots = groups.flat_map(|group| &group.slots);
        let in_sync = slots
            .filter(|slot| slot.state == SlotState::InSync)
            .map(|slot| slot.disk);
        let (here, elsewhere) = self.split(in_sync.collect());
        let subject = snapshot.map_or_else(|| name.to_owned(), |snapshot| format!("{name}@{snapshot}"));
        let job = Job {
            subject,
            deep,
            disks: Vec::new(),
            elsewhere,
            only: Some((volume.record.family, chain)),
            parts: Vec::new(),
            order: None,
            missing: Vec::new(),
        };
        Ok((job, here))
    }

    /// What a scrub found so far, or at its end.
    pub fn report(&self, task: u64) -> Option<ScrubReport> {
        self.reports().get(&task).cloned()
    }

    /// Begins what is due, and tells what disks met by themselves, for ever: run it as a task.
    pub async fn run(self) {
        let mut told = BTreeSet::new();
        loop {
            self.tell_of_met(&mut told).await;
            self.begin_what_is_due().await;
            sleep(TURN).await;
        }
    }

    fn reports(&self) -> MutexGuard<'_, BTreeMap<u64, ScrubReport>> {
        self.0.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.0.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Disks of this node, and of others.
    fn split(&self, disks: BTreeSet<DiskId>) -> (Vec<DiskId>, Vec<DiskId>) {
        let map = self.0.volumes.map();
        let node = self.0.disks.node();
        let here = |disk: &DiskId| map.disks().get(disk).is_some_and(|disk| disk.record.node == node);
        disks.into_iter().partition(here)
    }

    /// The ways to command disks of this node, of which there must be one.
    async fn running(
        &self,
        disks: impl IntoIterator<Item = DiskId>,
    ) -> Result<Vec<(DiskId, Remote)>, OperationError> {
        let mut running = Vec::new();
        for id in disks {
            let remote = self.0.disks.remote(id).await;
            let down = || OperationError::Unavailable(format!("{id} does not serve just now"));
            running.push((id, remote.ok_or_else(down)?));
        }
        if running.is_empty() {
            let message = "none of its copies is on this node: say this on a node that has some (disk list)";
            return Err(OperationError::Invalid(message.to_owned()));
        }
        Ok(running)
    }

    fn begin(&self, job: Job) -> u64 {
        let worker = self.0.tasks.begin("scrub", job.subject.clone(), "objects");
        let task = worker.id();
        let report = ScrubReport {
            task,
            subject: job.subject.clone(),
            deep: job.deep,
            disks: job.disks.iter().map(|(id, _)| id.0).collect(),
            elsewhere: job.elsewhere.iter().map(|id| id.0).collect(),
            silent: job.missing.clone(),
            ..ScrubReport::default()
        };
        let mut reports = self.reports();
        reports.insert(task, report);
        while reports.len() > REPORTS_MAX {
            reports.pop_first();
        }
        drop(reports);
        let this = self.clone();
        tokio::spawn(async move { this.work(job, worker).await });
        task
    }

    async fn work(self, job: Job, worker: Worker) {
        worker.say(if job.deep {
            "reads and compares copies"
        } else {
            "compares copies"
        });
        let task = worker.id();
        let worker = Arc::new(worker);
        let mut all = JoinSet::new();
        for (id, remote) in job.disks {
            let (this, worker) = (self.clone(), Arc::clone(&worker));
            let (deep, only) = (job.deep, job.only.clone());
            all.spawn(async move { this.look_after(id, &remote, (deep, only), &worker).await });
        }
        for part in job.parts {
            let Some(order) = job.order.clone() else { continue };
            let (this, worker) = (self.clone(), Arc::clone(&worker));
            all.spawn(async move {
                this.have_looked_after(&part, &order, &worker).await;
                Ok(())
            });
        }
        let mut failed = Vec::new();
        while let Some(ended) = all.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => failed.push(reason),
                Err(error) => failed.push(error.to_string()),
            }
        }
        let Some(worker) = Arc::into_inner(worker) else {
            return;
        };
        if failed.is_empty() {
            worker.finish(
                self.report(task)
                    .map(|report| sentence(&report))
                    .unwrap_or_default(),
            );
        } else {
            worker.fail(failed.join("; "));
        }
    }

    /// One disk's part, to its end; gives why it did not come to that.
    async fn look_after(
        &self,
        id: DiskId,
        remote: &Remote,
        (deep, only): (bool, Option<(FamilyId, LayerChain)>),
        worker: &Worker,
    ) -> Result<(), String> {
        if let Some((family, chain)) = &only {
            for layer in chain.layers() {
                worker.expect(objects_of(remote, *family, *layer).await.unwrap_or(0));
            }
        }
        let whole = only.is_none();
        let only = only.map(|(family, chain)| (family, chain.layers().to_vec()));
        let stopped = |_| format!("{id} stopped");
        let run = remote
            .scrub(Order {
                deep,
                only,
                ..Order::default()
            })
            .await
            .map_err(stopped)?;
        let run = run.ok_or_else(|| format!("{id} has too many scrubs under way: wait for them"))?;
        let mut known = Totals::default();
        loop {
            sleep(LOOK).await;
            let report = remote.scrubbed(run).await.map_err(stopped)?;
            let Report {
                done,
                totals,
                findings,
                resumed,
            } = report.ok_or_else(|| format!("{id} was started again"))?;
            if resumed {
                worker.say("goes on where one was cut short: compares all, and reads the rest");
            }
            worker.advance(totals.objects - known.objects);
            self.add(worker.id(), id, (known, totals), &findings).await;
            known = totals;
            if done {
                break;
            }
            // A disk that is out of service answers and does nothing.
            let figures = remote.figures().await.map_err(stopped)?;
            if let Some(reason) = figures.poisoned {
                return Err(format!("{id} is out of service: {reason}"));
            }
        }
        if whole {
            self.tell_of_end(id, deep, known).await;
        }
        Ok(())
    }

    async fn begin_what_is_due(&self) {
        let map = self.0.volumes.map();
        let ours: Vec<(DiskId, u64)> = map
            .disks_on(self.0.disks.node())
            .map(|(id, disk)| (id, disk.record.created_ms))
            .collect();
        let running = |task| {
            let task = self.0.tasks.get(task);
            task.is_some_and(|task| task.state == admin_api::tasks::TaskState::Running)
        };
        let due = self
            .schedule()
            .due(&ours, crate::moment::wall_clock_ms(), running);
        let Some((disk, deep)) = due else { return };
        match self.disk(disk, deep).await {
            Ok(task) => self.schedule().begun(task),
            Err(error) => warn!(%disk, %error, "a scrub that is due does not begin"),
        }
    }
}

/// How many objects of a layer a disk has; nothing if it does not say.
async fn objects_of(remote: &Remote, family: FamilyId, layer: protocol::LayerId) -> Option<u64> {
    /// Objects that are listed at once.
    const PAGE: usize = 1024;
    let (mut from, mut count) = (Some(0), 0);
    while let Some(start) = from {
        let (found, next) = remote.objects_of_layer(family, layer, start, PAGE).await.ok()?;
        count += found.len() as u64;
        from = next;
    }
    Some(count)
}
