//! The rules of the embedded store: what a transaction does to the keys, and when leases lapse.
//!
//! Pure: time is a number that comes in, and what must be made durable comes out. The simulator
//! uses it as it is; [`crate::embedded`] puts a database and a thread around it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use crate::store::{
    Batch, Change, Compare, CoordinationError, Entry, Event, LeaseId, Outcome, REVISION_FLOOR_MAX, Range,
    Revision, TRANSACTION_LENGTH_MAX, TRANSACTION_STEPS_MAX, Transaction,
};

/// The longest key, in bytes: room for the longest name twice and then some.
pub const KEY_LENGTH_MAX: usize = 512;
/// The largest value, in bytes. Records are far smaller; etcd's limit for a request is 1.5 MiB.
pub const VALUE_LENGTH_MAX: usize = 256 * 1024;
/// Transactions that are remembered for watches that begin in the past.
pub const HISTORY_MAX: usize = 4096;

#[derive(Debug)]
struct Lease {
    time_to_live_ms: u64,
    /// Nothing until the first look at the clock after a restart: the time starts anew then.
    lapses_at_ms: Option<u64>,
    keys: BTreeSet<String>,
}

/// What must be on stable storage before a transaction is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What changed, as watchers see it.
    pub batch: Arc<Batch>,
    /// The lease that is gone, if this is its end.
    pub lease_gone: Option<LeaseId>,
}

/// Keys, leases and the recent past.
#[derive(Debug, Default)]
pub struct Engine {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: u64,
    history: VecDeque<Arc<Batch>>,
    /// Batches up to this one are forgotten.
    forgotten: Revision,
}

impl Engine {
    /// A store as it was read back: its entries, its leases with their times to live in
    /// milliseconds, the last revision, and the lowest lease number never given out.
    pub fn restore(
        revision: Revision,
        entries: impl IntoIterator<Item = Entry>,
        leases: impl IntoIterator<Item = (LeaseId, u64)>,
        next_lease: u64,
    ) -> Self {
        let mut engine = Self {
            revision,
            forgotten: revision,
            next_lease,
            ..Self::default()
        };
        for (id, time_to_live_ms) in leases {
            let lease = Lease {
                time_to_live_ms,
                lapses_at_ms: None,
                keys: BTreeSet::new(),
            };
            engine.leases.insert(id, lease);
        }
        for entry in entries {
            if let Some(lease) = entry.lease.and_then(|id| engine.leases.get_mut(&id)) {
                lease.keys.insert(entry.key.clone());
            }
            engine.entries.insert(entry.key.clone(), entry);
        }
        engine
    }

    /// The last transaction.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The lowest lease number never given out.
    pub fn next_lease(&self) -> u64 {
        self.next_lease
    }

