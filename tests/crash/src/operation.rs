//! The operations of scenarios: each a kind, with fixed places and with bytes that tell who wrote them.

use std::sync::Arc;

use bytes::Bytes;
use protocol::rows::rows_index;
use protocol::storage::{Change, ChunkState, ObjectDelta, ObjectWrite, StorageRequest};
use protocol::{
    BlockRange, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, Stamp, VolumeId,
};

/// Blocks have so many bytes.
pub const BLOCK: usize = 4096;
/// The family of all objects.
pub const FAMILY: FamilyId = FamilyId(1);
/// Layers 1 to 3, each the child of the one before.
pub const LAYERS: u64 = 3;
/// Chunks of a row.
pub const ROW_CHUNKS: u8 = 2;
/// Blocks that scenarios touch: three chunks and a little.
pub const BLOCKS: u32 = 52;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One block of the head layer.
    WriteSmall,
    /// From the middle of a chunk over a whole one into the next.
    WriteUnaligned,
    /// Two whole chunks.
    WriteLarge,
    /// As `WriteUnaligned`, but what its chunks have from before the scenario goes.
    WriteFresh,
    /// The first row of the head's object is written: it is newer than all that there is of its two chunks.
    WriteRow,
    /// Three blocks become zeros.
    ZeroSmall,
    /// A whole chunk becomes zeros.
    ZeroChunk,
    /// The whole object becomes zeros.
    ZeroAll,
    /// From now on writes go to the next layer.
    Snapshot,
    /// A take-over brings two chunks of the head's object to another state.
    Level,
    /// A disk that comes back makes the head's object what a source has.
    Replace,
    /// The oldest layer that is there is merged into its child.
    Merge,
    /// The layer below the head is merged into it, whatever lies below.
    MergeHead,
    /// As `Merge`, but what is older than its row is left out.
    MergeFront,
    /// The oldest layer's object goes.
    Drop,
    /// The head's object is complete.
    Settle,
    /// A generation and an interval are raised.
    Raise,
    /// The log goes into slots and tables.
    Checkpoint,
}

/// All kinds.
pub const KINDS: [Kind; 18] = [
    Kind::WriteSmall,
    Kind::WriteUnaligned,
    Kind::WriteLarge,
    Kind::WriteFresh,
    Kind::WriteRow,
    Kind::ZeroSmall,
    Kind::ZeroChunk,
    Kind::ZeroAll,
    Kind::Snapshot,
    Kind::Level,
    Kind::Replace,
    Kind::Merge,
    Kind::MergeHead,
    Kind::MergeFront,
    Kind::Drop,
    Kind::Settle,
    Kind::Raise,
    Kind::Checkpoint,
];

/// The object of a layer.
pub fn object(layer: u64) -> ObjectId {
    ObjectId {
        family: FAMILY,
        index: 0,
        layer: LayerId(layer),
    }
}

/// The rows object beside it.
pub fn rows_object(layer: u64) -> ObjectId {
    ObjectId {
        index: rows_index(0),
        ..object(layer)
    }
}

/// The stamp of the n-th write.
pub fn stamp(count: u64) -> Stamp {
    if count == 0 {
        Stamp::ZERO
    } else {
        Stamp {
            generation: Generation(1),
            count,
        }
    }
}

/// The bytes of a block that has a value: the value over and over.
pub fn block(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK / 8)
}

/// The value of a block, if its bytes are one value's.
pub fn value(bytes: &[u8]) -> Option<u64> {
    let first = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    bytes.chunks(8).all(|eight| eight == &bytes[..8]).then_some(first)
}

/// The value that a write gives to a block: never zero.
pub fn value_of(count: u64, block: u32) -> u64 {
    count << 32 | 1 << 31 | u64::from(block)
}

fn data(count: u64, range: BlockRange) -> Change {
    let mut bytes = Vec::with_capacity(range.byte_len());
    for number in range.blocks() {
        bytes.extend_from_slice(&block(value_of(count, number)));
    }
    let checksums: Arc<[u32]> = bytes.chunks(BLOCK).map(crc32c::crc32c).collect();
    Change::Data {
        bytes: Bytes::from(bytes),
        checksums,
    }
}

