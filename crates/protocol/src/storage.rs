//! What a replica asks of its disk, and what the disk answers.
//!
//! The replica state machine emits these, a store carries them out, and the simulator does both.
//! A store knows objects, stamps and bytes; it knows nothing of owners, placement groups' members
//! or sockets. Every answer to a request that changes something means: it is on stable storage.

use std::sync::Arc;

use bytes::Bytes;

use crate::geometry::BlockRange;
use crate::id::{FamilyId, Generation, Interval, LayerId, ObjectId, PgId, VolumeId};
use crate::layer::LayerChain;
use crate::place::ChunkPlaces;
use crate::ranges::BlockRanges;
use crate::stamp::Stamp;

/// What to do with the bytes of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Store these bytes: one CRC-32C for each 4 KiB block, made by the owner before the first send.
    Data {
        /// As long as the range. Cheap to clone. A 4 KiB-aligned address avoids a copy.
        bytes: Bytes,
        /// One a block, in order.
        checksums: Arc<[u32]>,
    },
    /// Make the range read as zeros and give its space back. Hides what parent layers hold.
    Zero,
}

/// A write that names the write it follows (rule 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectWrite {
    /// What is written to.
    pub object: ObjectId,
    /// The stamp that the object must have for this to be applied.
    pub follows: Stamp,
    /// The stamp that it has then.
    pub stamp: Stamp,
    /// Which blocks.
    pub range: BlockRange,
    /// To what.
    pub change: Change,
    /// Whether the store may use the room that it keeps back. Set when another replica may have
    /// applied this very write already: then it must be applied everywhere, full disk or not
    /// (`docs/decisions/0010-full-disks.md`).
    pub use_reserve: bool,
    /// Of the chunks that the range touches, those with an older stamp than this lose the blocks that they have, in the
    /// same durable step: their row was written since (`docs/decisions/0052-rows-by-the-model.md`, rule
    /// `FreshAfterRow`). [`Stamp::ZERO`]: none do.
    pub floor: Stamp,
}

/// One chunk's state as it travels between replicas when they are made level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkState {
    /// Which chunk of the object, 0 to 63.
    pub chunk: u8,
    /// The write that the chunk had last.
    pub stamp: Stamp,
    /// Blocks that this layer holds, zero ones included: bit i is block i of the chunk.
    pub present: u16,
    /// Blocks among `present` that read as zeros and have no bytes.
    pub zero: u16,
}

/// Everything of an object that changed after some stamp: brings a replica from there to `stamp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDelta {
    /// Whose state this is.
    pub object: ObjectId,
    /// The object's stamp after this is applied.
    pub stamp: Stamp,
    /// Layers whose content was merged into the object.
    pub merged: Vec<LayerId>,
    /// The chunks that changed, ascending. Each replaces the blocks that it names as present, with
    /// their bytes or zeros, and the chunk's stamp. Blocks that it does not name stay as they are:
    /// presence in a layer only grows, so such a block came from a parent that was merged here
    /// already and at the source not yet.
    pub chunks: Vec<ChunkState>,
    /// One for each block that is present and not zero, in the order of chunks and blocks.
    pub checksums: Arc<[u32]>,
    /// The bytes of these blocks, in the same order.
    pub bytes: Bytes,
}

impl ObjectDelta {
    /// The chunks, each with the number of blocks whose bytes and checksums come before its own.
    pub fn parts(&self) -> impl Iterator<Item = (&ChunkState, usize)> {
        let mut at = 0;
        self.chunks.iter().map(move |chunk| {
            let begin = at;
            at += (chunk.present & !chunk.zero).count_ones() as usize;
            (chunk, begin)
        })
    }
}

/// What a store has of one layer's object, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectState {
    /// Which object.
    pub object: ObjectId,
    /// The write that it had last.
    pub stamp: Stamp,
    /// Its chunks, ascending. Chunks of two disks that are equal here have equal bytes, as long as each
    /// got them by writes, levels, merges and copies of objects.
    pub chunks: Vec<ChunkState>,
}

/// Chunks that one [`StorageRequest::Verify`] reads: 512 KiB, so that a guest's read waits for no more than that.
pub const VERIFY_CHUNKS: u8 = 8;

