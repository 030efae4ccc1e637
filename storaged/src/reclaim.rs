//! Gives back the space of layers that nobody needs: drops them, or merges them into the layer that
//! continues them, on every disk; then takes them out of the tree.
//!
//! What is to be done follows from the tree alone, so nothing is remembered about it: after a restart
//! it is found again, and each step may be done twice. It is paced: guests come first.
//!
//! Each node sees to its own disks. Where a family lies on several nodes, one that is done says so in the
//! coordination store, and whoever finds that all have said so takes the layer out of the tree.
//!
//! A disk that comes back might get from another one what it has given back itself. So nothing is given back
//! while a disk comes back to the pool, and what was done counts only if no placement group has changed since it
//! was begun (`docs/decisions/0033-coming-back.md`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coordination::ClusterMap;
use coordination::map::family::Reclaim as What;
use protocol::{DiskId, FamilyId, NodeId, ObjectId};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use crate::disk::Remote;
use crate::disks::Disks;
use crate::tasks::{Tasks, Worker};
use crate::volumes::retire::{Done, disks_with, node_of, not_done, pool_of, standing_note};
use crate::volumes::{OperationError, Volumes};

/// Objects that are listed at once.
const PAGE: usize = 256;
/// Objects that one disk works on at once: they share its log's flushes.
const IN_FLIGHT: usize = 8;
/// After a page, a disk is left alone for this many times as long as the page took: at most a third
/// of its time goes into reclaiming.
const REST: u32 = 2;
/// An index that no volume reaches: a step for it changes nothing, and is answered when the disk
/// knows that the layer is on its way out.
const NOWHERE: u32 = u32::MAX;
/// The longest of these rests.
const REST_MAX: Duration = Duration::from_millis(500);
/// Between looks at what other nodes have changed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);
/// When to try again after something was away, if nothing tells sooner that it is back.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Gives back space in the background. Cheap to clone.
#[derive(Clone)]
pub struct Reclaim(Arc<Shared>);

struct Shared {
    volumes: Arc<Volumes>,
    disks: Arc<Disks>,
    tasks: Tasks,
    /// Families with something to give back. The first is being worked on.
    jobs: Mutex<VecDeque<Job>>,
    wake: Notify,
}

struct Job {
    family: FamilyId,
    task: u64,
    /// Nothing while the job is being worked on.
    worker: Option<Worker>,
}

/// Why a step was not done now.
enum Obstacle {
    /// A disk is away, or refused; tried again later.
    Disk(DiskId, String),
    /// A node has not said yet that it is done.
    Node(NodeId),
    /// A disk comes back to the pool.
    ComesBack(DiskId),
    /// The records could not be changed.
    Records(OperationError),
}

impl Reclaim {
    /// Works on these disks and volumes.
    pub fn new(volumes: Arc<Volumes>, disks: Arc<Disks>, tasks: Tasks) -> Self {
        let jobs = Mutex::default();
        Self(Arc::new(Shared {
            volumes,
            disks,
            tasks,
            jobs,
            wake: Notify::new(),
        }))
    }

    /// Looks whether a family has something to give back, and sees to it; gives the task's number.
    pub fn look(&self, family: FamilyId) -> Option<u64> {
        let map = self.0.volumes.map();
        let mut jobs = self.jobs();
        if let Some(job) = jobs.iter().find(|job| job.family == family) {
            return Some(job.task);
        }
        if map.family(family)?.reclaimable().is_empty() {
            return None;
        }
        let worker = self.0.tasks.begin("reclaim", family.to_string(), "objects");
        let task = worker.id();
        jobs.push_back(Job {
            family,
            task,
            worker: Some(worker),
        });
        self.0.wake.notify_one();
        Some(task)
    }

    /// Works for ever: run it as a task.
    pub async fn run(self) {
        let families: Vec<FamilyId> = self.0.volumes.map().families().map(|(id, _)| id).collect();
        for family in families {
            self.look(family);
        }
        loop {
            let Some((family, worker)) = self.take() else {
                self.0.wake.notified().await;
                continue;
            };
            match self.work(family, &worker).await {
                Ok(()) => self.settle(family, worker),
                Err(obstacle) => self.postpone(family, worker, &obstacle).await,
            }
        }
    }

    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<(FamilyId, Worker)> {
        let mut jobs = self.jobs();
        let job = jobs.front_mut()?;
        job.worker.take().map(|worker| (job.family, worker))
    }

