//! Puts back what the coordination store has lost: a store that was restored from an older backup under running nodes
//! knows nothing of what came later, which every node still has in its map.
//!
//! Old records are worse than none: a disk that was put out of its groups would count as in sync again, and a volume
//! would write to a layer that a snapshot has sealed since. So nothing is changed, granted or served on the ground of
//! the old records while somebody remembers newer ones: the node that remembers most puts its own back.
//!
//! What no running node remembers is lost. Owners' keys and other keys with a lease are left to those who hold them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coordination::keys::{Key, RECALLS};
use coordination::map::Records;
use coordination::records::{self, RecallRecord, Severity, encode};
use coordination::{ClusterMap, Compare, Coordination, CoordinationError, Outcome, Revision, Transaction};
use protocol::NodeId;
use tracing::{info, warn};

use crate::volumes::{OperationError, Plan, Volumes, event};

/// How long is waited for others who may remember more.
const HEARS_OTHERS: Duration = Duration::from_secs(3);
/// A node that dies while it puts records back is waited for so long.
const LEASE: Duration = Duration::from_secs(15);
/// Between attempts while the store cannot be reached.
const AGAIN: Duration = Duration::from_millis(500);
/// Records that are put back in one transaction: below the coordination store's limit.
const RECORDS_MAX: usize = 100;
/// Transactions until it is given up: more records than any cluster has.
const TRANSACTIONS_MAX: usize = 100_000;

/// Watches the map for ever: run it as a task.
pub async fn run(volumes: Arc<Volumes>, store: Arc<dyn Coordination>, node: NodeId) {
    let mut watch = volumes.watch();
    let mut before = watch.current_and_seen();
    while watch.changed().await {
        let now = watch.current_and_seen();
        match now.went_back(&before) {
            Ok(true) => {
                warn!("the coordination store went back to an older state: its records are not believed");
                volumes.recall(true);
                let recall = Recall {
                    volumes: &volumes,
                    store: store.as_ref(),
                    before: &before,
                    node,
                };
                recall.carry_out().await;
                volumes.recall(false);
                before = watch.current_and_seen();
            }
            Ok(false) => before = now,
            Err(error) => {
                warn!(%error, "it cannot be seen whether the coordination store went back");
                before = now;
            }
        }
    }
}

struct Recall<'a> {
    volumes: &'a Volumes,
    store: &'a dyn Coordination,
    /// What we remember.
    before: &'a ClusterMap,
    node: NodeId,
}

