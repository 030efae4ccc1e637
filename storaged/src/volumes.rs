//! Operations on volumes: each reads the map, checks, and makes one transaction on the condition
//! that what it read still stands.
//!
//! The planning is pure and lies in the modules below; here a plan is committed, and made anew
//! if somebody else was faster. Nothing here touches data: what a deletion leaves behind is
//! [`crate::reclaim`]'s business, and owners are brought to rest through [`rest`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coordination::keys::{Counter, Key};
use coordination::map::{MapWatch, Versioned};
use coordination::records::{self, EventRecord, SnapshotRecord, VolumeRecord};
use coordination::{ClusterMap, Compare, Coordination, Outcome, Revision, Transaction};
use protocol::{FamilyId, Generation, LayerId, VolumeId};

use crate::identities::Identities;
use crate::moment::wall_clock_ms;

pub mod clone;
pub mod create;
pub mod delete;
pub mod error;
pub mod labels;
pub mod limits;
pub mod rename;
pub mod resize;
pub mod rest;
pub mod retire;
pub mod retype;
pub mod rollback;
pub mod snapshot;
pub mod take_over;

pub use error::OperationError;

use rest::Owners;

/// Attempts against others that change the same records at the same moment. Each waits for the map
/// to show what the others did, so more than a few mean that something is wrong.
const ATTEMPTS_MAX: usize = 16;

/// Between looks whether the records are put back.
const RECALL_LOOK: Duration = Duration::from_millis(200);

/// What a plan comes to.
pub enum Decision<T> {
    /// It is so already.
    Unchanged(T),
    /// Make this transaction.
    Change(Box<Plan<T>>),
}

/// A transaction that was thought out against one map.
#[derive(Debug)]
pub struct Plan<T> {
    /// Its conditions and changes.
    pub transaction: Transaction,
    /// The line of the event log that goes with it.
    pub event: Option<EventRecord>,
    /// What the operation answers when it is committed.
    pub result: T,
}

impl<T> Plan<T> {
    /// A change that tells of itself.
    pub fn decide(transaction: Transaction, event: EventRecord, result: T) -> Decision<T> {
        Decision::Change(Box::new(Self {
            transaction,
            event: Some(event),
            result,
        }))
    }

    /// The decision to make a part of a change that is told of with its last part.
    pub fn decide_quietly(transaction: Transaction, result: T) -> Decision<T> {
        Decision::Change(Box::new(Self {
            transaction,
            event: None,
            result,
        }))
    }
}

/// Carries out operations on volumes.
pub struct Volumes {
    store: Arc<dyn Coordination>,
    map: MapWatch,
    identities: Arc<Identities>,
    owners: Arc<dyn Owners>,
    /// The records are being put back to what they were: see `cluster::recall`.
    recalling: AtomicBool,
}

impl Volumes {
    /// Operations on this store's records, as this map shows them.
    pub fn new(
        store: Arc<dyn Coordination>,
        map: MapWatch,
        identities: Arc<Identities>,
        owners: Arc<dyn Owners>,
    ) -> Self {
        Self {
            store,
            map,
            identities,
            owners,
            recalling: AtomicBool::new(false),
        }
    }

    /// The newest map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.map.current()
    }

    /// The newest map, and all that come.
    pub fn watch(&self) -> MapWatch {
        self.map.clone()
    }

    /// A map that shows all that was committed before this call, by whomever: nothing is refused on
    /// the ground of what is over.
    pub async fn fresh_map(&self) -> Result<Arc<ClusterMap>, OperationError> {
        let now = self.store.range(&Key::Schema.to_text()).await?.revision;
        Ok(self.map.at_least(now).await)
    }

    /// Plans against the newest map and commits, again and again while others are faster. When it
    /// returns, the map shows the change.
    pub async fn carry_out<T>(
        &self,
        plan: impl FnMut(&ClusterMap) -> Result<Decision<T>, OperationError>,
    ) -> Result<T, OperationError> {
        if self.recalls() {
            return Err(OperationError::Unavailable(
                "the coordination store went back to an older state, and its records are being put back: try again in a \
                 few seconds"
                    .to_owned(),
            ));
        }
        self.carry_out_recalling(plan).await
    }

    /// Whether the records are not to be believed now.
    pub fn recalls(&self) -> bool {
        self.recalling.load(Ordering::Acquire) || self.map.current().recalls()
    }

    /// Waits until they are.
    pub async fn believed(&self) {
        while self.recalls() {
            tokio::time::sleep(RECALL_LOOK).await;
        }
    }

    /// From now on they are not, or they are again.
    pub(crate) fn recall(&self, recalling: bool) {
        self.recalling.store(recalling, Ordering::Release);
    }

    /// As [`Volumes::carry_out`], also while the records are being put back.
    async fn carry_out_recalling<T>(
        &self,
        mut plan: impl FnMut(&ClusterMap) -> Result<Decision<T>, OperationError>,
    ) -> Result<T, OperationError> {
        let mut number = None;
        let mut map = self.fresh_map().await?;
        for _ in 0..ATTEMPTS_MAX {
            let decision = plan(&map)?;
            let Plan {
                transaction,
                event,
                result,
            } = match decision {
                Decision::Unchanged(result) => return Ok(result),
                Decision::Change(plan) => *plan,
            };
            let transaction = match event {
                Some(event) => {
                    if number.is_none() {
                        number = Some(self.identities.next(Counter::Event).await?);
                    }
                    let key = Key::Event(number.unwrap_or_default()).to_text();
                    transaction.put(key, records::encode(&event)?)
                }
                None => transaction,
            };
            match self.store.commit(transaction).await? {
                Outcome::Committed(revision) => {
                    self.map.at_least(revision).await;
                    return Ok(result);
                }
                Outcome::Conflict(revision) => map = self.map.at_least(revision).await,
            }
        }
        Err(OperationError::contended())
    }

    /// Where identities come from.
    /// Generations and intervals from now on are higher than one that a disk remembers. They always are,
    /// unless the records were restored from a backup that is older than what the disk has seen.
    pub async fn raise_revision(&self, floor: Revision) -> Result<(), OperationError> {
        Ok(self.store.raise_revision(floor).await?)
    }

    pub(crate) fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Who can speak with the owners of volumes.
    pub(crate) fn owners(&self) -> &dyn Owners {
        self.owners.as_ref()
    }

    /// Refuses while somebody has the volume open who does more with it than what can wait.
    async fn refuse_used(&self, id: VolumeId, name: &str) -> Result<(), OperationError> {
        self.owners.dismiss_caretaker(id).await;
        refuse_open(self.fresh_map().await?.as_ref(), id, name)
    }

    async fn new_volume(&self) -> Result<VolumeId, OperationError> {
        self.identities.next(Counter::Volume).await.map(VolumeId)
    }

    async fn new_family(&self) -> Result<FamilyId, OperationError> {
        self.identities.next(Counter::Volume).await.map(FamilyId)
    }

    async fn new_layer(&self) -> Result<LayerId, OperationError> {
        self.identities.next(Counter::Volume).await.map(LayerId)
    }
}

