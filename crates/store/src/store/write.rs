//! Accepting changes: checking them, logging them, applying them in memory.

use std::sync::Arc;

use bytes::Bytes;
use protocol::geometry::{BLOCKS_PER_CHUNK, CHUNK_SIZE};
use protocol::storage::{
    Change, ChunkState, ObjectDelta, ObjectWrite, StorageError, StorageReply, StorageRequest,
};
use protocol::{BlockRange, ObjectId, Stamp};

use crate::format::record::{LevelChunk, Piece, Place, Record, Slot};
use crate::log::Waiter;
use crate::medium::{Buffer, File, Operation};
use crate::mutation::{self, Mutation};
use crate::object::{BLOCK, bits, data_offset};
use crate::store::rows::forgotten_bytes;
use crate::store::{Store, Task};
use crate::table::{Part, parts};

/// The address that direct I/O wants of memory, in bytes.
const ALIGNMENT: usize = 4096;
/// The most layers merged into one object: what a record's list holds.
const MERGED_MAX: usize = 16_000;

impl Store {
    /// Whether a change surely finds room in the log and in the overlay.
    pub(crate) fn has_room_for(&mut self, request: &StorageRequest) -> bool {
        let (blocks, record_bytes) = match request {
            StorageRequest::Write(write) => match write.change {
                Change::Data { .. } => {
                    let inline = inline_blocks(write.range);
                    (
                        inline,
                        128 + 6 * u64::from(write.range.count()) + forgotten_bytes(write),
                    )
                }
                Change::Zero => (0, 128 + forgotten_bytes(write)),
            },
            StorageRequest::Replace { delta, .. } => {
                let lists = delta.chunks.len() * 40 + delta.checksums.len() * 4 + delta.merged.len() * 8;
                (0, 128 + lists as u64)
            }
            StorageRequest::Mend { object, .. } => (0, self.mend_record_bytes(*object)),
            StorageRequest::Level { delta, .. } => {
                let lists = delta.chunks.len() * 40 + delta.checksums.len() * 4 + delta.merged.len() * 8;
                (self.inline_level_blocks(delta), 128 + lists as u64)
            }
            _ => (0, 128),
        };
        // What is zeroed or dropped shrinks the overlay: it must not wait for it to shrink.
        let overlay = self.table.overlay_bytes + blocks * BLOCK as u64;
        self.log.has_room(blocks, record_bytes) && (blocks == 0 || overlay <= self.options.memory.overlay)
    }

    /// Carries a change out. There is room for it.
    pub(crate) fn accept(&mut self, waiter: Waiter, request: StorageRequest) {
        let object = match &request {
            StorageRequest::Write(write) => Some(write.object),
            StorageRequest::Level { delta, .. } | StorageRequest::Replace { delta, .. } => Some(delta.object),
            _ => None,
        };
        let outcome = match request {
            StorageRequest::Write(write) => self.accept_write(waiter, &write),
            StorageRequest::Level { follows, delta } => self.accept_level(waiter, follows, &delta),
            StorageRequest::Replace {
                follows,
                delta,
                doubt,
            } => self.accept_replace(waiter, follows, &delta, doubt),
            mend @ StorageRequest::Mend { .. } => self.accept_mend(waiter, mend),
            StorageRequest::RaiseGeneration(volume, generation) => {
                let known = self
                    .table
                    .generations
                    .get(&volume)
                    .is_some_and(|known| *known >= generation);
                self.log_unless(known, waiter, &Record::Generation(volume, generation))
            }
            StorageRequest::RaiseInterval(pg, interval) => {
                let known = self
                    .table
                    .intervals
                    .get(&pg)
                    .is_some_and(|known| *known >= interval);
                self.log_unless(known, waiter, &Record::Interval(pg, interval))
            }
            StorageRequest::Drop(object) => self.accept_drop(waiter, object),
            // Reads, settling and merges never come here.
            _ => Ok(()),
        };
        if let Err(error) = outcome {
            // If it was stalled, the object does not get the stamp that was foreseen.
            object.map(|object| self.stalled_stamps.remove(&object));
            self.answer(waiter, Err(error));
        }
    }

    /// Logs and applies a record without blocks. If it changes nothing, the answer waits for all
    /// that was accepted before, which is what made it change nothing.
    fn log_unless(&mut self, known: bool, waiter: Waiter, record: &Record) -> Result<(), StorageError> {
        if known {
            if !self.log.wait_for_newest(waiter) {
                self.answer(waiter, Ok(StorageReply::Done));
            }
            return Ok(());
        }
        self.log_record(record, &[], Some(waiter))
    }

