//! Marks: how it is found out whether a transaction was made whose answer was lost.
//!
//! A transaction writes, beside its changes, a mark that names it, in a place that no other transaction
//! uses meanwhile, and on the condition that nobody has written there since. So it is made once at most,
//! however often it arrives; and if somebody else writes that place first, never. That is how a doubt is
//! ended: write there, on the same condition. Either the transaction's mark is found, or it is too late
//! for it for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng;
use tokio::sync::Mutex as AsyncMutex;

use super::core::{Core, IN_FLIGHT_MAX};
use super::layout::{one, put, read, unchanged};
use super::members::Miss;
use super::messages::{KeyValue, TransactionRequest, TransactionResponse, method};
use crate::store::CoordinationError;

/// How long marks stay when the process that made them is gone.
pub(super) const MARKS_TIME_TO_LIVE_S: u64 = 60;

/// A place for a mark.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) key: Vec<u8>,
    /// The etcd revision that wrote it last; zero if it is empty.
    pub(super) written: i64,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was made, at this etcd revision.
    Made(i64),
    /// It was not, and never will be.
    NotMade,
    /// The place is as neither of us has left it: its lease has lapsed, or etcd was restored.
    Unclear,
}

/// The marks of this process.
pub(super) struct Marks {
    instance: u64,
    next: AtomicU64,
    free: Mutex<Vec<Place>>,
    /// What all marks go away with.
    pub(super) lease: AsyncMutex<Option<i64>>,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self {
            instance: rand::rng().random(),
            next: AtomicU64::new(1),
            free: Mutex::default(),
            lease: AsyncMutex::default(),
        }
    }

    /// A text that no other transaction has, of any process.
    pub(super) fn name(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("made {:016x} {number}", self.instance).into_bytes()
    }

    /// A place that nobody uses.
    pub(super) fn take(&self, core: &Core) -> Place {
        self.free().pop().unwrap_or_else(|| Place {
            key: core
                .layout
                .mark(self.instance, self.next.fetch_add(1, Ordering::Relaxed)),
            written: 0,
        })
    }

    /// A place whose content is known may be used again.
    pub(super) fn give_back(&self, place: Place, written: i64) {
        let mut free = self.free();
        if free.len() < IN_FLIGHT_MAX {
            free.push(Place { written, ..place });
        }
    }

    /// Places that were used before are as nobody knows.
    pub(super) fn forget(&self) {
        self.free().clear();
    }

    fn free(&self) -> MutexGuard<'_, Vec<Place>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// The lease of marks; a new one if there is none.
    pub(super) async fn marks_lease(&self) -> Result<i64, CoordinationError> {
        let mut lease = self.marks.lease.lock().await;
        if let Some(lease) = *lease {
            return Ok(lease);
        }
        let granted = self.grant(MARKS_TIME_TO_LIVE_S).await?;
        Ok(*lease.insert(granted))
    }

    /// Whether the marks' lease is there and goes on. If it is not, marks are forgotten with it.
    pub(super) async fn keep_marks_lease(&self) -> Result<bool, CoordinationError> {
        let mut lease = self.marks.lease.lock().await;
        let Some(id) = *lease else { return Ok(false) };
        match self.keep(id).await {
            Ok(()) => Ok(true),
            Err(CoordinationError::NoLease) => {
                *lease = None;
                self.marks.forget();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the doubt about a transaction with this name, in one attempt. Gives also when the place was
    /// written last.
    pub(super) async fn end_doubt(&self, place: &Place, name: &[u8]) -> Result<(Fate, i64), Miss> {
        let mut void = b"not ".to_vec();
        void.extend_from_slice(name);
        let request = TransactionRequest {
            compare: vec![unchanged(&place.key, place.written)],
            success: vec![put(place.key.clone(), void.clone(), 0)],
            failure: vec![read(one(&place.key))],
        };
        let response: TransactionResponse = self.members.attempt(method::TRANSACTION, request).await?;
        if response.succeeded {
            let revision = response.header.map_or(0, |header| header.revision);
            return Ok((Fate::NotMade, revision));
        }
        let found = response
            .responses
            .into_iter()
            .next()
            .and_then(|result| result.range);
        let mark = found.and_then(|range| range.kvs.into_iter().next());
        Ok(read_mark(mark.as_ref(), name, &void))
    }
}

/// What a mark says of the transaction with this name.
fn read_mark(mark: Option<&KeyValue>, name: &[u8], void: &[u8]) -> (Fate, i64) {
    match mark {
        Some(mark) if mark.value == name => (Fate::Made(mark.mod_revision), mark.mod_revision),
        // An earlier attempt to end the doubt, whose answer was lost too.
        Some(mark) if mark.value == void => (Fate::NotMade, mark.mod_revision),
        _ => (Fate::Unclear, 0),
    }
}

#[cfg(test)]
mod tests {
    //! A mark tells of its own transaction only.
    use super::*;

    #[test]
    fn a_mark_tells_of_its_own_transaction_only() {
        let mark = |value: &[u8]| KeyValue {
            value: value.to_vec(),
            mod_revision: 7,
            ..KeyValue::default()
        };
        let read = |mark: Option<&KeyValue>| read_mark(mark, b"made 1 2", b"not made 1 2").0;
        assert_eq!(read(Some(&mark(b"made 1 2"))), Fate::Made(7));
        assert_eq!(read(Some(&mark(b"not made 1 2"))), Fate::NotMade);
        assert_eq!(read(Some(&mark(b"made 1 3"))), Fate::Unclear);
        assert_eq!(read(None), Fate::Unclear);
    }
}
