//! Pools that encode rows: where the newest state of a range lies, front or row, and how rows are made whole again
//! (`docs/decisions/0050-erasure-coding.md`, `0052-rows-by-the-model.md`). Pure; of requests and disks' answers it
//! knows what they hold, not how they travel.

pub mod layout;
pub(crate) mod rebuilding;
pub mod settling;
pub(crate) mod shards;

use bytes::Bytes;
use protocol::storage::{ChunkState, ObjectDelta};
use protocol::{ObjectId, Stamp, checksum};

/// A chunk that is to be taken away, or nothing if an object has no such chunk.
pub(crate) fn absent(number: u32) -> Option<ChunkState> {
    Some(ChunkState {
        chunk: u8::try_from(number).ok()?,
        stamp: Stamp::ZERO,
        present: 0,
        zero: 0,
    })
}

/// Makes these chunks of an object what they say, with these bytes.
pub(crate) fn replacement(
    object: ObjectId,
    stamp: Stamp,
    chunks: Vec<ChunkState>,
    bytes: Bytes,
) -> ObjectDelta {
    ObjectDelta {
        object,
        stamp,
        merged: Vec::new(),
        chunks,
        checksums: checksum::of_blocks(&bytes),
        bytes,
    }
}