    /// Logs and applies a record. Its stack is loaded.
    pub(crate) fn log_record(
        &mut self,
        record: &Record,
        inline: &[Bytes],
        waiter: Option<Waiter>,
    ) -> Result<(), StorageError> {
        let batch = self.log.gathering();
        if let Err(error) = self.table.apply(batch, record, inline) {
            return Err(self.poison(&error));
        }
        self.log.append(record, inline, waiter);
        Ok(())
    }

    /// The stamp of an object, loaded if need be.
    pub(crate) fn stamp_of(&mut self, object: ObjectId) -> Result<Stamp, StorageError> {
        self.load((object.family, object.index))?;
        Ok(self.table.object(object).map_or(Stamp::ZERO, |found| found.stamp))
    }

    fn accept_drop(&mut self, waiter: Waiter, object: ObjectId) -> Result<(), StorageError> {
        self.load((object.family, object.index))?;
        let absent = self.table.object(object).is_none();
        self.log_unless(absent, waiter, &Record::Drop(object))
    }

    fn accept_write(&mut self, waiter: Waiter, write: &ObjectWrite) -> Result<(), StorageError> {
        if let Change::Data { bytes, checksums } = &write.change {
            if bytes.len() != write.range.byte_len() {
                return Err(StorageError::Mismatch);
            }
            verify(bytes, checksums)?;
        }
        let stamp = self.stamp_of(write.object)?;
        if stamp != write.follows {
            return Err(StorageError::Gap(stamp));
        }
        let (placed, inline) = match &write.change {
            Change::Zero => (
                vec![Piece {
                    range: write.range,
                    place: Place::Zero,
                }],
                Vec::new(),
            ),
            Change::Data { bytes, checksums } => self.place_data(write, bytes, checksums)?,
        };
        let mut pieces = self.forgotten(write);
        pieces.extend(placed);
        self.statistics.writes += 1;
        if let Change::Data { bytes, .. } = &write.change {
            self.statistics.write_bytes += bytes.len() as u64;
        }
        let (object, follows, stamp) = (write.object, write.follows, write.stamp);
        let record = Record::Write {
            object,
            follows,
            stamp,
            pieces,
        };
        self.log_record(&record, &inline, Some(waiter))
    }

    /// Decides where data goes: whole chunks into new slots at once, the rest into the log.
    fn place_data(
        &mut self,
        write: &ObjectWrite,
        bytes: &Bytes,
        checksums: &Arc<[u32]>,
    ) -> Result<(Vec<Piece>, Vec<Bytes>), StorageError> {
        let groups = groups(write.range);
        self.require_slots(write, &groups)?;
        let (mut pieces, mut inline) = (Vec::new(), Vec::new());
        for group in &groups {
            let at = (group.range.start() - write.range.start()) as usize;
            let blocks = group.range.count() as usize;
            let part = bytes.slice(at * BLOCK..(at + blocks) * BLOCK);
            let sums: Arc<[u32]> = if groups.len() == 1 {
                Arc::clone(checksums)
            } else {
                checksums.get(at..at + blocks).unwrap_or_default().into()
            };
            if group.whole_chunks {
                self.place_chunks(group.range, &aligned(&part), &sums, &mut pieces)?;
            } else {
                // A small edge of a large buffer must not keep all of it in memory until the next
                // checkpoint.
                inline.push(if groups.len() == 1 {
                    aligned(&part)
                } else {
                    copied(&part)
                });
                pieces.push(Piece {
                    range: group.range,
                    place: Place::Inline(sums),
                });
            }
        }
        Ok((pieces, inline))
    }

    /// Refuses a write whose new chunks do not fit.
    fn require_slots(&mut self, write: &ObjectWrite, groups: &[Group]) -> Result<(), StorageError> {
        let object = self.table.object(write.object);
        let mut needed = 0;
        for group in groups {
            for part in parts(group.range) {
                let chunk = object.and_then(|object| object.chunks.get(&part.chunk));
                let has_place = chunk.is_some_and(|chunk| chunk.data() != 0);
                needed += u64::from(group.whole_chunks || !has_place);
            }
        }
        if self.has_slots(needed, write.use_reserve) {
            Ok(())
        } else {
            Err(StorageError::Full)
        }
    }

