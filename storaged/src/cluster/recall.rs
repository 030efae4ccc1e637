//! Puts back what the coordination store has lost: a store that was restored from an older backup knows nothing of what
//! came later, which every node that runs still has in its map, and every node that was stopped in its file
//! ([`super::memory`]).
//!
//! Old records are worse than none: a disk that was put out of its groups would count as in sync again, and a volume
//! would write to a layer that a snapshot has sealed since. So nothing is changed, granted or served on the ground of
//! the old records while somebody remembers newer ones: the node that remembers most puts its own back. Who that is, is
//! decided in [`verdict`].
//!
//! What no node remembers is lost. Owners' keys and other keys with a lease are left to those who hold them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coordination::keys::{Counter, Key, RECALLS};
use coordination::map::MapWatch;
use coordination::records::{self, RecallRecord, Severity, encode};
use coordination::store::LeaseId;
use coordination::{ClusterMap, Coordination, CoordinationError, Outcome, Revision, Transaction};
use protocol::NodeId;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::identity::Identity;
use super::memory::Memory;
use crate::identities::Identities;
use crate::volumes::{OperationError, Volumes, event};

mod changes;
mod verdict;

use changes::{changes, transaction};
use verdict::{Notes, Scene, Verdict, verdict};

/// How long is waited for others who may remember more.
const HEARS_OTHERS: Duration = Duration::from_secs(3);
/// A node that dies while it puts records back is waited for so long.
const LEASE: Duration = Duration::from_secs(15);
/// Between attempts while the store cannot be reached, and between looks at what others say.
const AGAIN: Duration = Duration::from_millis(500);
/// Between lines that say who is waited for.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Records that are put back in one transaction: below the coordination store's limit.
const RECORDS_MAX: usize = 100;
/// Transactions until it is given up: more records than any cluster has.
const TRANSACTIONS_MAX: usize = 100_000;

/// What a recall works with. Cheap to clone.
#[derive(Clone)]
pub struct Recalls {
    /// The store.
    pub store: Arc<dyn Coordination>,
    /// Its map.
    pub map: MapWatch,
    /// For the line of the event log.
    pub identities: Arc<Identities>,
    /// Nodes that are not waited for, by the configuration.
    pub without: BTreeSet<NodeId>,
}

impl Recalls {
    /// Before a node does anything: if the store went back while the node was stopped, or others are just about to put
    /// it right, takes part in that, to the end. Gives a map that may be believed.
    pub async fn at_start(&self, work_dir: &Path, own: Option<&Identity>) -> Arc<ClusterMap> {
        let map = self.map.current();
        let Some(own) = own else {
            // What a new node writes among old records would be lost with them.
            return self.when_over().await;
        };
        // It is refused in words, soon.
        if own.cluster != map.cluster() {
            return map;
        }
        let memory = Memory::recollect(work_dir, own).unwrap_or_default();
        let known = memory.revision;
        if map.revision() >= known && !map.recalls() {
            if known > Revision(0) && map.went_back(known).unwrap_or(false) {
                warn!(
                    "the coordination store was restored from a backup while this node was stopped, and others went on with \
                     it: what only this node remembers is not put back"
                );
            }
            return map;
        }
        warn!(
            remembers = known.0,
            store = map.revision().0,
            "the coordination store went back to an older state while this node was stopped: its records are not believed"
        );
        // It was stopped in the middle of it: then the numbers tell nothing, and its own word all.
        let raised = self.said_before(own.node).await;
        let recall = Recall {
            shared: self,
            memory: &memory,
            node: own.node,
            own: RecallRecord {
                revision: known.0,
                cold: true,
                unused: false,
                raised: false,
            },
            joins: map.revision() >= known && !raised,
        };
        recall.carry_out(raised).await;
        self.map.current()
    }

    /// A map with which nobody says that he remembers more.
    async fn when_over(&self) -> Arc<ClusterMap> {
        let mut watch = self.map.clone();
        if watch.current_and_seen().recalls() {
            warn!(
                "waits until nodes have put back what the restored coordination store has lost: see their logs"
            );
        }
        while watch.current_and_seen().recalls() && watch.changed().await {}
        watch.current()
    }

