//! A damaged chunk, and what is taken for its bytes. Who is asked for them is `replica::scrub`'s business.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::geometry::BLOCK_SIZE;
use protocol::rows::{RowCode, Rows};
use protocol::storage::{ChunkState, DamagedChunk, ObjectDelta, ObjectState, Verified};
use protocol::{DiskId, checksum};

use super::{Reason, Window, first_of};
use crate::rows::shards::{Shards, made_of};

/// A damaged chunk.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The run that found it.
    pub(crate) run: u64,
    /// Its object as it was when the damage was found.
    pub(crate) state: ObjectState,
    pub(crate) chunk: DamagedChunk,
    /// The disks that were not asked yet.
    pub(crate) peers: VecDeque<DiskId>,
    /// The worst that those said that were asked.
    pub(crate) reason: Reason,
    /// Of a row: other disks' shards of it, of the same version.
    pub(crate) shards: Shards,
}

impl Broken {
    pub(crate) fn new(run: u64, verified: &Verified, chunk: DamagedChunk, peers: VecDeque<DiskId>) -> Self {
        Self {
            run,
            state: verified.state.clone(),
            chunk,
            peers,
            reason: Reason::NoCopy,
            shards: Shards::new(),
        }
    }

    /// The bytes of our shard of a row, when as many others as it takes have told theirs, and if they have the checksums that
    /// ours must have: this proves all of them at once.
    pub(crate) fn bytes_of_row(
        &self,
        shape: Rows,
        own: u8,
        code: &dyn RowCode,
    ) -> Option<(Arc<[u32]>, Bytes)> {
        let ours = &self.chunk.state;
        let shard = made_of(&self.shards, (shape, ours.chunk, own), code)?;
        let mut bytes = BytesMut::new();
        for (bit, block) in shard.chunks(BLOCK_SIZE as usize).enumerate() {
            if (ours.present & !ours.zero) >> bit & 1 == 1 {
                bytes.extend_from_slice(block);
            }
        }
        let bytes = bytes.freeze();
        let sums = checksum::of_blocks(&bytes);
        (sums == self.chunk.checksums).then_some((sums, bytes))
    }

    /// Where it is looked at.
    pub(crate) fn window(&self) -> Window {
        (self.state.object, first_of(self.chunk.state.chunk))
    }

    /// All chunks of the object but the damaged one: what is not asked for.
    pub(crate) fn have(&self) -> Vec<ChunkState> {
        let sound = self
            .state
            .chunks
            .iter()
            .filter(|chunk| chunk.chunk != self.chunk.state.chunk);
        sound.cloned().collect()
    }

    /// The bytes of the chunk as another disk has them, if they are what ours must be: written by the same write,
    /// or in an object with the same last write, and with the same checksums. Checksums alone do not prove it, for
    /// blocks that carry a CRC-32C of themselves all have the same one.
    pub(crate) fn bytes_from(&self, delta: &ObjectDelta) -> Option<(Arc<[u32]>, Bytes)> {
        let ours = &self.chunk.state;
        let found = delta.parts().find(|(state, _)| state.chunk == ours.chunk);
        let (theirs, mut at) = found.filter(|(theirs, _)| {
            delta.object == self.state.object && (*theirs == ours || delta.stamp == self.state.stamp)
        })?;
        let size = BLOCK_SIZE as usize;
        let mut bytes = BytesMut::new();
        let mut sums = self.chunk.checksums.iter();
        let (wanted, offered) = (ours.present & !ours.zero, theirs.present & !theirs.zero);
        if wanted & !offered != 0 {
            return None;
        }
        for bit in (0..16).filter(|bit| offered >> bit & 1 == 1) {
            if wanted >> bit & 1 == 1 {
                if delta.checksums.get(at)? != sums.next()? {
                    return None;
                }
                bytes.extend_from_slice(delta.bytes.get(at * size..(at + 1) * size)?);
            }
            at += 1;
        }
        Some((Arc::clone(&self.chunk.checksums), bytes.freeze()))
    }
}
