//! What goes into a replica and what comes out: the whole of its contract with its driver.

use std::sync::Arc;

use protocol::map::MapView;
use protocol::message::{Refusal, Request, Response};
use protocol::recovery::{Question, Told};
use protocol::session::SlotState;
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, Generation, Interval, ObjectId, PgId, Stamp, VolumeId};

use crate::scrub::{Order, Progress};

/// Names one connection. The driver never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The map that requests are judged by.
pub type Map = Arc<dyn MapView + Send + Sync>;

/// What the store remembers from before: what a replica starts with.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The highest generation seen of each volume.
    pub generations: Vec<(VolumeId, Generation)>,
    /// The highest interval seen of each placement group.
    pub intervals: Vec<(PgId, Interval)>,
    /// The objects in doubt, and their stamps.
    pub doubts: Vec<(ObjectId, Stamp)>,
    /// Whether the process before may have answered a [`Request::Ping`] so lately that its word still counts.
    pub vouched: bool,
}

/// What happened.
#[derive(Clone)]
pub enum Event {
    /// The cluster map as it is from now on.
    Map(Map),
    /// A connection ended: nothing needs to be answered there any more.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// A request. [`Request::Hello`] is the driver's business and never comes here. The driver hands
    /// in the requests of one connection in the order in which they were sent.
    Request {
        /// On which connection.
        connection: ConnectionId,
        /// Its number.
        number: u64,
        /// What.
        request: Request,
    },
    /// A layer on its way out: merge or drop one object of it. It goes to the store when the map
    /// here says that nobody shows the layer any more, and when the reads that were begun at it
    /// before are done: they would look through the hole that it leaves.
    Reclaim {
        /// Comes back with [`Action::Reclaimed`].
        token: u64,
        /// A [`StorageRequest::Merge`] or a [`StorageRequest::Drop`].
        request: StorageRequest,
    },
    /// A disk that comes back asks, or one that looks after its copies.
    Question {
        /// Which disk.
        from: DiskId,
        /// Comes back with [`Action::Tell`].
        number: u64,
        /// What.
        question: Question,
    },
    /// The answer to [`Action::Question`]. One that is lost is answered as refused by the driver.
    Told {
        /// To which.
        number: u64,
        /// What.
        told: Result<Told, Refusal>,
    },
    /// The outcome of [`Action::Propose`] is known, and the map that shows it was handed in.
    Proposed {
        /// For which group.
        pg: PgId,
    },
    /// The time of [`Action::Alarm`] is over.
    Alarm {
        /// As in the action.
        volume: Option<VolumeId>,
    },
    /// Some time has passed, a fraction of a second: whoever comes back goes on.
    Nudge {
        /// Whether groups that we are out of may be asked for: not if the disk was put out again and again, or
        /// cannot be written.
        returns: bool,
    },
    /// A scrub begins; those that are under way go on after it.
    Scrub {
        /// Its number, never 0 and never used twice.
        run: u64,
        /// What to look at.
        order: Order,
    },
    /// A scrub may take its next step. Given after each [`Action::Scrubbed`], when it suits the driver; one that
    /// comes sooner does nothing.
    ScrubStep,
    /// The store's answer.
    Stored {
        /// The token of [`Action::Store`].
        token: u64,
        /// What.
        result: Result<StorageReply, StorageError>,
    },
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an answer.
    Reply {
        /// On which connection.
        connection: ConnectionId,
        /// To which request.
        number: u64,
        /// What.
        response: Response,
    },
    /// Hand a request to the store, after all that were handed to it before.
    Store {
        /// Comes back with [`Event::Stored`].
        token: u64,
        /// What.
        request: StorageRequest,
    },
    /// The answer to [`Event::Reclaim`].
    Reclaimed {
        /// Which.
        token: u64,
        /// How it ended.
        result: Result<(), StorageError>,
    },
    /// Ask another disk.
    Question {
        /// Which.
        to: DiskId,
        /// Comes back with [`Event::Told`].
        number: u64,
        /// What.
        question: Question,
    },
    /// The answer to [`Event::Question`].
    Tell {
        /// Which disk asked.
        to: DiskId,
        /// Its number.
        number: u64,
        /// What.
        told: Result<Told, Refusal>,
    },
    /// Make a compare-and-swap of our own slot's state, if the group is still in this interval.
    Propose {
        /// Which group.
        pg: PgId,
        /// In which interval.
        interval: Interval,
        /// The state that we have.
        from: SlotState,
        /// The state that we want.
        to: SlotState,
    },
    /// How a scrub goes on.
    Scrubbed {
        /// Which; 0 for what was looked at because somebody met it as damaged.
        run: u64,
        /// How.
        progress: Progress,
    },
    /// Hand in [`Event::Alarm`] after so much time.
    Alarm {
        /// Which volume's next owner waits for it; nothing: what may have been said before a restart is too old then.
        volume: Option<VolumeId>,
        /// In milliseconds.
        after_ms: u64,
    },
    /// Some request that was let in before may be refused from now on. Whoever reads the disk's file
    /// by what he was told before must ask anew: he is told so before anything else is answered.
    Readmit,
    /// A sender knows a newer map. Hand in [`Event::Map`] when a newer one is there.
    Refresh,
}