    fn place_chunks(
        &mut self,
        range: BlockRange,
        bytes: &Bytes,
        checksums: &Arc<[u32]>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), StorageError> {
        let (mut chunk, end) = (range.start() / BLOCKS_PER_CHUNK, range.end() / BLOCKS_PER_CHUNK);
        let first = chunk;
        while chunk < end {
            let Some((slot, count)) = self.table.allocator.allocate(end - chunk) else {
                return Err(self.poison(&"no slot was free for data that was promised one"));
            };
            self.space.allocated(u64::from(count));
            let from = ((chunk - first) * BLOCKS_PER_CHUNK) as usize;
            let blocks = (count * BLOCKS_PER_CHUNK) as usize;
            self.write_direct(slot, 0, bytes.slice(from * BLOCK..(from + blocks) * BLOCK));
            let Some(part) = BlockRange::new(chunk * BLOCKS_PER_CHUNK, count * BLOCKS_PER_CHUNK) else {
                return Err(self.poison(&"a run of chunks leaves its object"));
            };
            let sums = checksums.get(from..from + blocks).unwrap_or_default().into();
            pieces.push(Piece {
                range: part,
                place: Place::Direct(slot, sums),
            });
            chunk += count;
        }
        Ok(())
    }

    /// Writes into a new slot; the gathering batch is complete only when that is durable.
    fn write_direct(&mut self, slot: Slot, block: u8, bytes: Bytes) {
        let task = Task::Direct(self.log.gathering());
        self.log.add_direct();
        let offset = data_offset(slot, block);
        self.begin(
            task,
            Operation::Write {
                file: File::Data,
                offset,
                pieces: vec![bytes],
                durable: !mutation::active(Mutation::DirectNotDurable),
            },
        );
    }

    fn accept_level(
        &mut self,
        waiter: Waiter,
        follows: Stamp,
        delta: &ObjectDelta,
    ) -> Result<(), StorageError> {
        verify(&delta.bytes, &delta.checksums)?;
        check_shape(delta)?;
        let stamp = self.stamp_of(delta.object)?;
        if stamp != follows {
            return Err(StorageError::Gap(stamp));
        }
        if self.inline_level_blocks(delta) * BLOCK as u64 > self.log.usable() / 2 {
            // Only a log far smaller than any that should be in use is too small for this.
            return Err(StorageError::Full);
        }
        if !self.has_slots(delta.chunks.len() as u64, true) {
            return Err(StorageError::Full);
        }
        let (chunks, inline) =
            self.place_delta(delta, |store, state| store.keeps_blocks(delta.object, state))?;
        let (object, stamp, merged) = (delta.object, delta.stamp, delta.merged.clone());
        let record = Record::Level {
            object,
            follows,
            stamp,
            merged,
            chunks,
        };
        self.log_record(&record, &inline, Some(waiter))
    }

    fn accept_replace(
        &mut self,
        waiter: Waiter,
        follows: Stamp,
        delta: &ObjectDelta,
        doubt: bool,
    ) -> Result<(), StorageError> {
        verify(&delta.bytes, &delta.checksums)?;
        check_shape(delta)?;
        let stamp = self.stamp_of(delta.object)?;
        if stamp != follows {
            return Err(StorageError::Gap(stamp));
        }
        if !self.has_slots(delta.chunks.len() as u64, true) {
            return Err(StorageError::Full);
        }
        // Nothing that the object has now stays: every chunk has a slot of its own.
        let (chunks, inline) = self.place_delta(delta, |_, _| false)?;
        let (object, stamp, merged) = (delta.object, delta.stamp, delta.merged.clone());
        let record = Record::Replace {
            object,
            follows,
            stamp,
            doubt,
            merged,
            chunks,
        };
        self.log_record(&record, &inline, Some(waiter))
    }

    /// Finds a place for each chunk of a delta: a slot of its own, or the log where `beside` says that blocks of the
    /// chunk stay which the delta does not have.
    pub(crate) fn place_delta(
        &mut self,
        delta: &ObjectDelta,
        beside: impl Fn(&Self, &ChunkState) -> bool,
    ) -> Result<(Vec<LevelChunk>, Vec<Bytes>), StorageError> {
        let (mut chunks, mut inline) = (Vec::with_capacity(delta.chunks.len()), Vec::new());
        let mut at = 0;
        for state in &delta.chunks {
            let data = state.present & !state.zero;
            let blocks = data.count_ones() as usize;
            let bytes = delta.bytes.slice(at * BLOCK..(at + blocks) * BLOCK);
            let mut slot = None;
            if data != 0 && beside(self, state) {
                inline.push(copied(&bytes));
            } else if data != 0 {
                let Some((new, _)) = self.table.allocator.allocate(1) else {
                    return Err(self.poison(&"no slot was free for data that was promised one"));
                };
                self.space.allocated(1);
                self.write_blocks(new, data, &bytes);
                slot = Some(new);
            }
            let checksums = delta.checksums.get(at..at + blocks).unwrap_or_default().to_vec();
            chunks.push(LevelChunk {
                state: state.clone(),
                slot,
                checksums,
            });
            at += blocks;
        }
        Ok((chunks, inline))
    }