/// What a look at blocks on the medium found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The object as it is now, all of it.
    pub state: ObjectState,
    /// Blocks that were read from the medium and compared with their checksums.
    pub blocks: u32,
    /// Chunks with damaged blocks, ascending.
    pub damaged: Vec<DamagedChunk>,
}

/// A chunk some of whose blocks are damaged on the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedChunk {
    /// As it should be.
    pub state: ChunkState,
    /// Its damaged blocks: bit i is block i of the chunk.
    pub blocks: u16,
    /// What its blocks must be: one checksum for each that is present and not zero, in order.
    pub checksums: Arc<[u32]>,
}

/// A request to a store. The token that goes with it comes back with the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageRequest {
    /// Apply a write; the object is in doubt with it, as durably. Refused with
    /// [`StorageError::Gap`] if the object is not at `follows`.
    Write(ObjectWrite),
    /// Read ranges through the layers of `chain`, newest first: one answer with all their bytes, in the order of the
    /// ranges.
    Read {
        /// Which layers.
        chain: LayerChain,
        /// Whose object.
        family: FamilyId,
        /// Which object.
        index: u32,
        /// Which blocks.
        ranges: BlockRanges,
    },
    /// Tell which blocks of a range hold data, as the chain shows them.
    Map {
        /// Which layers.
        chain: LayerChain,
        /// Whose object.
        family: FamilyId,
        /// Which object.
        index: u32,
        /// Which blocks.
        range: BlockRange,
    },
    /// Tell where in the disk's file the blocks of a range lie, as the chain shows them.
    Places {
        /// Which layers.
        chain: LayerChain,
        /// Whose object.
        family: FamilyId,
        /// Which object.
        index: u32,
        /// Which blocks; all blocks of the chunks that it touches are meant.
        range: BlockRange,
    },
    /// Read what of one layer's object changed after `above` ([`Stamp::ZERO`]: all).
    Pull {
        /// Which object.
        object: ObjectId,
        /// What the asker has already.
        above: Stamp,
    },
    /// Apply a delta in one durable step to an object that is at `follows`; it is in doubt after.
    /// May use the room that the store keeps back.
    Level {
        /// The stamp that the object must have.
        follows: Stamp,
        /// What to apply.
        delta: ObjectDelta,
    },
    /// Tell what there is of up to `limit` objects after one (nothing: from the first on), ascending.
    List {
        /// Not this one, but those after it.
        after: Option<ObjectId>,
        /// How many, at most 256.
        limit: usize,
    },
    /// Tell what there is of all layers' objects of one range of a family.
    Column {
        /// Whose objects.
        family: FamilyId,
        /// Which range.
        index: u32,
    },
    /// Read the chunks of an object that differ from those that somebody has. Those that he has and
    /// that are not here come as chunks without blocks, of stamp [`Stamp::ZERO`]. The answer shows the
    /// object as it was at one moment, all of it on stable storage.
    Difference {
        /// Which object.
        object: ObjectId,
        /// What he has.
        have: Vec<ChunkState>,
    },
    /// Make an object that is at `follows` what a source has, in one durable step: each chunk of the
    /// delta replaces the whole chunk, one without blocks takes it away. The stamp may go back. May use
    /// the room that the store keeps back.
    Replace {
        /// The stamp that the object must have.
        follows: Stamp,
        /// What to apply.
        delta: ObjectDelta,
        /// Whether the object is in doubt afterwards, at its new stamp. If it was before, it is anyway.
        doubt: bool,
    },
    /// Read the blocks of [`VERIFY_CHUNKS`] chunks from the medium, past every cache, and compare them with their
    /// checksums. Refused with [`StorageError::Busy`] if they are written all the time.
    Verify {
        /// Which object.
        object: ObjectId,
        /// The first of the chunks.
        first: u8,
    },
    /// Store a chunk's bytes again, in one durable step, if the chunk is still exactly this one: the same write,
    /// the same blocks, the same checksums. Else refused with [`StorageError::Gap`]. Nothing but the place of the
    /// bytes changes. May use the room that the store keeps back.
    Mend {
        /// Which object.
        object: ObjectId,
        /// Which chunk, and as what.
        chunk: ChunkState,
        /// One for each block that is present and not zero, in order.
        checksums: Arc<[u32]>,
        /// The bytes of these blocks.
        bytes: Bytes,
    },
    /// These objects are complete up to these stamps: take the doubt off those that are not above
    /// it. Answered at once: it may be lost in a crash, for doubt too much is harmless.
    Settle(Vec<(ObjectId, Stamp)>),
    /// Remember the highest generation of a volume.
    RaiseGeneration(VolumeId, Generation),
    /// Remember the highest interval of a placement group.
    RaiseInterval(PgId, Interval),
    /// Merge one object of `parent` into the object of `child` of the same family and index, in
    /// one durable step. What the child has stays; the child keeps its stamp; the parent's object
    /// is gone afterwards. Nothing to do if there is no such parent object.
    Merge {
        /// Whose objects.
        family: FamilyId,
        /// Which object.
        index: u32,
        /// The layer that goes.
        parent: LayerId,
        /// The layer that continues it.
        child: LayerId,
        /// In a pool that encodes rows, how many chunks a row has. What the parent has of a front is left out then
        /// where its row is newer, and of rows what is not the newest version.
        row_chunks: Option<u8>,
    },
    /// Drop an object whose layer is gone, and give its space back. Nothing to do if it is absent.
    Drop(ObjectId),
    /// Tell whether a write of new data would be taken now: [`StorageReply::Done`], or refused with
    /// [`StorageError::Full`] or [`StorageError::Poisoned`]. Changes nothing.
    Probe,
}

