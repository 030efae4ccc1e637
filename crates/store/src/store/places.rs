//! Where blocks lie, for those who read the disk's file themselves.
//!
//! What is told here holds until the witness counts the chunk's next move, which [`crate::table`] has
//! it do before any change. A checkpoint writes blocks into slots that they are not read from yet, so
//! it moves nothing; slots that it sets free were left by a change that was told of.

use direct::witness::Witness;
use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::place::{ChunkPlaces, Place};
use protocol::storage::{StorageError, StorageReply};
use protocol::{BLOCK_SIZE, BlockRange, LayerChain, LayerId};

use crate::object::{Chunk, Object, data_offset};
use crate::store::Store;
use crate::store::read::{owners, visible};
use crate::table::{StackId, parts};

impl Store {
    /// The places of all blocks of the chunks that a range touches; nothing if nobody else may read.
    pub(crate) fn places(
        &mut self,
        chain: &LayerChain,
        id: StackId,
        range: BlockRange,
    ) -> Result<StorageReply, StorageError> {
        let nothing = StorageReply::Placed {
            admission: 0,
            chunks: Vec::new(),
        };
        if self.table.witness.is_none() {
            return Ok(nothing);
        }
        self.load(id)?;
        let Some(witness) = &self.table.witness else {
            return Ok(nothing);
        };
        let durable = self.log.durable();
        let visible = self
            .table
            .layers(id)
            .map(|layers| visible(chain, layers))
            .unwrap_or_default();
        let removed = self.table.removed(id);
        let place = |number| chunk_places(witness, &visible, (id, number), removed, durable);
        let chunks = parts(range).map(|part| place(part.chunk));
        Ok(StorageReply::Placed {
            admission: witness.admission(),
            chunks: chunks.collect(),
        })
    }
}

fn chunk_places(
    witness: &Witness,
    visible: &[(LayerId, &Object)],
    ((family, index), number): (StackId, u8),
    removed: u64,
    durable: u64,
) -> ChunkPlaces {
    let mut touched = removed;
    let owners = owners(visible, number, u16::MAX, &mut touched);
    let mut places = [Place::Unknown; BLOCKS_PER_CHUNK as usize];
    // What is not durable is not shown to anybody.
    if touched <= durable {
        for (block, place) in (0u8..).zip(&mut places) {
            *place = place_of(owners[usize::from(block)].map(|(_, chunk)| chunk), block);
        }
    }
    ChunkPlaces {
        chunk: number,
        moves: witness.count(family, index, number),
        places,
    }
}

fn place_of(chunk: Option<&Chunk>, block: u8) -> Place {
    let Some(chunk) = chunk.filter(|chunk| chunk.data() >> block & 1 == 1) else {
        return Place::Zero;
    };
    match chunk.slot {
        Some(slot) if chunk.overlay_of(block).is_none() => Place::At {
            block: data_offset(slot, block) / u64::from(BLOCK_SIZE),
            checksum: chunk.checksums[usize::from(block)],
        },
        _ => Place::Unknown,
    }
}
