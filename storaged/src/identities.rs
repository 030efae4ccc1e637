//! Gives out identities that nobody ever had: from counters in the coordination store.
//!
//! Numbers are reserved in blocks, so that most operations need no transaction of their own for
//! this. What is left of a block when `storaged` ends is never used.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use coordination::keys::{Counter, Key};
use coordination::records::{self, CounterRecord};
use coordination::{Compare, Coordination, Outcome, Transaction};
use tokio::sync::Mutex;

use crate::volumes::OperationError;

/// Numbers that are reserved at once, where many are needed.
const BLOCK: u64 = 64;
/// A store that was restored from a backup numbers its transactions above this, for it raises them by as
/// much (`Coordination::raise_revision`). Its counters have gone back, and disks may hold data of layers
/// that it has forgotten: their numbers must not be given out again. Every block cost a transaction, so
/// all numbers so far are below the last revision times [`BLOCK`].
const RAISED: u64 = 1 << 20;
/// Attempts against others that reserve at the same moment.
const ATTEMPTS_MAX: usize = 32;
/// The first number of each kind: 0 means none in many places.
const FIRST: u64 = 1;

/// Gives out identities.
pub struct Identities {
    store: Arc<dyn Coordination>,
    reserved: Mutex<HashMap<Counter, Range<u64>>>,
}

impl Identities {
    /// Identities from this store's counters.
    pub fn new(store: Arc<dyn Coordination>) -> Self {
        Self {
            store,
            reserved: Mutex::default(),
        }
    }

    /// A number that was never given out before.
    pub async fn next(&self, counter: Counter) -> Result<u64, OperationError> {
        let mut reserved = self.reserved.lock().await;
        if let Some(number) = reserved.get_mut(&counter).and_then(Iterator::next) {
            return Ok(number);
        }
        let block = match counter {
            Counter::Volume | Counter::Event => BLOCK,
            // Few of them are ever made, and people see the numbers: leave no gaps.
            Counter::Node | Counter::Disk | Counter::Pool => 1,
        };
        let mut range = self.reserve(counter, block).await?;
        let number = range.next().ok_or_else(OperationError::contended)?;
        reserved.insert(counter, range);
        Ok(number)
    }

    /// As [`Identities::next`], for kinds whose numbers have 32 bits.
    pub async fn next_short(&self, counter: Counter) -> Result<u32, OperationError> {
        u32::try_from(self.next(counter).await?)
            .map_err(|_| OperationError::Internal("all numbers of this kind are used up".to_owned()))
    }

    async fn reserve(&self, counter: Counter, block: u64) -> Result<Range<u64>, OperationError> {
        let key = Key::Counter(counter).to_text();
        for _ in 0..ATTEMPTS_MAX {
            let range = self.store.range(&key).await?;
            let entry = range.entries.into_iter().find(|entry| entry.key == key);
            let (next, compare) = match &entry {
                Some(entry) => {
                    let record: CounterRecord = records::decode(entry)?;
                    (record.next, Compare::Modified(key.clone(), entry.modified))
                }
                None => (FIRST, Compare::Absent(key.clone())),
            };
            let next = match counter {
                Counter::Volume if range.revision.0 > RAISED => {
                    next.max(range.revision.0.saturating_mul(BLOCK))
                }
                _ => next,
            };
            let used_up = || OperationError::Internal("all numbers of this kind are used up".to_owned());
            let end = next.checked_add(block).ok_or_else(used_up)?;
            let after = records::encode(&CounterRecord { next: end })?;
            let transaction = Transaction::new().when(compare).put(key.clone(), after);
            if let Outcome::Committed(_) = self.store.commit(transaction).await? {
                return Ok(next..end);
            }
        }
        Err(OperationError::contended())
    }
}

#[cfg(test)]
mod tests {
    //! No number twice: not among tasks, not after a restart.
    use super::*;
    use coordination::Embedded;

    #[tokio::test]
    async fn no_number_is_given_out_twice_even_after_a_restart_and_among_many() {
        let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
        let mut seen = std::collections::BTreeSet::new();
        for _restart in 0..3 {
            let identities = Arc::new(Identities::new(store.clone()));
            let others = Arc::new(Identities::new(store.clone()));
            for _ in 0..70 {
                let (a, b) = tokio::join!(identities.next(Counter::Volume), others.next(Counter::Volume));
                assert!(seen.insert(a.unwrap()));
                assert!(seen.insert(b.unwrap()));
            }
        }
        assert_eq!(seen.len(), 420);
        assert!(!seen.contains(&0));
    }

    #[tokio::test]
    async fn a_store_that_was_restored_gives_out_no_number_that_it_has_forgotten() {
        // Disks may still hold a layer of that number: a new volume would show its data.
        let lost = Arc::new(Embedded::in_memory().unwrap());
        let identities = Identities::new(lost.clone());
        let mut highest = 0;
        for _ in 0..200 {
            highest = identities.next(Counter::Volume).await.unwrap();
        }
        let seen = lost.range("/").await.unwrap().revision;
        let restored: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
        restored
            .raise_revision(coordination::Revision(seen.0 + RAISED))
            .await
            .unwrap();
        let identities = Identities::new(restored);
        assert!(identities.next(Counter::Volume).await.unwrap() > highest);
    }

    #[tokio::test]
    async fn numbers_that_people_see_leave_no_gaps() {
        let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
        for expected in 1..5 {
            let identities = Identities::new(store.clone());
            assert_eq!(identities.next_short(Counter::Disk).await.unwrap(), expected);
        }
    }
}
