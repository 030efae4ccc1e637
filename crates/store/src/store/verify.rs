//! Looks at blocks on the medium, past every cache, and stores damaged ones again.
//!
//! Where good bytes come from is not known here: whoever brings them says what chunk they are of, and they are
//! taken only if the chunk is still that one.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::storage::{
    DamagedChunk, ObjectDelta, ObjectState, StorageError, StorageReply, StorageRequest, VERIFY_CHUNKS,
    Verified,
};
use protocol::{ObjectId, Stamp};

use crate::format::record::{Record, Slot};
use crate::log::Waiter;
use crate::medium::Buffer;
use crate::object::{BLOCK, Chunk, Object, bits};
use crate::store::Store;
use crate::store::list::state;
use crate::store::read::{ATTEMPTS, ReadJob, Target};
use crate::store::write::verify;

/// The record of a chunk that is stored again, without the layers that were merged into its object.
const MEND_RECORD_BYTES: u64 = 256;

/// A look at some chunks of an object.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) waiter: Waiter,
    pub(crate) object: ObjectId,
    first: u8,
    /// Blocks that are damaged, by chunk, and the slot where that was found.
    bad: BTreeMap<u8, (Slot, u16)>,
    /// How often it met something that is being written.
    pub(crate) waits: u8,
    /// Blocks that were read last, without the bad ones.
    blocks: u32,
}

impl Check {
    /// The chunks that it is about.
    pub(crate) fn chunks<'a>(
        &self,
        object: Option<&'a Object>,
    ) -> impl Iterator<Item = (u8, &'a Chunk)> + use<'a> {
        let wanted = self.first..self.first.saturating_add(VERIFY_CHUNKS);
        let chunks = object
            .into_iter()
            .flat_map(move |object| object.chunks.range(wanted.clone()));
        chunks.map(|(number, chunk)| (*number, chunk))
    }

    /// The blocks of a chunk that it has to read, and where they are.
    pub(crate) fn to_read(&self, number: u8, chunk: &Chunk) -> Option<(Slot, u16)> {
        let slot = chunk.slot?;
        let known = self.bad.get(&number).filter(|(at, _)| *at == slot);
        let blocks = on_medium(chunk) & !known.map_or(0, |(_, blocks)| *blocks);
        Some((slot, blocks))
    }

    fn is_bad(&mut self, block: u32, slot: Slot) {
        let number = u8::try_from(block / BLOCKS_PER_CHUNK).unwrap_or(u8::MAX);
        let known = self.bad.entry(number).or_insert((slot, 0));
        if known.0 != slot {
            *known = (slot, 0);
        }
        known.1 |= 1 << (block % BLOCKS_PER_CHUNK);
    }
}

/// The blocks of a chunk whose newest bytes are in its slot.
fn on_medium(chunk: &Chunk) -> u16 {
    let newer = chunk.overlay.iter().map(|overlay| 1u16 << overlay.block);
    chunk.data() & !newer.fold(0, |all, block| all | block)
}

impl Store {
    /// Begins to look at chunks.
    pub(crate) fn verify_chunks(&mut self, waiter: Waiter, object: ObjectId, first: u8) {
        self.read(Target::Verify(Box::new(Check {
            waiter,
            object,
            first,
            bad: BTreeMap::new(),
            waits: 0,
            blocks: 0,
        })));
    }

    /// The medium gave the blocks of a look.
    pub(crate) fn checked(&mut self, mut job: ReadJob, buffer: &Buffer) {
        let wrong: Vec<(u32, Slot)> = job
            .plan
            .expected
            .iter()
            .filter(|expected| {
                let bytes = &buffer[expected.at * BLOCK..(expected.at + 1) * BLOCK];
                crc32c::crc32c(bytes) != expected.checksum
            })
            .map(|expected| (expected.block, expected.slot))
            .collect();
        let read = job.plan.expected.len();
        if let Target::Verify(check) = &mut job.target {
            check.blocks = u32::try_from(read).unwrap_or(u32::MAX);
        }
        if wrong.is_empty() {
            self.read_is_over(job);
        } else if let Some(job) = self.settled(job) {
            self.check_again(job, &wrong);
        }
    }

