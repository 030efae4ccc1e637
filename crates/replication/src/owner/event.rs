//! What goes into an owner and what comes out: the whole of its contract with its driver.

use std::sync::Arc;

use bytes::Bytes;
use protocol::DiskId;
use protocol::message::{Request, Response};
use protocol::session::{DiskView, VolumeView};
use protocol::storage::MapKind;

use crate::moment::Moment;

/// Names one operation of the device layer. The driver never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// What the device layer wants done. Offsets and lengths are in bytes, multiples of 4096; a length
/// is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read; answered with [`Outcome::Data`].
    Read {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// Write.
    Write {
        /// Where to.
        offset: u64,
        /// What. The bytes never change any more: a copy of guest memory, not a view of it (Q3).
        bytes: Bytes,
        /// One CRC-32C for each 4 KiB block, in order.
        checksums: Arc<[u32]>,
    },
    /// Make the range read as zeros and give its space back: write-zeroes and discard alike.
    Zero {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// Answered when all writes that were submitted before are answered.
    Flush,
    /// Which parts of a range hold data; answered with [`Outcome::Map`].
    Map {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
}

/// The answer to an [`Operation`] that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write, a zero or a flush is done, durably, on all replicas in sync.
    Done,
    /// What was read, in pieces, in order.
    Data(Vec<Bytes>),
    /// Runs that touch and cover the range, in order: length in bytes, and what is there.
    Map(Vec<(u64, MapKind)>),
}

/// Why an [`Operation`] was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Beyond the end, not aligned, or empty. Nothing was done.
    #[error("the request is not aligned, is empty, or leaves the volume")]
    Invalid,
    /// The volume is open for reading only. Nothing was done.
    #[error("the volume is open for reading only")]
    ReadOnly,
    /// Every replica in sync was asked, and none has a good copy of the block.
    #[error("no disk has a good copy of the 4 KiB block at byte {offset}")]
    Damaged {
        /// The block's offset in bytes.
        offset: u64,
    },
    /// No room for new data. Nothing was written: a write is refused before it is sent anywhere.
    #[error("the pool is full: discard or delete something, or add a disk")]
    Full,
    /// Somebody else owns the volume now. Whether a write was done is for them to see.
    #[error("the volume was taken over by another process")]
    Lost,
    /// The volume was closed.
    #[error("the volume is closed")]
    Closed,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The volume as it is from now on: pushed, or the answer to [`Action::WantView`]. Ends a
    /// quiescence. A view of another volume or generation, or an older one, is ignored.
    View(Box<VolumeView>),
    /// The device layer wants something done.
    Submit {
        /// Comes back with [`Action::Complete`].
        id: IoId,
        /// What.
        operation: Operation,
    },
    /// A connection that [`Action::Connect`] asked for is open: Hello and Welcome are exchanged.
    Connected {
        /// To which disk.
        disk: DiskId,
        /// The version of the messages that both ends speak ([`protocol::message::VERSIONS`]).
        version: u16,
    },
    /// A connection ended. No answer of it comes after this. The driver connects again by itself,
    /// with pauses, until [`Action::Disconnect`].
    Disconnected {
        /// To which disk.
        disk: DiskId,
    },
    /// An answer. The driver has checked the bytes of a read against their checksums, and hands in
    /// `Refused(Mismatch)` in place of an answer that does not match.
    Response {
        /// From which disk.
        disk: DiskId,
        /// To which request.
        number: u64,
        /// What.
        response: Response,
    },
    /// The bytes of a [`Request::Read`], which the driver read from the disk's own file instead of
    /// sending the request: verified, and still where the disk had said when they were there.
    /// Unlike an answer they come without the object's stamp.
    ReadDirectly {
        /// From which disk.
        disk: DiskId,
        /// The request's number.
        number: u64,
        /// As many as were asked for.
        bytes: Bytes,
    },
    /// The lease was renewed.
    Renewed {
        /// When the renewal was *sent* (rule 1).
        sent: Moment,
    },
    /// This generation is over, as the coordination store says: the lease lapsed, or somebody else has the volume.
    Revoked,
    /// The volume was taken again after [`Action::Deposed`], and nobody had it open in between: it is taken over
    /// anew, and what was not answered is done again.
    Again {
        /// When the request was *sent* that took it.
        leased: Moment,
        /// The volume as it is now, with the new generation.
        view: Box<VolumeView>,
    },
    /// It cannot be taken again: somebody has had it open since, or it is gone.
    Lost,
    /// Hold new writes, and say [`Action::Quiesced`] when all that were sent are acknowledged. Held
    /// until the next [`Event::View`]; given up if the drain takes longer than the limit.
    Quiesce {
        /// Comes back with [`Action::Quiesced`].
        token: u64,
        /// How long the drain may take, in milliseconds.
        limit_ms: u64,
    },
    /// Finish what was submitted, tell the replicas what is complete, then say [`Action::Closed`].
    Close,
    /// Time has passed; see [`super::Owner::deadline`].
    Tick,
}

/// What the driver must do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Keep a connection to this disk from now on; also given when its addresses changed.
    Connect(DiskView),
    /// Close the connection to this disk, and open no other. No [`Event::Disconnected`] is needed.
    Disconnect {
        /// Which disk.
        disk: DiskId,
    },
    /// The connection is silent: close it, report [`Event::Disconnected`], connect again.
    Reset {
        /// Which disk.
        disk: DiskId,
    },
    /// Send a request on the open connection, after all that were sent before.
    Send {
        /// To which disk.
        disk: DiskId,
        /// The request's number: unique over all of this owner's connections.
        number: u64,
        /// What. [`Request::Complete`] has no answer.
        request: Request,
    },
    /// The take-over is done: the volume is open. Operations that were submitted before go on.
    Opened,
    /// An operation is answered. Once for each that was submitted.
    Complete {
        /// Which.
        id: IoId,
        /// How.
        result: Result<Outcome, Failure>,
    },
    /// Renew the lease now, and report [`Event::Renewed`] if that went well.
    Renew,
    /// The view seems to be out of date: ask `storaged` for the present one.
    WantView,
    /// A disk refuses, stalls or lost something: say so to `storaged` and in the log (rule 4).
    Suspect {
        /// Which disk.
        disk: DiskId,
        /// Why, for people.
        reason: String,
    },
    /// A disk answers, and far more slowly than the others that get the same writes: say so to `storaged`. Again
    /// every few seconds while it is so.
    Slow {
        /// Which disk.
        disk: DiskId,
        /// Why, for people.
        reason: String,
    },
    /// All writes sent are acknowledged and new ones are held.
    Quiesced {
        /// The token of [`Event::Quiesce`].
        token: u64,
    },
    /// The size in bytes is another one now.
    Resized(u64),
    /// The generation is over, and nothing is sent any more: ask whether the volume can be taken again, and report
    /// [`Event::Again`] or [`Event::Lost`]. Operations wait meanwhile.
    Deposed,
    /// The volume belongs to somebody else. Everything was and will be answered with
    /// [`Failure::Lost`]; all connections may be closed.
    Lost,
    /// The answer to [`Event::Close`]: the key may be given back, the connections closed.
    Closed,
}