/// One run of blocks in the answer to [`StorageRequest::Map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRun {
    /// Which blocks.
    pub range: BlockRange,
    /// What a read of them gives.
    pub kind: MapKind,
}

/// What a run of blocks holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Bytes.
    Data,
    /// Zeros, because somebody wrote zeros or discarded.
    Zero,
    /// Zeros, because no layer ever held the blocks.
    Hole,
}

/// A store's answer, when all went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageReply {
    /// The change is on stable storage.
    Done,
    /// The bytes of a read.
    Data {
        /// The stamp of the chain's head object, [`Stamp::ZERO`] if the head layer has none.
        stamp: Stamp,
        /// As long as the range that was asked for, 4 KiB aligned. Every block was verified.
        bytes: Bytes,
        /// One CRC-32C a block.
        checksums: Arc<[u32]>,
    },
    /// What a range holds: touching runs that cover it, in order.
    Map {
        /// The stamp of the chain's head object.
        stamp: Stamp,
        /// The runs.
        runs: Vec<MapRun>,
    },
    /// What a pull found.
    Delta(ObjectDelta),
    /// What there is.
    Listed {
        /// The objects, ascending.
        objects: Vec<ObjectState>,
        /// Whether there are more after the last of these.
        more: bool,
    },
    /// What was found on the medium.
    Verified(Verified),
    /// Where blocks lie; nothing from a store whose file nobody else may read.
    Placed {
        /// The witness's count of admissions.
        admission: u64,
        /// The chunks of the range, ascending.
        chunks: Vec<ChunkPlaces>,
    },
}

/// Why a store refused. Nothing was changed, unless the kind says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The object is not at the stamp that the write follows; this is the one that it has.
    #[error("the object is at stamp {0}, not at the one that the write follows")]
    Gap(Stamp),
    /// The bytes do not match their checksums: they were damaged on the way.
    #[error("the bytes do not match their checksums: they were damaged before they came here")]
    Mismatch,
    /// The disk has no room for new data. Deleting and discarding still work.
    #[error("the disk is full: delete or discard something, or add a disk")]
    Full,
    /// The store has as much in flight as it may: ask again when something has been answered.
    #[error("the disk has too many requests in flight")]
    Busy,
    /// The range holds a block whose bytes are damaged or cannot be read. Other blocks are sound.
    #[error("block {block} of {object} is damaged on this disk")]
    Damaged {
        /// Whose block.
        object: ObjectId,
        /// Which block of the object.
        block: u32,
    },
    /// A write or a flush failed: the disk takes no part any more until it is opened and verified
    /// again. Whether the change is on stable storage is unknown.
    #[error("the disk is out of service after a failed write or flush: {0}")]
    Poisoned(Arc<str>),
}

/// What a replica may look up at once, without waiting for the disk's log.
pub trait StorageView {
    /// The object's stamp after all writes that were accepted, durable or not;
    /// [`Stamp::ZERO`] if it has none.
    fn stamp(&mut self, object: ObjectId) -> Result<Stamp, StorageError>;
}
