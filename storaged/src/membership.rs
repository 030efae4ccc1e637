//! Changes who is in the placement groups' sets: takes out a disk that an owner complains of, that its own node
//! knows to have failed, whose node is gone, or that died while it came back; and takes in one that comes back,
//! step by step.
//!
//! What is decided is [`replication::membership`]'s business; here it is made true, by transactions on
//! the condition that each group is as it was, and for a complaint that the owner is still the owner. One task
//! makes them, one after the other, so that a disk that fails under a thousand volumes costs a few transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coordination::keys::Key;
use coordination::records::{GroupRecord, Severity, encode};
use coordination::{ClusterMap, Compare, Revision, Transaction};
use protocol::session::{Slot, SlotState};
use protocol::{DiskId, Generation, Interval, PgId, PoolId, VolumeId};
use replication::membership::{Eviction, advance, evict};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use crate::slow::Known;
use crate::volumes::{Decision, OperationError, Plan, Volumes, event, owned_by};

pub mod leaving;

pub use leaving::Leave;

/// Wishes that may wait. An owner's complaint that finds no room is dropped: owners complain again.
const WISHES_MAX: usize = 256;
/// Placement groups that change in one transaction: below the coordination store's limit, with room for
/// the owner's key and the event.
const GROUPS_MAX: usize = 100;
/// Between two transactions, so that owners and disks can follow.
const PACE: Duration = Duration::from_millis(10);
/// After the coordination store was away: who wishes something has to wait before it wishes it again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// An owner's complaint of a disk (rule 4).
#[derive(Clone, Debug)]
pub struct Suspicion {
    /// Whose owner complains.
    pub volume: VolumeId,
    /// With which generation it owns the volume.
    pub generation: Generation,
    /// Of which disk.
    pub disk: DiskId,
    /// Why, for people: follows the disk's name.
    pub reason: String,
    /// Whether it answers, and is only much slower than its peers.
    pub slow: bool,
}

/// A disk's own wish: the next step of its way back into a group.
#[derive(Debug)]
pub struct Step {
    /// Which disk.
    pub disk: DiskId,
    /// Into which group.
    pub pg: PgId,
    /// In which interval of the group. In another one nothing is done.
    pub interval: Interval,
    /// The state that its slot has.
    pub from: SlotState,
    /// The state that it wants.
    pub to: SlotState,
    /// Told when it was done or will not be; the map shows it then.
    pub settled: oneshot::Sender<()>,
}

/// What somebody wants of the sets.
#[derive(Debug)]
pub enum Wish {
    /// An owner complains.
    Complaint(Suspicion),
    /// A disk comes back.
    Step(Step),
    /// A disk is not there: nobody is to wait for its coming back.
    Absent(DiskId),
    /// Disks are to leave, whoever owns what lies on them.
    Leave(Leave),
}

/// Where wishes go.
pub type Wishes = mpsc::Sender<Wish>;

/// Changes sets. Run it as a task.
pub struct Membership {
    volumes: Arc<Volumes>,
    wishes: mpsc::Receiver<Wish>,
    /// Nobody is taken out before: disks are still being opened.
    not_before: Instant,
    /// Whether disks that owners find slow are taken out.
    evicts_slow: bool,
    /// Where it is noted that an owner finds a disk slow.
    slow: Arc<Known>,
}

/// What came of one transaction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// How many groups the disk left.
    left: usize,
    /// Groups that need it: too few others are in sync.
    needed: usize,
}

impl Membership {
    /// Works on these records. For a while after the start complaints are not heeded: when all disks of
    /// a node are opened, one is last, and is not to be taken for dead.
    pub fn new(volumes: Arc<Volumes>, grace: Duration) -> (Wishes, Self) {
        let (sender, wishes) = mpsc::channel(WISHES_MAX);
        let membership = Self {
            volumes,
            wishes,
            not_before: Instant::now() + grace,
            evicts_slow: true,
            slow: Arc::default(),
        };
        (sender, membership)
    }

    /// What owners say of slow disks is noted there, and they are taken out or not.
    #[must_use]
    pub fn with_slow(self, slow: Arc<Known>, evicts_slow: bool) -> Self {
        Self {
            evicts_slow,
            slow,
            ..self
        }
    }