    /// Whether a chunk has blocks with bytes that a level does not replace: then the level's go
    /// into the log, beside them, instead of into a slot of their own.
    fn keeps_blocks(&self, object: ObjectId, state: &ChunkState) -> bool {
        let chunk = self
            .table
            .object(object)
            .and_then(|object| object.chunks.get(&state.chunk));
        chunk.is_some_and(|chunk| chunk.data() & !state.present != 0)
    }

    /// How many blocks of a level go into the log.
    fn inline_level_blocks(&mut self, delta: &ObjectDelta) -> u64 {
        if self.load((delta.object.family, delta.object.index)).is_err() {
            return 0; // the disk is out of service, and the request will be told
        }
        let kept = delta
            .chunks
            .iter()
            .filter(|state| self.keeps_blocks(delta.object, state));
        kept.map(|state| u64::from((state.present & !state.zero).count_ones()))
            .sum()
    }

    /// Writes blocks of a new slot, each run of touching ones at once.
    fn write_blocks(&mut self, slot: Slot, blocks: u16, bytes: &Bytes) {
        let mut at = 0;
        let mut left = blocks;
        while left != 0 {
            let start = left.trailing_zeros();
            let count = (left >> start).trailing_ones();
            left &= !crate::object::mask(start, count);
            let end = at + count as usize;
            let first = u8::try_from(start).unwrap_or(u8::MAX);
            self.write_direct(slot, first, aligned(&bytes.slice(at * BLOCK..end * BLOCK)));
            at = end;
        }
    }
}

/// Touching parts of a range that go the same way.
struct Group {
    range: BlockRange,
    whole_chunks: bool,
}

fn groups(range: BlockRange) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(3);
    for part in parts(range) {
        let whole_chunks = is_whole(&part);
        let start = range.start() + u32::try_from(part.at).unwrap_or(0);
        let (begin, count) = match groups.last() {
            Some(last) if last.whole_chunks == whole_chunks => {
                let begin = last.range.start();
                groups.pop();
                (begin, start + part.count - begin)
            }
            _ => (start, part.count),
        };
        groups.extend(BlockRange::new(begin, count).map(|range| Group { range, whole_chunks }));
    }
    groups
}

fn is_whole(part: &Part) -> bool {
    part.count * protocol::BLOCK_SIZE == CHUNK_SIZE
}

/// How many blocks of a write go into the log.
fn inline_blocks(range: BlockRange) -> u64 {
    parts(range)
        .filter(|part| !is_whole(part))
        .map(|part| u64::from(part.count))
        .sum()
}

/// Checks bytes against one checksum a block.
pub(crate) fn verify(bytes: &Bytes, checksums: &[u32]) -> Result<(), StorageError> {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let sound = rest.is_empty()
        && blocks.len() == checksums.len()
        && blocks
            .iter()
            .zip(checksums)
            .all(|(block, checksum)| crc32c::crc32c(block) == *checksum);
    if sound {
        Ok(())
    } else {
        Err(StorageError::Mismatch)
    }
}

/// A delta's lists agree with each other.
fn check_shape(delta: &ObjectDelta) -> Result<(), StorageError> {
    let ascending = delta.chunks.is_sorted_by(|a, b| a.chunk < b.chunk);
    let sound = |state: &ChunkState| {
        u32::from(state.chunk) < protocol::geometry::CHUNKS_PER_OBJECT && state.zero & !state.present == 0
    };
    let blocks: usize = delta
        .chunks
        .iter()
        .map(|state| bits(state.present & !state.zero).count())
        .sum();
    let agrees = ascending
        && delta.chunks.iter().all(sound)
        && blocks == delta.checksums.len()
        && delta.merged.len() <= MERGED_MAX;
    if agrees {
        Ok(())
    } else {
        Err(StorageError::Mismatch)
    }
}

/// The same bytes at an aligned address, copied only if they are not.
pub(crate) fn aligned(bytes: &Bytes) -> Bytes {
    if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        bytes.clone()
    } else {
        copied(bytes)
    }
}

fn copied(bytes: &Bytes) -> Bytes {
    let mut buffer = Buffer::with_capacity(ALIGNMENT, bytes.len());
    buffer.extend_from_slice(bytes);
    Bytes::from_owner(buffer)
}