    /// Whether a node's word of an earlier start stands because it has raised the numbers.
    async fn said_before(&self, node: NodeId) -> bool {
        loop {
            match self.notes().await {
                Ok((notes, _)) => return notes.get(&node).is_some_and(|own| own.raised),
                Err(error) => warn!(%error, "it cannot be seen what nodes remember, trying again"),
            }
            sleep(AGAIN).await;
        }
    }

    /// Watches the map for ever, from the first one that the node has seen: run it as a task. Maps that are believed
    /// are handed on.
    pub async fn run(
        self,
        volumes: Arc<Volumes>,
        node: NodeId,
        first: Arc<ClusterMap>,
        believe: watch::Sender<Arc<ClusterMap>>,
    ) {
        let mut watch = self.map.clone();
        let since = first.revision();
        let (mut before, mut used) = (first, false);
        loop {
            let now = watch.current_and_seen();
            match now.went_back(before.revision()) {
                Ok(true) => {
                    warn!("the coordination store went back to an older state: its records are not believed");
                    volumes.recall(true);
                    self.go_back_to(&before, node, used).await;
                    volumes.recall(false);
                    before = watch.current_and_seen();
                }
                Ok(false) => before = now,
                Err(error) => {
                    warn!(%error, "it cannot be seen whether the coordination store went back");
                    before = now;
                }
            }
            used = used || before.was_used_since(since);
            // Others may still be at it; then this is not the last map.
            if !before.recalls() {
                believe.send_replace(before.clone());
            }
            if !watch.changed().await {
                return;
            }
        }
    }

    async fn go_back_to(&self, before: &ClusterMap, node: NodeId, used: bool) {
        let memory = match Memory::of(before) {
            Ok(memory) => memory,
            Err(error) => return warn!(%error, "what the node remembers cannot be told"),
        };
        let recall = Recall {
            shared: self,
            memory: &memory,
            node,
            own: RecallRecord {
                revision: memory.revision.0,
                cold: false,
                unused: !used,
                raised: false,
            },
            joins: false,
        };
        recall.carry_out(false).await;
    }

    async fn notes(&self) -> Result<(Notes, Revision), OperationError> {
        let range = self.store.range(RECALLS).await?;
        let mut notes = Notes::new();
        for entry in &range.entries {
            let record: RecallRecord = records::decode(entry).map_err(OperationError::from)?;
            if let Some(Key::Recall(node)) = Key::parse(&entry.key) {
                notes.insert(node, record);
            }
        }
        Ok((notes, range.revision))
    }

    /// A map that shows all that was committed before this call.
    async fn fresh_map(&self) -> Result<Arc<ClusterMap>, OperationError> {
        let now = self.store.range(&Key::Schema.to_text()).await?.revision;
        Ok(self.map.at_least(now).await)
    }
}

struct Recall<'a> {
    shared: &'a Recalls,
    memory: &'a Memory,
    node: NodeId,
    /// What it says of itself, but for `raised`.
    own: RecallRecord,
    /// Whether it takes part only because others are at it.
    joins: bool,
}

/// What outlasts an attempt.
#[derive(Default)]
struct Course {
    /// What others have said.
    heard: Notes,
    /// Whether the node's own word stands without a lease.
    raised: bool,
}