/// A line of the event log about what somebody asked for.
pub(crate) fn event(kind: &str, subject: impl Into<String>, message: impl Into<String>) -> EventRecord {
    EventRecord {
        time_ms: wall_clock_ms(),
        severity: records::Severity::Info,
        kind: kind.to_owned(),
        subject: subject.into(),
        message: message.into(),
    }
}

/// A volume's identity by its name.
pub(crate) fn find(map: &ClusterMap, name: &str) -> Result<VolumeId, OperationError> {
    admin_api::names::check_name(name)?;
    map.volume_named(name)
        .ok_or_else(|| OperationError::NotFound(format!("there is no volume {name:?}")))
}

/// A volume's record.
fn volume(map: &ClusterMap, id: VolumeId) -> Result<&Versioned<VolumeRecord>, OperationError> {
    map.volume(id)
        .map(|(_, volume)| volume)
        .ok_or_else(|| OperationError::NotFound("the volume was deleted meanwhile".to_owned()))
}

/// A snapshot's record.
fn snapshot<'a>(
    map: &'a ClusterMap,
    id: VolumeId,
    name: &str,
    snapshot: &str,
) -> Result<&'a Versioned<SnapshotRecord>, OperationError> {
    map.snapshot(id, snapshot)
        .ok_or_else(|| OperationError::NotFound(format!("volume {name:?} has no snapshot {snapshot:?}")))
}

/// Refuses while somebody has the volume open.
fn refuse_open(map: &ClusterMap, id: VolumeId, name: &str) -> Result<(), OperationError> {
    match map.owner(id) {
        None => Ok(()),
        // `storaged` itself has it open then, which nobody can close.
        Some(_) if is_shrinking(map, id) => Err(OperationError::InUse(unfinished_shrink(name))),
        Some(owner) => Err(OperationError::InUse(format!(
            "volume {name:?} is open by {} (process {} on {}): close it first",
            owner.record.program, owner.record.pid, owner.record.node
        ))),
    }
}

fn is_shrinking(map: &ClusterMap, id: VolumeId) -> bool {
    map.volume(id)
        .is_some_and(|(_, volume)| volume.record.discard_to.is_some())
}

fn unfinished_shrink(name: &str) -> String {
    format!(
        "what volume {name:?} lost in a shrink is still being discarded: `storagectl task list` shows how far \
         that is; try again when it is done"
    )
}

/// Refuses while what a shrink cut off is still being discarded.
fn refuse_unfinished_shrink(record: &VolumeRecord) -> Result<(), OperationError> {
    match record.discard_to {
        None => Ok(()),
        Some(_) => Err(OperationError::Conflict(unfinished_shrink(&record.name))),
    }
}

/// The condition that a volume's owner is still this one.
pub(crate) fn owned_by(id: VolumeId, generation: Generation) -> Compare {
    Compare::Created(Key::Owner(id).to_text(), Revision(generation.0))
}

/// On what conditions a volume is still at rest.
fn at_rest(rest: &dyn rest::AtRest, id: VolumeId) -> Result<Vec<Compare>, OperationError> {
    rest.conditions(id)
        .ok_or_else(|| OperationError::Internal(format!("{id} did not come to rest")))
}

/// A transaction on these conditions.
fn on(conditions: &[Compare]) -> Transaction {
    Transaction {
        compares: conditions.to_vec(),
        changes: Vec::new(),
    }
}

/// A number of things: `1 snapshot`, `2 snapshots`.
fn counted(count: usize, thing: &str) -> String {
    if count == 1 {
        format!("1 {thing}")
    } else {
        format!("{count} {thing}s")
    }
}

#[cfg(test)]
pub(crate) mod tests;
