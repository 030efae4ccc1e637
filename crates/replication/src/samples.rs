//! Small objects for the tests of what is computed from them: all of one family, one range and one generation.

use protocol::storage::ChunkState;
use protocol::{FamilyId, Generation, LayerId, ObjectId, Stamp};

pub(crate) fn stamp(count: u64) -> Stamp {
    Stamp {
        generation: Generation(1),
        count,
    }
}

pub(crate) fn object(layer: u64) -> ObjectId {
    ObjectId {
        family: FamilyId(1),
        index: 0,
        layer: LayerId(layer),
    }
}

/// A chunk of blocks with bytes.
pub(crate) fn chunk(number: u8, count: u64, present: u16) -> ChunkState {
    ChunkState {
        chunk: number,
        stamp: stamp(count),
        present,
        zero: 0,
    }
}