impl Recall<'_> {
    /// Until the records are as somebody remembered them.
    async fn carry_out(&self) {
        loop {
            match self.attempt().await {
                Ok(()) => return,
                Err(error) => warn!(%error, "lost records cannot be put back now, trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn attempt(&self) -> Result<(), OperationError> {
        let key = Key::Recall(self.node).to_text();
        let record = RecallRecord {
            revision: self.before.revision().0,
        };
        let lease = self.store.grant_lease(LEASE).await?;
        let put = Transaction::new().put_leased(key.clone(), encode(&record)?, lease);
        self.store.commit(put).await?;
        tokio::time::sleep(HEARS_OTHERS).await;
        let result = if self.remembers_most().await? {
            self.put_back().await
        } else {
            self.wait_for_others().await
        };
        // Whatever came of it: the others must not wait for the lease.
        let taken_back = self.store.revoke_lease(lease).await;
        result?;
        Ok(taken_back?)
    }

    async fn others(&self) -> Result<Vec<(u64, NodeId)>, OperationError> {
        let range = self.store.range(RECALLS).await?;
        let mut others = Vec::new();
        for entry in &range.entries {
            let record: RecallRecord = records::decode(entry).map_err(OperationError::from)?;
            if let Some(Key::Recall(node)) = Key::parse(&entry.key) {
                others.push((record.revision, node));
            }
        }
        Ok(others)
    }

    async fn remembers_most(&self) -> Result<bool, OperationError> {
        let most = self.others().await?.into_iter().max();
        Ok(most.is_none_or(|(_, node)| node == self.node))
    }

    /// Whoever remembers more takes his word back when he is done, or lapses.
    async fn wait_for_others(&self) -> Result<(), OperationError> {
        let mine = (self.before.revision().0, self.node);
        while self.others().await?.into_iter().any(|other| other > mine) {
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn put_back(&self) -> Result<(), OperationError> {
        let remembered = self.before.records()?;
        let mut count = 0;
        for _ in 0..TRANSACTIONS_MAX {
            let map = self.volumes.fresh_map().await?;
            let changes = changes(&remembered, &map.records()?, self.before.revision());
            if changes.is_empty() {
                self.tell(count).await?;
                return Ok(());
            }
            let transaction = transaction(&changes[..changes.len().min(RECORDS_MAX)]);
            if let Outcome::Committed(revision) = self.store.commit(transaction).await? {
                count += changes.len().min(RECORDS_MAX);
                self.volumes.watch().at_least(revision).await;
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
        self.volumes
            .carry_out_recalling(|_| Ok(Plan::decide(Transaction::new(), told.clone(), ())))
            .await
    }
}

/// One record to put back, or to delete again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    key: String,
    value: Option<Arc<[u8]>>,
    /// How the store has it now.
    condition: Compare,
}

/// What differs from what is remembered of the time before `seen`, and was not changed since the store went back. What
/// others build upon comes first: layers before the volumes whose heads they are.
fn changes(remembered: &Records, now: &Records, seen: Revision) -> Vec<Change> {
    let keys: BTreeSet<&String> = remembered.keys().chain(now.keys()).collect();
    let mut puts = Vec::new();
    let mut deletions = Vec::new();
    for key in keys {
        let (old, new) = (remembered.get(key), now.get(key));
        let touched = new.and_then(|new| new.modified).is_some_and(|at| at > seen);
        if touched || old.map(|old| &old.value) == new.map(|new| &new.value) {
            continue;
        }
        let condition = match new.map(|new| new.modified) {
            None => Compare::Absent(key.clone()),
            Some(Some(at)) => Compare::Modified(key.clone(), at),
            Some(None) => Compare::Present(key.clone()),
        };
        let key = key.clone();
        match old {
            Some(old) => puts.push(Change {
                key,
                value: Some(old.value.clone()),
                condition,
            }),
            None => deletions.push(Change {
                key,
                value: None,
                condition,
            }),
        }
    }
    puts.into_iter().chain(deletions).collect()
}

fn transaction(changes: &[Change]) -> Transaction {
    let mut transaction = Transaction::new();
    for Change {
        key,
        value,
        condition,
    } in changes
    {
        transaction = transaction.when(condition.clone());
        transaction = match value {
            Some(value) => transaction.put(key.clone(), value.clone()),
            None => transaction.delete(key.clone()),
        };
    }
    transaction
}

#[cfg(test)]
mod tests {
    //! What is put back, and what is left alone.
    use coordination::map::Remembered;

    use super::*;

    fn records(all: &[(&str, &str, u64)]) -> Records {
        let record = |(key, value, at): &(&str, &str, u64)| {
            let value = value.as_bytes().into();
            let modified = (*at > 0).then_some(Revision(*at));
            ((*key).to_owned(), Remembered { value, modified })
        };
        all.iter().map(record).collect()
    }

    #[test]
    fn what_was_changed_made_or_deleted_since_the_backup_is_so_again() {
        let remembered = records(&[("group", "new", 90), ("layer", "same", 0), ("volume", "made", 95)]);
        let now = records(&[
            ("group", "old", 10),
            ("layer", "same", 0),
            ("snapshot", "deleted since", 20),
        ]);
        let all = changes(&remembered, &now, Revision(100));
        let told: Vec<_> = all
            .iter()
            .map(|change| (change.key.as_str(), change.value.is_some()))
            .collect();
        assert_eq!(told, [("group", true), ("volume", true), ("snapshot", false)]);
        assert_eq!(all[0].condition, Compare::Modified("group".into(), Revision(10)));
        assert_eq!(all[1].condition, Compare::Absent("volume".into()));
        let made = transaction(&all);
        assert_eq!((made.compares.len(), made.changes.len()), (3, 3));
    }

    #[test]
    fn what_somebody_changed_after_the_store_went_back_is_left_alone() {
        let remembered = records(&[("node", "mine", 90)]);
        let now = records(&[("node", "newer", 2_000_000)]);
        assert!(changes(&remembered, &now, Revision(100)).is_empty());
    }
}