/// The range that a kind of write touches.
pub fn range(kind: Kind) -> Option<BlockRange> {
    let (start, count) = match kind {
        Kind::WriteSmall => (5, 1),
        Kind::WriteUnaligned | Kind::WriteFresh => (14, 20),
        Kind::WriteLarge => (16, 32),
        Kind::ZeroSmall => (15, 3),
        // Of a rows object this is the odd place of row 0.
        Kind::ZeroChunk | Kind::WriteRow => (16, 16),
        Kind::ZeroAll => (0, 1024),
        _ => return None,
    };
    BlockRange::new(start, count)
}

/// A write of a kind to a layer's object; a floor is what one that has a floor names.
pub fn write(kind: Kind, layer: u64, (follows, floor): (Stamp, Stamp), count: u64) -> Option<StorageRequest> {
    let range = range(kind)?;
    let change = match kind {
        Kind::ZeroSmall | Kind::ZeroChunk | Kind::ZeroAll => Change::Zero,
        _ => data(count, range),
    };
    let (object, stamp) = match kind {
        Kind::WriteRow => (rows_object(layer), stamp(count)),
        _ => (object(layer), stamp(count)),
    };
    Some(StorageRequest::Write(ObjectWrite {
        object,
        follows,
        stamp,
        range,
        change,
        use_reserve: false,
        floor: if kind == Kind::WriteFresh {
            floor
        } else {
            Stamp::ZERO
        },
    }))
}

/// The chunks of a level: blocks 1 and 3 of chunk 0, block 1 zero; all of chunk 2.
pub fn level_chunks(count: u64) -> Vec<ChunkState> {
    let chunk = |chunk, present, zero| ChunkState {
        chunk,
        stamp: stamp(count),
        present,
        zero,
    };
    vec![chunk(0, 0b1010, 0b0010), chunk(2, u16::MAX, 0)]
}

/// A level of a layer's object.
pub fn level(layer: u64, follows: Stamp, count: u64) -> StorageRequest {
    let delta = delta(layer, level_chunks(count), count);
    StorageRequest::Level { follows, delta }
}

/// The same chunks in place of the whole ones that are there, and one chunk that goes.
pub fn replace(layer: u64, follows: Stamp, count: u64) -> StorageRequest {
    let mut chunks = level_chunks(count);
    chunks.push(ChunkState {
        chunk: 1,
        stamp: stamp(count),
        present: 0,
        zero: 0,
    });
    chunks.sort_unstable_by_key(|state| state.chunk);
    StorageRequest::Replace {
        follows,
        delta: delta(layer, chunks, count),
        doubt: true,
    }
}

fn delta(layer: u64, chunks: Vec<ChunkState>, count: u64) -> ObjectDelta {
    let mut bytes = Vec::new();
    for state in &chunks {
        for number in 0..16u32 {
            if (state.present & !state.zero) >> number & 1 == 1 {
                bytes.extend_from_slice(&block(value_of(count, u32::from(state.chunk) * 16 + number)));
            }
        }
    }
    let checksums: Arc<[u32]> = bytes.chunks(BLOCK).map(crc32c::crc32c).collect();
    ObjectDelta {
        object: object(layer),
        stamp: stamp(count),
        merged: Vec::new(),
        chunks,
        checksums,
        bytes: Bytes::from(bytes),
    }
}

/// The merge of a layer into the next; of a front, if a row has so many chunks.
pub fn merge(parent: u64, row_chunks: Option<u8>) -> StorageRequest {
    StorageRequest::Merge {
        family: FAMILY,
        index: 0,
        parent: LayerId(parent),
        child: LayerId(parent + 1),
        row_chunks,
    }
}

/// Raises a generation and an interval.
pub fn raise(count: u64) -> [StorageRequest; 2] {
    [
        StorageRequest::RaiseGeneration(VolumeId(1), Generation(count)),
        StorageRequest::RaiseInterval(
            PgId {
                pool: PoolId(1),
                number: 1,
            },
            Interval(count),
        ),
    ]
}