    /// Blocks of a look are not as they should be, or could not be read: they are looked at again, or are damaged.
    pub(crate) fn check_again(&mut self, mut job: ReadJob, wrong: &[(u32, Slot)]) {
        if job.attempts + 1 < ATTEMPTS {
            self.attempt(job.target, job.attempts + 1);
            return;
        }
        self.statistics.damaged_blocks += wrong.len() as u64;
        let read = job.plan.expected.len();
        let Target::Verify(check) = &mut job.target else {
            return;
        };
        for (block, slot) in wrong {
            tracing::error!(object = %check.object, block, "a block is damaged");
            check.is_bad(*block, *slot);
        }
        check.blocks = u32::try_from(read - wrong.len()).unwrap_or(u32::MAX);
        // The rest is read once more: a medium that fails tells of one place only.
        self.attempt(job.target, job.attempts);
    }

    /// Answers a look.
    pub(crate) fn end_check(&mut self, check: &Check) {
        let id = check.object;
        if let Err(error) = self.load((id.family, id.index)) {
            self.answer(check.waiter, Err(error));
            return;
        }
        let object = self.table.object(id);
        // What was written over meanwhile is not damaged any more.
        let damaged = check.bad.iter().filter_map(|(number, (slot, blocks))| {
            let chunk = object?.chunks.get(number)?;
            let blocks = on_medium(chunk) & blocks;
            (chunk.slot == Some(*slot) && blocks != 0).then(|| DamagedChunk {
                state: chunk.state(*number),
                blocks,
                checksums: checksums(chunk),
            })
        });
        let damaged: Vec<DamagedChunk> = damaged.collect();
        let nothing = || ObjectState {
            object: id,
            stamp: Stamp::ZERO,
            chunks: Vec::new(),
        };
        let known: u32 = damaged.iter().map(|chunk| chunk.blocks.count_ones()).sum();
        let verified = Verified {
            state: object.map_or_else(nothing, |object| state(id, object)),
            blocks: check.blocks + known,
            damaged,
        };
        self.answer(check.waiter, Ok(StorageReply::Verified(verified)));
    }

    /// How much of the log the record of a chunk that is stored again may take.
    pub(crate) fn mend_record_bytes(&mut self, id: ObjectId) -> u64 {
        // A disk that is out of service tells so when the request is carried out.
        let loaded = self.load((id.family, id.index)).is_ok();
        let object = self.table.object(id).filter(|_| loaded);
        MEND_RECORD_BYTES + object.map_or(0, |object| object.merged.len() as u64 * 8)
    }

    /// Stores a chunk's bytes again, if it is still this one.
    pub(crate) fn accept_mend(
        &mut self,
        waiter: Waiter,
        request: StorageRequest,
    ) -> Result<(), StorageError> {
        let StorageRequest::Mend {
            object: id,
            chunk: wanted,
            checksums: sums,
            bytes,
        } = request
        else {
            return Ok(());
        };
        verify(&bytes, &sums)?;
        let stamp = self.stamp_of(id)?;
        let object = self.table.object(id);
        let chunk = object.and_then(|object| object.chunks.get(&wanted.chunk));
        let same = chunk.is_some_and(|chunk| {
            chunk.data() != 0 && chunk.state(wanted.chunk) == wanted && checksums(chunk)[..] == sums[..]
        });
        if !same {
            return Err(StorageError::Gap(stamp));
        }
        let delta = ObjectDelta {
            object: id,
            stamp,
            merged: object.map(|object| object.merged.clone()).unwrap_or_default(),
            chunks: vec![wanted],
            checksums: sums,
            bytes,
        };
        if !self.has_slots(1, true) {
            return Err(StorageError::Full);
        }
        let (chunks, inline) = self.place_delta(&delta, |_, _| false)?;
        let record = Record::Replace {
            object: id,
            follows: stamp,
            stamp,
            doubt: false,
            merged: delta.merged,
            chunks,
        };
        self.log_record(&record, &inline, Some(waiter))
    }
}

/// What the bytes of a chunk must be.
fn checksums(chunk: &Chunk) -> Arc<[u32]> {
    bits(chunk.data())
        .map(|block| chunk.checksums[usize::from(block)])
        .collect()
}