impl Recall<'_> {
    /// Until the records are as somebody remembered them.
    async fn carry_out(&self, raised: bool) {
        let mut course = Course {
            raised,
            ..Course::default()
        };
        loop {
            match self.attempt(&mut course).await {
                Ok(()) => return,
                Err(error) => warn!(%error, "lost records cannot be put back now, trying again"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn attempt(&self, course: &mut Course) -> Result<(), OperationError> {
        let store = &self.shared.store;
        let lease = store.grant_lease(LEASE).await?;
        let result = self.listen_and_act(lease, course).await;
        // Whatever came of it: the others must not wait for the lease.
        let taken_back = store.revoke_lease(lease).await;
        result?;
        Ok(taken_back?)
    }

    async fn listen_and_act(&self, lease: LeaseId, course: &mut Course) -> Result<(), OperationError> {
        let begun = Instant::now();
        let mut told = None::<Instant>;
        self.say(lease, course.raised).await?;
        loop {
            self.shared.store.keep_lease(lease).await?;
            let (notes, map) = self.look().await?;
            let others = notes.iter().filter(|(other, _)| **other != self.node);
            course.heard.extend(others);
            let verdict = verdict(&Scene {
                node: self.node,
                own: self.own,
                notes: &notes,
                heard: &course.heard,
                store: map.revision(),
                remembered_up: &self.memory.up,
                up: &map.up().keys().copied().collect(),
                without: &self.shared.without,
                joins: self.joins,
            });
            self.stand(&verdict, map.revision(), lease, course).await?;
            match verdict {
                Verdict::Mine if begun.elapsed() < HEARS_OTHERS => {}
                Verdict::Mine if self.own.cold && map.revision() <= self.memory.revision => {
                    self.say(lease, true).await?;
                    course.raised = true;
                    // What is written from now on is known by its number to be no older than what is remembered.
                    self.shared.store.raise_revision(self.memory.revision).await?;
                }
                Verdict::Mine => {
                    self.put_back(lease).await?;
                    return self.end(&notes).await;
                }
                Verdict::Done => return self.end(&notes).await,
                Verdict::Late(why) => {
                    warn!(why, "what this node remembers is not put back");
                    return self.end(&notes).await;
                }
                Verdict::Others(sentence) | Verdict::Waits(sentence) => {
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        told = Some(Instant::now());
                        warn!("{sentence}");
                    }
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Says what the node remembers, as long as it lives, or until it takes it back.
    async fn say(&self, lease: LeaseId, raised: bool) -> Result<(), OperationError> {
        let key = Key::Recall(self.node).to_text();
        let record = encode(&RecallRecord { raised, ..self.own })?;
        let said = if raised {
            Transaction::new().put(key, record)
        } else {
            Transaction::new().put_leased(key, record, lease)
        };
        self.shared.store.commit(said).await?;
        Ok(())
    }

    /// The word of the one that is to put back stands also if the node dies, once the numbers are raised; that of one
    /// that leaves it to others goes with the node.
    async fn stand(
        &self,
        verdict: &Verdict,
        store: Revision,
        lease: LeaseId,
        course: &mut Course,
    ) -> Result<(), OperationError> {
        let raised = match verdict {
            Verdict::Mine | Verdict::Waits(_) => self.own.cold && store > self.memory.revision,
            Verdict::Others(_) => false,
            Verdict::Done | Verdict::Late(_) => return Ok(()),
        };
        if raised != course.raised {
            self.say(lease, raised).await?;
            course.raised = raised;
        }
        Ok(())
    }

    /// Takes back what the node says, and what those said who are lost for good.
    async fn end(&self, notes: &Notes) -> Result<(), OperationError> {
        let over = notes
            .keys()
            .filter(|node| **node == self.node || self.shared.without.contains(node));
        let ended = over.fold(Transaction::new(), |ended, node| {
            ended.delete(Key::Recall(*node).to_text())
        });
        if let Outcome::Committed(revision) = self.shared.store.commit(ended).await? {
            self.shared.map.at_least(revision).await;
        }
        Ok(())
    }

    /// What all say, and a map that is no older.
    async fn look(&self) -> Result<(Notes, Arc<ClusterMap>), OperationError> {
        let (notes, revision) = self.shared.notes().await?;
        Ok((notes, self.shared.map.at_least(revision).await))
    }

    async fn put_back(&self, lease: LeaseId) -> Result<(), OperationError> {
        let mut count = 0;
        for _ in 0..TRANSACTIONS_MAX {
            self.shared.store.keep_lease(lease).await?;
            let map = self.shared.fresh_map().await?;
            let changes = changes(&self.memory.records, &map.records()?, self.memory.revision);
            if changes.is_empty() {
                return self.tell(count).await;
            }
            let transaction = transaction(&changes[..changes.len().min(RECORDS_MAX)]);
            if let Outcome::Committed(revision) = self.shared.store.commit(transaction).await? {
                count += changes.len().min(RECORDS_MAX);
                self.shared.map.at_least(revision).await;
            }
        }
        Err(CoordinationError::Unavailable("the records change all the time".into()).into())
    }

    async fn tell(&self, count: usize) -> Result<(), OperationError> {
        info!(count, "lost records are back");
        if count == 0 {
            return Ok(());
        }
        let message = format!(
            "the coordination store went back to an older state, and {count} records were put back as {} remembered them",
            self.node
        );
        let mut told = event("records_recalled", "coordination store", message);
        told.severity = Severity::Warning;
        let number = self.shared.identities.next(Counter::Event).await?;
        let told = Transaction::new().put(Key::Event(number).to_text(), encode(&told)?);
        self.shared.store.commit(told).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
