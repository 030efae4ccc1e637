//! Changes who is in the placement groups' sets: takes out a disk that an owner complains of.
//!
//! What is decided is [`replication::membership`]'s business; here it is made true, by transactions on
//! the condition that the owner is still the owner and each group as it was. One task makes them, one
//! after the other, so that a disk that fails under a thousand volumes costs a few transactions.

use std::sync::Arc;
use std::time::Duration;

use coordination::keys::Key;
use coordination::records::{GroupRecord, Severity, encode};
use coordination::{ClusterMap, Compare, Revision, Transaction};
use protocol::{DiskId, Generation, PgId, VolumeId};
use replication::membership::{Eviction, evict};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::volumes::{Decision, OperationError, Plan, Volumes, event, owned_by};

/// Complaints that may wait. One more is dropped: owners complain again.
const COMPLAINTS_MAX: usize = 256;
/// Placement groups that change in one transaction: below the coordination store's limit, with room for
/// the owner's key and the event.
const GROUPS_MAX: usize = 100;
/// Between two transactions, so that owners and disks can follow.
const PACE: Duration = Duration::from_millis(10);

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
}

/// Where complaints go.
pub type Complaints = mpsc::Sender<Suspicion>;

/// Changes sets. Run it as a task.
pub struct Membership {
    volumes: Arc<Volumes>,
    complaints: mpsc::Receiver<Suspicion>,
    /// Nobody is taken out before: disks are still being opened.
    not_before: Instant,
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
    pub fn new(volumes: Arc<Volumes>, grace: Duration) -> (Complaints, Self) {
        let (sender, complaints) = mpsc::channel(COMPLAINTS_MAX);
        let membership = Self {
            volumes,
            complaints,
            not_before: Instant::now() + grace,
        };
        (sender, membership)
    }

    /// Works until nobody can complain any more.
    pub async fn run(mut self) {
        while let Some(suspicion) = self.complaints.recv().await {
            if Instant::now() < self.not_before {
                continue;
            }
            if let Err(error) = self.evict(&suspicion).await {
                warn!(disk = %suspicion.disk, %error, "a disk that fails cannot be taken out of its groups now");
            }
        }
    }

    async fn evict(&self, suspicion: &Suspicion) -> Result<(), OperationError> {
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
    let mut transaction = Transaction::new().when(owned_by(*volume, *generation));
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
    let message = format!(
        "{disk} was taken out of {} placement groups of pool {}: {reason}",
        outcome.left, record.name
    );
    let mut told = event("disk_evicted", disk.to_string(), message);
    told.severity = Severity::Error;
    Ok(Plan::decide(transaction, told, outcome))
}

/// Adds a group's next record, on the condition that it is as it was.
fn with_group(
    transaction: Transaction,
    pg: PgId,
    interval: Revision,
    slots: Vec<protocol::session::Slot>,
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