    /// One key.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).cloned()
    }

    /// All keys that begin with `prefix`.
    pub fn range(&self, prefix: &str) -> Range {
        let entries = self
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect();
        Range {
            entries,
            revision: self.revision,
        }
    }

    /// Applies a transaction if its conditions hold. With an effect, it must be made durable before
    /// anybody is told of the outcome.
    pub fn commit(
        &mut self,
        transaction: &Transaction,
    ) -> Result<(Outcome, Option<Effect>), CoordinationError> {
        check_limits(transaction)?;
        if !transaction.compares.iter().all(|compare| self.holds(compare)) {
            return Ok((Outcome::Conflict(self.revision), None));
        }
        for change in &transaction.changes {
            if let Change::Put {
                lease: Some(lease), ..
            } = change
                && !self.leases.contains_key(lease)
            {
                return Err(CoordinationError::NoLease);
            }
        }
        let effect = self.apply(&transaction.changes, None);
        Ok((Outcome::Committed(self.revision), Some(effect)))
    }

    /// Revisions from now on are above `floor`. With an effect, it must be made durable before it is
    /// told; nothing if that is so already.
    pub fn raise_revision(&mut self, floor: Revision) -> Result<Option<Effect>, CoordinationError> {
        check_floor(floor)?;
        Ok((self.revision < floor).then(|| {
            self.revision = floor;
            self.apply(&[], None)
        }))
    }

    /// A new lease. It must be made durable, with [`Engine::next_lease`], before it is told.
    pub fn grant_lease(&mut self, now_ms: u64, time_to_live_ms: u64) -> LeaseId {
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let lapses_at_ms = Some(now_ms.saturating_add(time_to_live_ms));
        self.leases.insert(
            id,
            Lease {
                time_to_live_ms,
                lapses_at_ms,
                keys: BTreeSet::new(),
            },
        );
        id
    }

    /// Starts a lease's time anew.
    pub fn keep_lease(&mut self, now_ms: u64, id: LeaseId) -> Result<(), CoordinationError> {
        let lease = self.leases.get_mut(&id).ok_or(CoordinationError::NoLease)?;
        lease.lapses_at_ms = Some(now_ms.saturating_add(lease.time_to_live_ms));
        Ok(())
    }

    /// Ends a lease and deletes its keys. Nothing if there is no such lease.
    pub fn revoke_lease(&mut self, id: LeaseId) -> Option<Effect> {
        let lease = self.leases.remove(&id)?;
        let deletions: Vec<_> = lease.keys.into_iter().map(Change::Delete).collect();
        Some(self.apply(&deletions, Some(id)))
    }

    /// Ends all leases whose time is over. Also starts the time of those that were read back.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut over = Vec::new();
        for (id, lease) in &mut self.leases {
            let lapses_at_ms = *lease
                .lapses_at_ms
                .get_or_insert(now_ms.saturating_add(lease.time_to_live_ms));
            if lapses_at_ms <= now_ms {
                over.push(*id);
            }
        }
        over.into_iter().filter_map(|id| self.revoke_lease(id)).collect()
    }

    /// When the next lease lapses, if nobody keeps it; at once for those just read back.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.leases
            .values()
            .map(|lease| lease.lapses_at_ms.unwrap_or(0))
            .min()
    }

    /// What changed after a revision, or [`CoordinationError::Compacted`] if that is forgotten.
    pub fn since(&self, after: Revision) -> Result<Vec<Arc<Batch>>, CoordinationError> {
        if after < self.forgotten {
            return Err(CoordinationError::Compacted(after));
        }
        Ok(self
            .history
            .iter()
            .filter(|batch| batch.revision > after)
            .cloned()
            .collect())
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Present(key) => self.entries.contains_key(key),
            Compare::Modified(key, revision) => self
                .entries
                .get(key)
                .is_some_and(|entry| entry.modified == *revision),
            Compare::Created(key, revision) => self
                .entries
                .get(key)
                .is_some_and(|entry| entry.created == *revision),
        }
    }

    fn apply(&mut self, changes: &[Change], lease_gone: Option<LeaseId>) -> Effect {
        self.revision.0 += 1;
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put { key, value, lease } => events.push(self.put(key, value, *lease)),
                Change::Delete(key) => {
                    if let Some(old) = self.entries.remove(key) {
                        self.unbind(&old);
                        events.push(Event::Deleted(key.clone()));
                    }
                }
            }
        }
        let batch = Arc::new(Batch {
            revision: self.revision,
            events,
        });
        self.history.push_back(batch.clone());
        if self.history.len() > HISTORY_MAX
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.revision;
        }
        Effect { batch, lease_gone }
    }

    fn put(&mut self, key: &str, value: &Arc<[u8]>, lease: Option<LeaseId>) -> Event {
        let old = self.entries.remove(key);
        if let Some(old) = &old {
            self.unbind(old);
        }
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.to_owned());
        }
        let entry = Entry {
            key: key.to_owned(),
            value: value.clone(),
            created: old.map_or(self.revision, |old| old.created),
            modified: self.revision,
            lease,
        };
        self.entries.insert(key.to_owned(), entry.clone());
        Event::Put(entry)
    }

    fn unbind(&mut self, entry: &Entry) {
        if let Some(lease) = entry.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(&entry.key);
        }
    }
}

/// Whether revisions may be raised so far.
pub(crate) fn check_floor(floor: Revision) -> Result<(), CoordinationError> {
    if floor < REVISION_FLOOR_MAX {
        return Ok(());
    }
    let message = format!("{floor} is near the end of all numbers: whoever remembers it is mistaken");
    Err(CoordinationError::Invalid(message.into()))
}

/// Whether a transaction keeps the limits that are the same for every store.
pub(crate) fn check_limits(transaction: &Transaction) -> Result<(), CoordinationError> {
    let invalid = |message: String| Err(CoordinationError::Invalid(message.into()));
    if transaction.compares.len() > TRANSACTION_STEPS_MAX || transaction.changes.len() > TRANSACTION_STEPS_MAX
    {
        return invalid(format!(
            "a transaction has more than {TRANSACTION_STEPS_MAX} steps"
        ));
    }
    let conditions = transaction.compares.iter().map(|compare| compare.key().len());
    let mut length: usize = conditions.sum();
    let mut changed = HashSet::new();
    for change in &transaction.changes {
        let (key, value_length) = match change {
            Change::Put { key, value, .. } => (key, value.len()),
            Change::Delete(key) => (key, 0),
        };
        if key.is_empty() || key.len() > KEY_LENGTH_MAX {
            return invalid(format!(
                "a key has 1 to {KEY_LENGTH_MAX} bytes, not {}",
                key.len()
            ));
        }
        if value_length > VALUE_LENGTH_MAX {
            return invalid(format!(
                "the value of {key} is larger than {VALUE_LENGTH_MAX} bytes"
            ));
        }
        length += key.len() + value_length;
        if !changed.insert(key) {
            return invalid(format!("{key} is changed twice in one transaction"));
        }
    }
    if length > TRANSACTION_LENGTH_MAX {
        return invalid(format!(
            "a transaction of {length} bytes is larger than {TRANSACTION_LENGTH_MAX}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
