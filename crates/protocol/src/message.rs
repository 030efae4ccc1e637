//! What an owner and a replica say to each other. How it is laid out in bytes is `codec`'s business.
//!
//! A connection starts with [`Request::Hello`]. Requests are answered in any order and are matched
//! by the number in their frame; a replica applies the writes of one connection in the order sent.

use std::sync::Arc;

use bytes::Bytes;

use crate::geometry::BlockRange;
use crate::id::{DiskId, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, TreeRevision, VolumeId};
use crate::place::ChunkPlaces;
use crate::ranges::BlockRanges;
use crate::recovery::{Question, Told};
use crate::stamp::Stamp;
use crate::storage::{MapRun, ObjectDelta, ObjectState, ObjectWrite};

/// What every request about a volume's objects says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The placement group of the object.
    pub pg: PgId,
    /// The interval that the sender believes in (rule 2).
    pub interval: Interval,
    /// The volume.
    pub volume: VolumeId,
    /// The sender's generation; [`Generation`] 0 for a reader of a sealed layer, who needs none.
    pub generation: Generation,
    /// The layer tree's revision that the sender believes in (rule 2).
    pub revision: TreeRevision,
}

/// From an owner (or a reader) to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens a connection: who is there, and which protocol versions it speaks.
    Hello {
        /// Lowest version that the sender speaks.
        version_min: u16,
        /// Highest version that the sender speaks.
        version_max: u16,
        /// The cluster that the sender belongs to; all bytes zero before there is one.
        cluster: [u8; 16],
        /// The disk that it expects to find.
        disk: DiskId,
    },
    /// Take-over (rule 7 b): refuse lower generations from now on, and list what is in doubt.
    Fence {
        /// Whose group, interval and generation.
        scope: Scope,
        /// Whose objects.
        family: FamilyId,
        /// Continue after this object; nothing at first.
        after: Option<ObjectId>,
    },
    /// Read through the layers from `layer` down.
    Read {
        /// Where.
        scope: Scope,
        /// Whose object.
        family: FamilyId,
        /// The newest layer to look at.
        layer: LayerId,
        /// Which object.
        index: u32,
        /// Which blocks.
        range: BlockRange,
    },
    /// The same of several ranges, whose bytes come in one answer, in the order of the ranges. What one of them refuses
    /// is refused for all. Since version [`SEVERAL_SINCE`] of the messages.
    ReadSeveral {
        /// Where.
        scope: Scope,
        /// Whose object.
        family: FamilyId,
        /// The newest layer to look at.
        layer: LayerId,
        /// Which object.
        index: u32,
        /// Which blocks.
        ranges: BlockRanges,
    },
    /// Write or zero a range (rule 5).
    Write {
        /// Where.
        scope: Scope,
        /// What.
        write: ObjectWrite,
    },
    /// Which blocks hold data, through the layers from `layer` down. Also tells the stamp.
    Map {
        /// Where.
        scope: Scope,
        /// Whose object.
        family: FamilyId,
        /// The newest layer to look at.
        layer: LayerId,
        /// Which object.
        index: u32,
        /// Which blocks.
        range: BlockRange,
    },
    /// Take-over: give what of an object changed after `above`.
    Pull {
        /// Where.
        scope: Scope,
        /// Which object.
        object: ObjectId,
        /// What the other replica has.
        above: Stamp,
    },
    /// Take-over (rule 7 c): bring an object to one stamp, in one durable step.
    Level {
        /// Where.
        scope: Scope,
        /// The stamp that the object must have.
        follows: Stamp,
        /// What to apply.
        delta: ObjectDelta,
    },
    /// Nothing of this generation is unacknowledged in this group up to this count (rule 6).
    /// It has no answer.
    Complete {
        /// Where.
        scope: Scope,
        /// The count.
        up_to: u64,
    },
    /// I am on your machine: where are your files? Answered with [`Response::Shared`], or refused as
    /// invalid by a disk that does not let others read them.
    Share,
    /// Where the blocks of a range lie in the disk's file, through the layers from `layer` down: for
    /// reading them without asking (`docs/decisions/0031-direct-reads.md`). Judged like a read.
    Places {
        /// Where.
        scope: Scope,
        /// Whose object.
        family: FamilyId,
        /// The newest layer to look at.
        layer: LayerId,
        /// Which object.
        index: u32,
        /// Which blocks; all blocks of the chunks that it touches are meant.
        range: BlockRange,
    },
    /// I am on your machine: the data of my large writes is in memory that I share. The disk finds it as
    /// this descriptor of the process that connected (`docs/decisions/0032-shared-writes.md`). Answered
    /// with [`Response::Ok`], or refused as invalid if it cannot be opened.
    Area {
        /// The number of the descriptor.
        descriptor: u32,
    },
    /// A write of data that is in the shared memory.
    WriteShared {
        /// Where.
        scope: Scope,
        /// What, but for the bytes, of which there are none here. Its range has a whole chunk.
        write: ObjectWrite,
        /// Where in the memory the bytes begin; a multiple of 4096.
        at: u64,
    },
    /// From a disk that comes back. Answered with [`Response::Told`]. Since version 3 of the messages.
    Question(Question),
    /// Are you there, and have you room for new data? Also asks whether the interval and the
    /// generation still stand.
    Ping {
        /// Where.
        scope: Scope,
    },
    /// What there is of an object, layer by layer from `layer` down. Judged like a read. Answered with
    /// [`Response::Column`]. Since version [`ROWS_SINCE`] of the messages, as what follows.
    Column {
        /// Where.
        scope: Scope,
        /// Whose object.
        family: FamilyId,
        /// The newest layer to look at.
        layer: LayerId,
        /// Which object: a range's front or its rows (`rows`).
        index: u32,
    },
    /// Take-over of rows, and giving back what no version needs: make chunks of an object other ones, or none, in one
    /// durable step. The object is in doubt after.
    Replace {
        /// Where.
        scope: Scope,
        /// The stamp that the object must have.
        follows: Stamp,
        /// Each chunk replaces the whole chunk; one without blocks takes it away.
        delta: ObjectDelta,
    },
    /// Do interval and generation still stand, in all these groups? Nothing is asked about room. Answered with
    /// [`Response::Standing`]. Since version [`VOUCH_SINCE`] of the messages.
    Vouch(Vouch),
}

