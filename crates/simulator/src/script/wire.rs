//! What is under way in a script, and where.

use std::sync::Arc;

use coordination::map::ClusterMap;
use protocol::message::{Refusal, Request, Response};
use protocol::recovery::{Question, Told};
use protocol::session::{SlotState, VolumeView};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, Interval, PgId};
use replication::Moment;
use replication::replica::ConnectionId;

use super::Front;

/// Where something is under way. What lies on one wire comes in the order in which it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wire {
    /// From an owner to a disk: requests.
    ToDisk(Front, DiskId),
    /// From a disk to an owner: answers, and that the connection is up.
    FromDisk(Front, DiskId),
    /// From `storaged` to an owner: views, and that its lease is renewed.
    View(Front),
    /// From a disk to its medium: what is to become durable.
    Medium(DiskId),
    /// From `storaged` to a disk: maps, and that the outcome of a swap is known.
    Map(DiskId),
    /// From a disk to the coordination store: swaps of its own state.
    Swap(DiskId),
    /// From a disk to its source, and back.
    Question(DiskId),
    Told(DiskId),
}

/// What is under way.
pub(super) enum Mail {
    Request(ConnectionId, u64, Request),
    Closed(ConnectionId),
    Connected(Front, DiskId),
    Response(ConnectionId, u64, Response),
    View(Front, Box<VolumeView>),
    Renewed(Front, Moment),
    /// A token, and what is looked up; nothing if it is the next of the queue that becomes durable.
    Stored(DiskId, u64, Option<StorageRequest>),
    Answered(DiskId, u64, Result<StorageReply, StorageError>),
    Map(DiskId, Arc<ClusterMap>),
    Proposed(DiskId, PgId),
    Swap(DiskId, (PgId, Interval), (SlotState, SlotState)),
    Question(DiskId, DiskId, u64, Box<Question>),
    Told(DiskId, u64, Box<Result<Told, Refusal>>),
}
