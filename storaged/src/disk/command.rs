//! What the rest of the daemon may ask of a disk's thread.

use std::time::Duration;

use protocol::storage::{StorageError, StorageRequest};
use protocol::{FamilyId, LayerId};
use replication::scrub::Order;
use store::Statistics;
use tokio::sync::oneshot;

use super::ledger::Entries;
use super::scrubs::{Report, Totals};

/// Indices of objects, ascending, and where to go on.
pub(super) type Objects = Result<(Vec<u32>, Option<u32>), StorageError>;

/// One command, with the way back for its answer.
#[derive(Debug)]
pub(super) enum Command {
    /// List a layer's objects.
    Objects {
        family: FamilyId,
        layer: LayerId,
        from_index: u32,
        limit: usize,
        answer: oneshot::Sender<Objects>,
    },
    /// Merge or drop an object.
    Reclaim {
        request: StorageRequest,
        answer: oneshot::Sender<Result<(), StorageError>>,
    },
    /// Tell the figures.
    Figures { answer: oneshot::Sender<Figures> },
    /// Tell what the layers of a family take, in bytes.
    Usage {
        family: FamilyId,
        answer: oneshot::Sender<Vec<(LayerId, u64)>>,
    },
    /// Tell how long things took.
    Times { answer: oneshot::Sender<Times> },
    /// Begin a scrub; answered with its number, or with nothing if there are too many.
    Scrub {
        order: Order,
        answer: oneshot::Sender<Option<u64>>,
    },
    /// Tell how far a scrub is.
    Scrubbed {
        run: u64,
        answer: oneshot::Sender<Option<Report>>,
    },
    /// Finish.
    Stop { answer: oneshot::Sender<()> },
}

/// How long things took on a disk since it was started, by kind.
#[derive(Clone, Debug)]
pub struct Times {
    /// From a request's being given to the store to its answer.
    pub requests: Entries,
    /// Of what the store asked its medium for.
    pub medium: Entries,
}

/// A disk's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The store's.
    pub store: Statistics,
    /// Connections that are open now.
    pub connections: u64,
    /// Requests that came since the start.
    pub requests: u64,
    /// What was copied to the disk because it had come back or was damaged, since the start, in bytes.
    pub copied: u64,
    /// What its scrubs found, since the start.
    pub scrubbed: Totals,
    /// For how long the oldest operation of its medium has been under way, if any is.
    pub oldest: Option<Duration>,
    /// Why nothing more is written to the disk, if a write or a flush failed.
    pub poisoned: Option<String>,
}