/// The groups of a volume that an owner asks one disk about at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouch {
    /// The volume.
    pub volume: VolumeId,
    /// The sender's generation.
    pub generation: Generation,
    /// The layer tree's revision that the sender believes in.
    pub revision: TreeRevision,
    /// Groups, and the intervals that the sender believes in; 1 to [`VOUCH_GROUPS_MAX`] of them.
    pub groups: Vec<(PgId, Interval)>,
}

impl Vouch {
    /// What a request about each of the groups would say first.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.groups.iter().map(|(pg, interval)| Scope {
            pg: *pg,
            interval: *interval,
            volume: self.volume,
            generation: self.generation,
            revision: self.revision,
        })
    }
}

/// From a replica to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The connection is open.
    Welcome {
        /// The version that both speak from now on.
        version: u16,
        /// The disk that answers.
        disk: DiskId,
    },
    /// The change is on stable storage; or: still there (to a ping).
    Ok,
    /// The volume's objects in doubt of one group, ascending.
    Doubt {
        /// Objects, their stamps, and the layers merged into them.
        objects: Vec<(ObjectId, Stamp)>,
        /// Whether to ask again, after the last of these.
        more: bool,
    },
    /// Bytes that were read, verified on the disk, with a CRC-32C for each block.
    Data {
        /// The stamp of the object in the layer that was asked for.
        stamp: Stamp,
        /// One a block.
        checksums: Arc<[u32]>,
        /// The bytes.
        bytes: Bytes,
    },
    /// Which blocks hold data.
    Map {
        /// The stamp of the object in the layer that was asked for.
        stamp: Stamp,
        /// Touching runs that cover the range, in order.
        runs: Vec<MapRun>,
    },
    /// What a pull found.
    Delta(ObjectDelta),
    /// Where the disk's files are, and which opening of the disk answers.
    Shared {
        /// The directory, as the disk's `storaged` names it; at most [`crate::place::PATH_MAX`] bytes.
        directory: Vec<u8>,
        /// Drawn anew each time the disk is opened; its witness file names it too.
        opening: [u8; 16],
    },
    /// Where blocks lie.
    Placed {
        /// The witness's count of admissions when this was judged.
        admission: u64,
        /// The chunks of the range, ascending.
        chunks: Vec<ChunkPlaces>,
    },
    /// What a disk that comes back asked for.
    Told(Told),
    /// What there is of an object.
    Column {
        /// One for each layer that was asked about and has something, ascending.
        objects: Vec<ObjectState>,
    },
    /// Which groups of a [`Request::Vouch`] do not stand, each with the reason. None: all of them stand.
    Standing {
        /// At most [`VOUCH_GROUPS_MAX`].
        refused: Vec<(PgId, Refusal)>,
    },
    /// Not done; nothing was changed unless the refusal says otherwise.
    Refused(Refusal),
}