    /// Ends a job, unless something came to it meanwhile.
    fn settle(&self, family: FamilyId, worker: Worker) {
        let mut jobs = self.jobs();
        // Under the lock that `look` takes: whoever looks later sees no job and begins a new one.
        let map = self.0.volumes.map();
        let more = map
            .family(family)
            .is_some_and(|family| !family.reclaimable().is_empty());
        if more {
            if let Some(job) = jobs.front_mut() {
                job.worker = Some(worker);
            }
            return;
        }
        jobs.pop_front();
        worker.finish("all space is given back");
    }

    async fn postpone(&self, family: FamilyId, worker: Worker, obstacle: &Obstacle) {
        let mut changes = self.0.disks.subscribe();
        let mut map = self.0.volumes.watch();
        map.current_and_seen();
        match obstacle {
            Obstacle::Disk(disk, reason) => worker.say(format!("waits for {disk}: {reason}")),
            Obstacle::Node(node) => worker.say(format!("waits for {node}")),
            Obstacle::ComesBack(disk) => worker.say(format!("waits until {disk} has come back")),
            Obstacle::Records(error) => {
                warn!(%family, %error, "cannot change the records of reclaimed layers, trying again");
                worker.say(format!("tries again: {error}"));
            }
        }
        let others = {
            let mut jobs = self.jobs();
            if let Some(mut job) = jobs.pop_front() {
                job.worker = Some(worker);
                jobs.push_back(job);
            }
            jobs.len() > 1
        };
        if others {
            tokio::time::sleep(REST_MAX).await;
        } else {
            // Either a disk comes back or a node is done, or it is time to try all the same.
            tokio::select! {
                _ = changes.changed() => {}
                _ = map.changed(), if matches!(obstacle, Obstacle::Node(_) | Obstacle::ComesBack(_)) => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    async fn work(&self, family: FamilyId, worker: &Worker) -> Result<(), Obstacle> {
        loop {
            let map = self.0.volumes.map();
            let next = map
                .family(family)
                .and_then(|family| family.reclaimable().first().copied());
            let Some(what) = next else { return Ok(()) };
            worker.say(match what {
                What::Drop(layer) => format!("drops {layer}"),
                What::Merge { parent, child } => format!("merges {parent} into {child}"),
            });
            let done = self.give_back(&map, family, what, worker).await?;
            self.agree(family, what, done).await?;
            self.0
                .volumes
                .retire(family, what, done)
                .await
                .map_err(Obstacle::Records)?;
        }
    }

    /// Gives back what this node's disks hold of a layer, unless that was done before and still counts.
    async fn give_back(
        &self,
        map: &ClusterMap,
        family: FamilyId,
        what: What,
        worker: &Worker,
    ) -> Result<Done, Obstacle> {
        let ours = self.0.disks.node();
        if let Some(since) = standing_note(map, family, what.layer(), ours) {
            return Ok((ours, since));
        }
        if let Some(disk) = pool_of(map, family).and_then(|pool| map.comes_back(pool)) {
            return Err(Obstacle::ComesBack(disk));
        }
        self.everywhere(map, family, what, worker).await?;
        Ok((ours, map.revision()))
    }

    /// Sees to it that all nodes that may hold objects of the layer are done with it, as this one is.
    async fn agree(&self, family: FamilyId, what: What, done: Done) -> Result<(), Obstacle> {
        let missing = |map: &ClusterMap| not_done(map, family, what.layer(), done);
        if missing(&self.0.volumes.map()).is_none() {
            return Ok(());
        }
        let noted = self.0.volumes.note_reclaimed(family, what.layer(), done).await;
        noted.map_err(Obstacle::Records)?;
        // If it is we who have to begin again, nothing stands in the way of that.
        let missing = missing(&self.0.volumes.map()).filter(|node| *node != done.0);
        missing.map_or(Ok(()), |node| Err(Obstacle::Node(node)))
    }

    /// Looks at families that other nodes change, for ever: run it as a task.
    pub async fn follow(self) {
        let mut map = self.0.volumes.watch();
        let mut before = map.current_and_seen();
        loop {
            if !map.changed().await {
                return;
            }
            let now = map.current_and_seen();
            if now.nodes().len() > 1 {
                let same = |id, family| before.family(id).is_some_and(|old| Arc::ptr_eq(old, family));
                for (id, _) in now.families().filter(|(id, family)| !same(*id, *family)) {
                    self.look(id);
                }
            }
            before = now;
            // All that changes meanwhile is looked at once.
            tokio::time::sleep(FOLLOW_PAUSE).await;
        }
    }

    /// Does one thing on every disk of this node that may hold objects of the family.
    async fn everywhere(
        &self,
        map: &ClusterMap,
        family: FamilyId,
        what: What,
        worker: &Worker,
    ) -> Result<(), Obstacle> {
        let (progress, mut steps) = tokio::sync::mpsc::channel::<Step>(64);
        let mut disks = JoinSet::new();
        let row_chunks = map.row_chunks(family);
        let ours = |id: &DiskId| node_of(map, *id) == Some(self.0.disks.node());
        for id in disks_with(map, family).into_iter().filter(ours) {
            let remote = self.0.disks.remote(id).await;
            let remote = remote.ok_or_else(|| Obstacle::Disk(id, "it does not run".to_owned()))?;
            let progress = progress.clone();
            disks.spawn(async move {
                let result = on_disk(&remote, family, row_chunks, what, &progress).await;
                result.map_err(|reason| Obstacle::Disk(id, reason))
            });
        }
        drop(progress);
        while let Some(step) = steps.recv().await {
            match step {
                Step::Found(count) => worker.expect(count),
                Step::Done => worker.advance(1),
            }
        }
        // All of them have ended: their senders are gone.
        while let Some(joined) = disks.join_next().await {
            joined.unwrap_or_else(|error| {
                Err(Obstacle::Records(OperationError::Internal(error.to_string())))
            })?;
        }
        Ok(())
    }
}

enum Step {
    Found(u64),
    Done,
}

/// What one disk has to do. `row_chunks` is how many chunks of data a row has, if the pool encodes rows.
async fn on_disk(
    remote: &Remote,
    family: FamilyId,
    row_chunks: Option<u8>,
    what: What,
    progress: &tokio::sync::mpsc::Sender<Step>,
) -> Result<(), String> {
    // A disk whose map is behind may still take a write for the layer, of an owner that was just
    // replaced. After this step it does not, so nothing comes to what is listed below.
    one(remote, family, row_chunks, NOWHERE, what).await?;
    let mut from = Some(0);
    while let Some(start) = from {
        let began = Instant::now();
        let listed = remote.objects_of_layer(family, what.layer(), start, PAGE).await;
        let (indices, next) = listed.map_err(|error| error.to_string())?;
        from = next;
        // Nobody to tell progress to means that storaged is stopping: the next command fails.
        let _ = progress.send(Step::Found(indices.len() as u64)).await;
        let mut waiting = indices.into_iter();
        let mut working = JoinSet::new();
        loop {
            while working.len() < IN_FLIGHT
                && let Some(index) = waiting.next()
            {
                let remote = remote.clone();
                working.spawn(async move { one(&remote, family, row_chunks, index, what).await });
            }
            match working.join_next().await {
                None => break,
                Some(joined) => joined.map_err(|error| error.to_string())??,
            }
            let _ = progress.send(Step::Done).await;
        }
        tokio::time::sleep((began.elapsed() * REST).min(REST_MAX)).await;
    }
    Ok(())
}

async fn one(
    remote: &Remote,
    family: FamilyId,
    row_chunks: Option<u8>,
    index: u32,
    what: What,
) -> Result<(), String> {
    let done = match what {
        What::Drop(layer) => remote.drop_object(ObjectId { family, index, layer }).await,
        What::Merge { parent, child } => remote.merge(family, index, parent, child, row_chunks).await,
    };
    done.map_err(|error| error.to_string())
}
