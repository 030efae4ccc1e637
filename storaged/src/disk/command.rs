//! What the rest of the daemon may ask of a disk's thread.

use protocol::storage::{StorageError, StorageRequest};
use protocol::{FamilyId, LayerId};
use store::Statistics;
use tokio::sync::oneshot;

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
    /// Finish.
    Stop { answer: oneshot::Sender<()> },
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
    /// Why nothing more is written to the disk, if a write or a flush failed.
    pub poisoned: Option<String>,
}