    /// Works until nobody can wish anything any more.
    pub async fn run(mut self) {
        let mut wishes = Vec::new();
        while self.wishes.recv_many(&mut wishes, GROUPS_MAX).await > 0 {
            let mut steps: BTreeMap<DiskId, Vec<Step>> = BTreeMap::new();
            for wish in wishes.drain(..) {
                match wish {
                    Wish::Complaint(_) | Wish::Leave(_) if Instant::now() < self.not_before => {}
                    Wish::Complaint(suspicion) => {
                        if let Err(error) = self.evict(&suspicion).await {
                            warn!(disk = %suspicion.disk, %error, "a disk that fails cannot be taken out of its groups now");
                        }
                    }
                    Wish::Absent(disk) => {
                        if let Err(error) = self.give_up(disk).await {
                            warn!(%disk, %error, "a disk that died while it came back cannot be taken out now");
                        }
                    }
                    Wish::Leave(leave) => {
                        if let Err(error) = self.leave(&leave).await {
                            warn!(?leave, %error, "disks cannot leave their groups now");
                        }
                    }
                    Wish::Step(step) => steps.entry(step.disk).or_default().push(step),
                }
            }
            for (disk, steps) in steps {
                let done = self.volumes.carry_out(|map| plan_steps(map, disk, &steps)).await;
                if let Err(error) = done {
                    warn!(%disk, %error, "a disk cannot come back now");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                for step in steps {
                    // A disk that has stopped does not listen.
                    let _ = step.settled.send(());
                }
            }
        }
    }

    async fn give_up(&self, disk: DiskId) -> Result<(), OperationError> {
        while self.volumes.carry_out(|map| plan_absence(map, disk)).await? > 0 {
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    async fn leave(&self, leave: &Leave) -> Result<(), OperationError> {
        while self
            .volumes
            .carry_out(|map| leaving::plan_leave(map, leave))
            .await?
            .left
            > 0
        {
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    async fn evict(&self, suspicion: &Suspicion) -> Result<(), OperationError> {
        if suspicion.slow {
            let Suspicion { disk, reason, .. } = suspicion;
            if self.slow.heard(*disk, reason, std::time::Instant::now()) {
                self.volumes
                    .carry_out(|_| Ok(leaving::tell_of_slow(*disk, reason)))
                    .await?;
            }
            if !self.evicts_slow {
                return Ok(());
            }
        }
        loop {
            let outcome = self.volumes.carry_out(|map| plan(map, suspicion)).await?;
            if outcome.left == 0 {
                if outcome.needed > 0 {
                    let Suspicion { disk, reason, .. } = suspicion;
                    warn!(%disk, reason, groups = outcome.needed, "a disk that fails is needed: I/O waits for it");
                }
                return Ok(());
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Takes a disk out of some of the groups of a volume's pool.
fn plan(map: &ClusterMap, suspicion: &Suspicion) -> Result<Decision<Outcome>, OperationError> {
    let Suspicion {
        volume,
        generation,
        disk,
        reason,
        slow,
    } = suspicion;
    let mut outcome = Outcome::default();
    let pool = map.volume(*volume).and_then(|(family, _)| family.pool());
    let Some((pool, record)) = pool.and_then(|pool| Some((pool, &map.pool(pool)?.record))) else {
        return Ok(Decision::Unchanged(outcome));
    };
    // A former owner's word counts for nothing (P10).
    if map.generation(*volume) != Some(*generation) {
        return Ok(Decision::Unchanged(outcome));
    }
    let mut transaction = Transaction::new().when(owned_by(map.whole(*volume), *generation));
    for group in map.groups(pool) {
        match evict(&group.slots, *disk, record.min_in_sync) {
            Eviction::Down(slots) if outcome.left < GROUPS_MAX => {
                outcome.left += 1;
                transaction = with_group(transaction, group.pg, Revision(group.interval.0), slots)?;
            }
            Eviction::Needed { .. } => outcome.needed += 1,
            Eviction::Down(_) | Eviction::Absent => {}
        }
    }
    if outcome.left == 0 {
        return Ok(Decision::Unchanged(outcome));
    }
    if *slow {
        transaction = leaving::remembered(transaction, map, *disk, reason)?;
    }
    let message = format!(
        "{disk} was taken out of {} placement groups of pool {}: {reason}",
        outcome.left, record.name
    );
    let mut told = event("disk_evicted", disk.to_string(), message);
    told.severity = Severity::Error;
    Ok(Plan::decide(transaction, told, outcome))
}

/// Takes a disk's steps, as far as its groups are as they were when it wished them.
fn plan_steps(map: &ClusterMap, disk: DiskId, steps: &[Step]) -> Result<Decision<()>, OperationError> {
    let mut transaction = Transaction::new();
    let mut after = slots_of(map, disk);
    let before = after.clone();
    for step in steps {
        let group = map.group(step.pg);
        let Some(group) = group.filter(|group| group.interval == step.interval) else {
            continue;
        };
        if let Some(slots) = advance(&group.slots, disk, step.from, step.to) {
            if let Some(state) = after.get_mut(&step.pg) {
                *state = step.to;
            }
            transaction = with_group(transaction, step.pg, Revision(step.interval.0), slots)?;
        }
    }
    if transaction.changes.is_empty() {
        return Ok(Decision::Unchanged(()));
    }
    Ok(match told_of(map, disk, &before, &after) {
        Some(message) => Plan::decide(transaction, event("disk_returns", disk.to_string(), message), ()),
        None => Plan::decide_quietly(transaction, ()),
    })
}

/// Its slots' states in the groups that it holds. Of those that only move to it nobody is told one by one.
fn slots_of(map: &ClusterMap, disk: DiskId) -> BTreeMap<PgId, SlotState> {
    let holds = |pg: &PgId| {
        let width = map
            .pool(pg.pool)
            .map_or(0, |pool| usize::from(pool.record.redundancy.width()));
        let group = map.group(*pg);
        group.is_some_and(|group| group.slots.iter().take(width).any(|slot| slot.disk == disk))
    };
    let slots = map.groups_on(disk).filter(|(pg, _)| holds(pg));
    slots.map(|(pg, slot)| (pg, slot.state)).collect()
}

/// What to tell people of a disk's steps: that it begins to come back to a pool, and that it is back in all of it.
fn told_of(
    map: &ClusterMap,
    disk: DiskId,
    before: &BTreeMap<PgId, SlotState>,
    after: &BTreeMap<PgId, SlotState>,
) -> Option<String> {
    let pools: BTreeSet<PoolId> = after.keys().map(|pg| pg.pool).collect();
    pools.into_iter().find_map(|pool| {
        let name = &map.pool(pool)?.record.name;
        let with = |slots: &BTreeMap<PgId, SlotState>, wanted: fn(SlotState) -> bool| {
            let of_pool = slots.iter().filter(|(pg, _)| pg.pool == pool);
            of_pool.filter(|(_, state)| wanted(**state)).count()
        };
        let lacks = |state| state != SlotState::InSync;
        if with(before, SlotState::comes_back) == 0 && with(after, SlotState::comes_back) > 0 {
            let groups = with(before, lacks);
            return Some(format!(
                "{disk} comes back to {groups} placement groups of pool {name}"
            ));
        }
        let whole = with(before, lacks) > 0 && with(after, lacks) == 0;
        whole.then(|| format!("{disk} is in sync in all its placement groups of pool {name} again"))
    })
}

/// Takes a disk that is not there out of groups that it was coming back to. Gives how many.
fn plan_absence(map: &ClusterMap, disk: DiskId) -> Result<Decision<usize>, OperationError> {
    let mut transaction = Transaction::new();
    let coming = map.groups_on(disk).filter(|(_, slot)| slot.state.comes_back());
    let mut left = 0;
    for group in coming.filter_map(|(pg, _)| map.group(pg)).take(GROUPS_MAX) {
        if let Eviction::Down(slots) = evict(&group.slots, disk, 0) {
            left += 1;
            transaction = with_group(transaction, group.pg, Revision(group.interval.0), slots)?;
        }
    }
    if left == 0 {
        return Ok(Decision::Unchanged(0));
    }
    let message = format!("{disk} died while it came back to {left} placement groups");
    let mut told = event("disk_evicted", disk.to_string(), message);
    told.severity = Severity::Error;
    Ok(Plan::decide(transaction, told, left))
}

/// Adds a group's next record, on the condition that it is as it was.
pub(crate) fn with_group(
    transaction: Transaction,
    pg: PgId,
    interval: Revision,
    slots: Vec<Slot>,
) -> Result<Transaction, OperationError> {
    let key = Key::Group(pg).to_text();
    Ok(transaction
        .when(Compare::Modified(key.clone(), interval))
        .put(key, encode(&GroupRecord { slots })?))
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
