//! The seam: what a coordination store must be able to do, and no more.
//!
//! Modelled after what etcd gives, because that is the second implementation. Keys are text with
//! `/` between their parts; values are bytes whose meaning only [`crate::records`] knows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Batches of events that a watch may fall behind before it is ended; its user lists again then.
/// A guess: far more than a burst of operations makes, and a few hundred KiB at most.
pub const WATCH_BACKLOG_MAX: usize = 1024;
/// Conditions and changes in one transaction, each. etcd takes 128 unless told otherwise, and some of
/// them are needed for what this crate adds; the other stores keep to it too, so that what works with
/// one works with all. What needs more is made in several transactions, by those who know how.
pub const TRANSACTION_STEPS_MAX: usize = 120;
/// Bytes of keys and values in one transaction, those of its conditions included. etcd takes requests of
/// 1.5 MiB unless told otherwise; the rest is for prefixes and frames.
pub const TRANSACTION_LENGTH_MAX: usize = 1280 * 1024;
/// Revisions are not raised further: a higher one is nonsense, and would leave no numbers.
pub const REVISION_FLOOR_MAX: Revision = Revision(1 << 62);

/// The number of the transaction that changed something last. Grows with each transaction
/// that commits, over all keys, and never goes back, not even if the store is restored from a backup
/// (see [`Coordination::raise_revision`]). Zero is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}", self.0)
    }
}

/// A lease: keys that are bound to it are deleted when it lapses or is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

/// A key with its value and its history in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Arc<[u8]>,
    /// The transaction that made the key; it stays until the key is deleted.
    pub created: Revision,
    /// The transaction that changed the key last.
    pub modified: Revision,
    /// The lease that it goes away with.
    pub lease: Option<LeaseId>,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Present(String),
    /// The key exists and was changed last by this transaction.
    Modified(String, Revision),
    /// The key exists and was made by this transaction.
    Created(String, Revision),
}

impl Compare {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Modified(key, _) | Self::Created(key, _) => key,
        }
    }
}

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make or replace a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Arc<[u8]>,
        /// The lease that it goes away with; the transaction fails if there is no such lease.
        lease: Option<LeaseId>,
    },
    /// Delete a key; nothing to do if it is absent.
    Delete(String),
}

/// Changes that are made all or none, if all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The conditions. Each is checked against the store as it is before the changes.
    pub compares: Vec<Compare>,
    /// The changes, in order. A key is changed once at most.
    pub changes: Vec<Change>,
}

impl Transaction {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a key to make or replace.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Arc<[u8]>>) -> Self {
        self.changes.push(Change::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Adds a key to make or replace, that goes away with a lease.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Arc<[u8]>>, lease: LeaseId) -> Self {
        self.changes.push(Change::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        });
        self
    }

    /// Adds a key to delete.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.changes.push(Change::Delete(key.into()));
        self
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on stable storage, with this revision.
    Committed(Revision),
    /// A condition did not hold; nothing was changed. The store was at this revision.
    Conflict(Revision),
}

/// All keys with a prefix, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The entries, by key.
    pub entries: Vec<Entry>,
    /// What the whole is at: watch from here on.
    pub revision: Revision,
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was made or replaced.
    Put(Entry),
    /// The key was deleted, by a transaction or with its lease.
    Deleted(String),
}

/// All that one transaction changed among the keys of a watch. With no events it changed others, and
/// only tells how far the watch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The transaction.
    pub revision: Revision,
    /// What it changed, in the order of its changes.
    pub events: Vec<Event>,
}

/// The watch ended: the store is gone, or the watcher fell behind. List again, then watch again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch ended: list the keys again")]
pub struct WatchEnded;

/// A stream of changes, in the order of revisions, none left out.
#[derive(Debug)]
pub struct Watch(mpsc::Receiver<Batch>);

impl Watch {
    /// A watch that is fed by the returned sender. Dropping the sender ends it.
    pub fn channel() -> (mpsc::Sender<Batch>, Self) {
        let (sender, receiver) = mpsc::channel(WATCH_BACKLOG_MAX);
        (sender, Self(receiver))
    }

    /// The next transaction. Safe to cancel.
    pub async fn next(&mut self) -> Result<Batch, WatchEnded> {
        self.0.recv().await.ok_or(WatchEnded)
    }
}

/// Why the coordination store did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    /// It cannot be reached, or is shutting down. Nothing was changed.
    #[error("the coordination store is not available: {0}")]
    Unavailable(Arc<str>),
    /// The answer to a transaction was lost, and what became of it could not be found out in time. It
    /// may have been made, and may even be made yet: read it back, and rely on its not being made only
    /// after another transaction that excludes it.
    #[error("it is not known whether the change was made, the coordination store did not answer: {0}")]
    Unknown(Arc<str>),
    /// Its storage failed. It takes no more changes until it is opened again.
    #[error("the coordination store is out of service after a failed write: {0}")]
    Failed(Arc<str>),
    /// There is no such lease: it lapsed, or was revoked.
    #[error("the lease has lapsed")]
    NoLease,
    /// The revision to watch from is no longer remembered: list again.
    #[error("changes since {0} are no longer remembered: list the keys again")]
    Compacted(Revision),
    /// The request breaks a limit or a rule of this seam.
    #[error("the coordination store refuses the request: {0}")]
    Invalid(Arc<str>),
}

/// A coordination store. Linearizable; whatever it says was changed is on stable storage.
#[async_trait]
pub trait Coordination: Send + Sync + 'static {
    /// One key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, CoordinationError>;

    /// All keys that begin with `prefix`, in order.
    async fn range(&self, prefix: &str) -> Result<Range, CoordinationError>;

    /// Makes the changes if all conditions hold. If the caller stops waiting, it may be made all the same.
    async fn commit(&self, transaction: Transaction) -> Result<Outcome, CoordinationError>;

    /// Every transaction after `after`, with its changes of keys that begin with `prefix`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, CoordinationError>;

    /// Revisions from now on are above `floor`. For those who remember a higher revision than the store
    /// does: it was restored from a backup, and must not give a number a second time. Nothing to do if
    /// that is so already.
    async fn raise_revision(&self, floor: Revision) -> Result<(), CoordinationError>;

    /// A new lease that lapses when it was not kept for `time_to_live`, or somewhat longer if the store
    /// cannot count so finely. It survives a restart of the store, and then starts its time anew.
    async fn grant_lease(&self, time_to_live: Duration) -> Result<LeaseId, CoordinationError>;

    /// Starts a lease's time anew.
    async fn keep_lease(&self, lease: LeaseId) -> Result<(), CoordinationError>;

    /// Ends a lease: its keys are deleted in one transaction. Nothing to do if it is gone.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), CoordinationError>;
}
