//! One object in memory: its stamp and its chunks, and where the newest bytes of each block are.
//!
//! Pure state; `table` changes it, reads and checkpoints look at it.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::geometry::{BLOCK_SIZE, BLOCKS_PER_CHUNK, CHUNK_SIZE};
use protocol::storage::ChunkState;
use protocol::{LayerId, Stamp};

use crate::format::entry::{ChunkEntry, ObjectEntry};
use crate::format::record::Slot;

/// Blocks in a chunk, as an index.
pub(crate) const BLOCKS: usize = BLOCKS_PER_CHUNK as usize;
/// A block's length, as an index.
pub(crate) const BLOCK: usize = BLOCK_SIZE as usize;

/// The newest bytes of a block, which are in the log and not yet in the block's slot.
#[derive(Clone, Debug)]
pub(crate) struct OverlayBlock {
    pub(crate) block: u8,
    /// The log batch that they are in.
    pub(crate) batch: u64,
    pub(crate) bytes: Bytes,
}

/// 64 KiB of an object.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// The write that it had last.
    pub(crate) stamp: Stamp,
    /// Blocks that the layer holds: bit i is block i.
    pub(crate) present: u16,
    /// Those of them that read as zeros and have no bytes.
    pub(crate) zero: u16,
    /// Where bytes are that are not in the overlay.
    pub(crate) slot: Option<Slot>,
    /// Of each block with bytes, wherever these are.
    pub(crate) checksums: [u32; BLOCKS],
    /// Ascending by block.
    pub(crate) overlay: Vec<OverlayBlock>,
    /// The newest log batch that changed it; 0 if none since the disk was opened.
    pub(crate) touched: u64,
}

impl Chunk {
    /// A chunk without blocks.
    pub(crate) fn empty() -> Self {
        Self {
            stamp: Stamp::ZERO,
            present: 0,
            zero: 0,
            slot: None,
            checksums: [0; BLOCKS],
            overlay: Vec::new(),
            touched: 0,
        }
    }

    /// What others are told of it, without bytes; `number` is its place in the object.
    pub(crate) fn state(&self, number: u8) -> ChunkState {
        ChunkState {
            chunk: number,
            stamp: self.stamp,
            present: self.present,
            zero: self.zero,
        }
    }

    /// The blocks that have bytes.
    pub(crate) fn data(&self) -> u16 {
        self.present & !self.zero
    }

    /// Whether the next checkpoint must find a slot for it.
    pub(crate) fn needs_slot(&self) -> bool {
        self.data() != 0 && self.slot.is_none()
    }

    /// The bytes of a block, if they are in memory.
    pub(crate) fn overlay_of(&self, block: u8) -> Option<&OverlayBlock> {
        self.overlay.iter().find(|overlay| overlay.block == block)
    }

    /// Takes these blocks out of the overlay.
    pub(crate) fn forget_overlay(&mut self, blocks: u16) {
        self.overlay.retain(|overlay| blocks >> overlay.block & 1 == 0);
    }

    /// Puts a block's bytes into the overlay, in its place.
    pub(crate) fn put_overlay(&mut self, new: OverlayBlock) {
        match self
            .overlay
            .binary_search_by_key(&new.block, |overlay| overlay.block)
        {
            Ok(place) => self.overlay[place] = new,
            Err(place) => self.overlay.insert(place, new),
        }
    }

    /// As the tables have it.
    pub(crate) fn entry(&self) -> ChunkEntry {
        let checksums = bits(self.data())
            .map(|block| self.checksums[usize::from(block)])
            .collect();
        ChunkEntry {
            stamp: self.stamp,
            present: self.present,
            zero: self.zero,
            slot: self.slot,
            checksums,
        }
    }

    /// As the tables had it. The entry has as many checksums as blocks with bytes: it was decoded.
    pub(crate) fn from_entry(entry: &ChunkEntry) -> Self {
        let mut chunk = Self {
            stamp: entry.stamp,
            present: entry.present,
            zero: entry.zero,
            slot: entry.slot,
            ..Self::empty()
        };
        for (block, checksum) in bits(chunk.data()).zip(&entry.checksums) {
            chunk.checksums[usize::from(block)] = *checksum;
        }
        chunk
    }
}

/// 4 MiB of one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    /// The write that it had last.
    pub(crate) stamp: Stamp,
    /// Layers that were merged into it, ascending.
    pub(crate) merged: Vec<LayerId>,
    /// Its chunks, by number.
    pub(crate) chunks: BTreeMap<u8, Chunk>,
}

impl Object {
    /// As the tables have it, without its chunks.
    pub(crate) fn entry(&self) -> ObjectEntry {
        ObjectEntry {
            stamp: self.stamp,
            merged: self.merged.clone(),
        }
    }

    /// Notes that layers were merged into it.
    pub(crate) fn add_merged(&mut self, layers: impl IntoIterator<Item = LayerId>) {
        self.merged.extend(layers);
        self.merged.sort_unstable();
        self.merged.dedup();
    }
}

/// The numbers of the bits that are set, ascending.
pub(crate) fn bits(mask: u16) -> impl Iterator<Item = u8> {
    (0u8..16).filter(move |bit| mask >> bit & 1 == 1)
}

/// A mask of `count` bits from bit `start`; both at most 16.
pub(crate) fn mask(start: u32, count: u32) -> u16 {
    let ones = if count >= 16 { u16::MAX } else { (1 << count) - 1 };
    if start >= 16 { 0 } else { ones << start }
}

/// Where a block of a slot is in the data file, in bytes.
pub(crate) fn data_offset(slot: Slot, block: u8) -> u64 {
    slot.0 * u64::from(CHUNK_SIZE) + u64::from(block) * u64::from(BLOCK_SIZE)
}