impl Response {
    /// Whether a frame can carry it. All but a column fit always.
    pub fn fits(&self) -> bool {
        let Self::Column { objects } = self else {
            return true;
        };
        crate::recovery::states_fit(objects)
    }
}

/// The versions of these messages that this program speaks. Since version 2 there are `share` and `places`, since
/// version 3 the questions of disks that come back, since version 4 an owner's question about all its groups at once, since
/// version 5 the rows of erasure-coded pools, since version 6 reads of several ranges.
/// Both ends say what they speak; the highest that both do is spoken.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 1..=SEVERAL_SINCE;
/// The first version with [`Request::Vouch`].
pub const VOUCH_SINCE: u16 = 4;
/// The first version with [`Request::Column`], [`Request::Replace`] and writes with a floor.
pub const ROWS_SINCE: u16 = 5;
/// The first version with [`Request::ReadSeveral`].
pub const SEVERAL_SINCE: u16 = 6;
/// Groups in one [`Request::Vouch`]: half of the largest pool. The message is 4 KiB then, and is judged in microseconds.
pub const VOUCH_GROUPS_MAX: usize = 256;

/// The version that two who speak these speak with each other: the highest common one, if there is any.
pub fn common_version(
    ours: &std::ops::RangeInclusive<u16>,
    theirs: &std::ops::RangeInclusive<u16>,
) -> Option<u16> {
    let highest = *ours.end().min(theirs.end());
    let both = ours.contains(&highest) && theirs.contains(&highest);
    both.then_some(highest)
}

/// Why a replica did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not the disk or the cluster that was expected; the first programs say so too if no version is in common.
    #[error("this is not the disk, the cluster or the protocol version that you look for")]
    Stranger,
    /// The replica serves another interval of this group (rule 2).
    #[error("the placement group is in {0} here")]
    Interval(Interval),
    /// The replica knows another revision of the layer tree.
    #[error("the layer tree is at {0} here")]
    Revision(TreeRevision),
    /// A newer owner was here (rule 1).
    #[error("a newer owner, {0}, has this volume")]
    Fenced(Generation),
    /// The layer is sealed, or is not the head of this volume (rule 1).
    #[error("the layer takes no writes of this volume")]
    Sealed,
    /// The slot holds no data that may be read or fenced (rule 9).
    #[error("this disk is not in sync for the placement group")]
    NotInSync,
    /// The object is at this stamp, not at the one that the write follows (rule 5).
    #[error("the object is at stamp {0}, not at the one that the write follows")]
    Gap(Stamp),
    /// The bytes do not match their checksums.
    #[error("the bytes were damaged on the way")]
    Mismatch,
    /// The disk has no room for new data.
    #[error("the disk is full")]
    Full,
    /// Too many requests in flight: send it again when another one is answered.
    #[error("the disk has too many requests in flight")]
    Busy,
    /// A block is damaged on this disk: ask another replica.
    #[error("block {block} of object {index} is damaged on this disk")]
    Damaged {
        /// Which object of the family.
        index: u32,
        /// Which block.
        block: u32,
    },
    /// The disk is out of service.
    #[error("the disk is out of service")]
    Poisoned,
    /// The request makes no sense: a range past the end, a list too long.
    #[error("the request makes no sense")]
    Invalid,
    /// No version of the messages in common: the answer to a hello, and to nothing else.
    #[error(
        "the disk speaks versions {lowest} to {highest} of the messages: upgrade whichever of the two is older"
    )]
    Version {
        /// The oldest version that the disk speaks.
        lowest: u16,
        /// The newest one.
        highest: u16,
    },
}
