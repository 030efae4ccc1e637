//! Checkpoints: what the log holds goes into the slots and the tables, and the log's space is free.
//!
//! In order: a seal ends the part of the log that is covered, and what it says is captured; the
//! seal becomes durable; blocks are written into their slots, over what the tables still believe
//! to be there (the log has it until the end); the data file is flushed; one transaction moves the
//! tables forward; only then is the log's part free, and are freed slots free.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol::ObjectId;

use crate::allocator::Captured;
use crate::format::entry::LogStart;
use crate::format::record::Slot;
use crate::medium::{File, Operation};
use crate::mutation::{self, Mutation};
use crate::object::{BLOCK, OverlayBlock, bits, data_offset};
use crate::store::{Store, Task};
use crate::tables::Commit;

/// Writes of a checkpoint under way at a time when the log runs full: enough to keep a disk busy.
const WRITES_MAX: usize = 16;
/// The same while there is time: each write of a guest waits behind these on a disk that does one after the
/// other. Two keep such a disk busy while nobody else wants it.
const WRITES_UNHURRIED: usize = 2;
/// Slots given back in one call: 64 MiB.
const PUNCH_SLOTS_MAX: u64 = 1024;
/// Slots that wait to be set free before a checkpoint is worth it for them alone: 128 MiB.
const FREED_SLOTS_MAX: usize = 2048;
/// What an object that differs from the tables is taken to hold in memory, in bytes.
const DIRTY_OBJECT_BYTES: u64 = 4096;

/// Touching blocks of one slot.
#[derive(Debug)]
struct SlotWrite {
    slot: Slot,
    block: u8,
    pieces: Vec<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Sealing,
    Writing,
    Flushing,
    Committing,
}

/// A checkpoint under way.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    stage: Stage,
    seal: u64,
    /// Where the log begins afterwards.
    start: u64,
    commit: Commit,
    captured: Captured,
    writes: VecDeque<SlotWrite>,
    under_way: usize,
    /// Chunks whose overlay goes when all is done.
    chunks: Vec<(ObjectId, u8)>,
}

impl Checkpoint {
    /// Whether the data file is being flushed.
    pub(crate) fn flushes(&self) -> bool {
        self.stage == Stage::Flushing
    }
}

impl Store {
    /// Starts a checkpoint if one is due.
    pub(crate) fn checkpoint_if_due(&mut self) {
        let log = self.log.promised() > self.log.usable() / 2;
        let overlay = self.table.overlay_bytes > self.options.memory.overlay / 2;
        let freed = self.table.allocator.freed() > FREED_SLOTS_MAX;
        let dirty = self.table.dirty.len() as u64 * DIRTY_OBJECT_BYTES > self.options.memory.metadata / 2;
        if log || overlay || freed || dirty {
            self.checkpoint();
        }
    }

    /// Whether a checkpoint would change anything.
    pub(crate) fn has_something_to_checkpoint(&self) -> bool {
        !self.table.dirty.is_empty()
            || !self.table.dirty_doubts.is_empty()
            || !self.table.dirty_generations.is_empty()
            || !self.table.dirty_intervals.is_empty()
            || self.table.allocator.has_freed()
    }

    pub(crate) fn start_checkpoint(&mut self) {
        let seal = self.log.seal();
        let mut checkpoint = Checkpoint {
            stage: Stage::Sealing,
            seal,
            start: 0,
            commit: Commit::default(),
            captured: Captured::default(),
            writes: VecDeque::new(),
            under_way: 0,
            chunks: Vec::new(),
        };
        for (object, chunks) in std::mem::take(&mut self.table.dirty) {
            if !self.capture(&mut checkpoint, object, chunks) {
                self.poison(&"no slot was free for data that was promised one");
                return;
            }
        }
        let commit = &mut checkpoint.commit;
        let doubts = std::mem::take(&mut self.table.dirty_doubts);
        commit.doubts = doubts
            .into_iter()
            .map(|id| (id, self.table.doubts.get(&id).copied()))
            .collect();
        let volumes = std::mem::take(&mut self.table.dirty_generations);
        let generations = volumes
            .iter()
            .filter_map(|id| Some((*id, *self.table.generations.get(id)?)));
        commit.generations = generations.collect();
        let groups = std::mem::take(&mut self.table.dirty_intervals);
        commit.intervals = groups
            .iter()
            .filter_map(|id| Some((*id, *self.table.intervals.get(id)?)))
            .collect();
        commit.usage = self.table.usage.capture();
        checkpoint.captured = self.table.allocator.capture();
        commit.allocation = std::mem::take(&mut checkpoint.captured.pages);
        self.checkpoint = Some(checkpoint);
        self.advance_checkpoint();
    }

    /// Takes down what the tables are to say of an object, and which blocks go to their slots.
    /// False if there is no slot for them.
    fn capture(&mut self, checkpoint: &mut Checkpoint, id: ObjectId, chunks: u64) -> bool {
        self.table.committing.insert((id.family, id.index));
        let entry = self.table.object(id).map(crate::object::Object::entry);
        checkpoint.commit.objects.push((id, entry));
        for number in (0..64u8).filter(|number| chunks >> number & 1 == 1) {
            let Some(chunk) = self.table.chunk_mut(id, number) else {
                checkpoint.commit.chunks.push((id, number, None));
                continue;
            };
            if chunk.needs_slot() {
                let Some((slot, _)) = self.table.allocator.allocate(1) else {
                    return false;
                };
                self.space.allocated(1);
                self.table.reserved -= 1;
                if let Some(chunk) = self.table.chunk_mut(id, number) {
                    chunk.slot = Some(slot);
                }
            }
            let Some(chunk) = self.table.chunk_mut(id, number) else {
                continue;
            };
            if let Some(slot) = chunk.slot
                && !chunk.overlay.is_empty()
            {
                slot_writes(slot, &chunk.overlay, &mut checkpoint.writes);
                checkpoint.chunks.push((id, number));
            }
            checkpoint.commit.chunks.push((id, number, Some(chunk.entry())));
        }
        true
    }

    /// Goes on with the checkpoint as far as what is durable allows.
    pub(crate) fn advance_checkpoint(&mut self) {
        let Some(mut checkpoint) = self.checkpoint.take() else {
            return;
        };
        let sealed = self.log.durable() >= checkpoint.seal || mutation::active(Mutation::SealNotAwaited);
        if checkpoint.stage == Stage::Sealing && sealed {
            // One batch is written at a time and this runs as soon as one is durable, before the
            // next: the seal is the newest.
            let (position, start) = self.log.start_after_written();
            debug_assert_eq!(start.sequence, checkpoint.seal + 1);
            checkpoint.start = position;
            checkpoint.commit.log_start = Some(LogStart { ..start });
            checkpoint.stage = Stage::Writing;
            // Slots are written over from here on: reads under way must look again.
            self.moves += 1;
        }
        if checkpoint.stage == Stage::Writing {
            while checkpoint.under_way < self.checkpoint_width()
                && let Some(write) = checkpoint.writes.pop_front()
            {
                let offset = data_offset(write.slot, write.block);
                let pieces = write.pieces;
                let operation = Operation::Write {
                    file: File::Data,
                    offset,
                    pieces,
                    durable: false,
                };
                self.begin(Task::CheckpointStep, operation);
                checkpoint.under_way += 1;
            }
            if checkpoint.under_way == 0 {
                checkpoint.stage = Stage::Flushing;
                if !checkpoint.chunks.is_empty() && !mutation::active(Mutation::NoDataFlush) {
                    self.begin(Task::CheckpointStep, Operation::Flush(File::Data));
                    checkpoint.under_way = 1;
                }
            }
        }
        if checkpoint.stage == Stage::Flushing && checkpoint.under_way == 0 {
            checkpoint.stage = Stage::Committing;
            let tables = self.tables.clone();
            let commit = std::mem::take(&mut checkpoint.commit);
            let job = Box::new(move || tables.commit(&commit).map_err(std::io::Error::from));
            self.begin(Task::CheckpointStep, Operation::Job(job));
            checkpoint.under_way = 1;
        }
        self.checkpoint = Some(checkpoint);
    }

    /// How many writes of a checkpoint may be under way: the nearer the log or the overlay is to its end, when
    /// writes would have to wait for the checkpoint, the more.
    fn checkpoint_width(&self) -> usize {
        let in_a_hurry = |used: u64, limit: u64| used > limit / 4 * 3;
        let log = in_a_hurry(self.log.promised(), self.log.usable());
        let overlay = in_a_hurry(self.table.overlay_bytes, self.options.memory.overlay);
        if log || overlay || !self.stalled.is_empty() {
            WRITES_MAX
        } else {
            WRITES_UNHURRIED
        }
    }

    /// One of the checkpoint's operations is done.
    pub(crate) fn checkpoint_step_done(&mut self) {
        let Some(checkpoint) = &mut self.checkpoint else {
            return;
        };
        checkpoint.under_way -= 1;
        if checkpoint.stage == Stage::Committing
            && let Some(checkpoint) = self.checkpoint.take()
        {
            self.finish_checkpoint(checkpoint);
        } else {
            self.advance_checkpoint();
        }
    }

    fn finish_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.log.free_up_to(checkpoint.start);
        for (object, number) in checkpoint.chunks {
            let Some(chunk) = self.table.chunk_mut(object, number) else {
                continue;
            };
            let before = chunk.overlay.len();
            // What was written since stays. A chunk that moved to another object meanwhile is
            // dirty there, and is written once more.
            chunk.overlay.retain(|overlay| overlay.batch > checkpoint.seal);
            let gone = before - chunk.overlay.len();
            self.table.overlay_bytes -= (gone * BLOCK) as u64;
        }
        for stack in std::mem::take(&mut self.table.committing) {
            self.table.reweigh(stack);
        }
        self.table.allocator.committed(checkpoint.captured);
        // Slots that were freed have new owners from here on.
        self.moves += 1;
        self.statistics.checkpoints += 1;
        self.ask_for_space();
        self.punch_next();
        self.resume_stalled();
    }

    /// Gives space back to the file system, one range after the other.
    pub(crate) fn punch_next(&mut self) {
        if self.punching {
            return;
        }
        if let Some((first, count)) = self.table.allocator.next_to_punch(PUNCH_SLOTS_MAX) {
            self.punching = true;
            let (offset, length) = (data_offset(first, 0), data_offset(Slot(count), 0));
            self.begin(
                Task::Punch(first, count),
                Operation::Punch {
                    file: File::Data,
                    offset,
                    length,
                },
            );
        }
    }

    /// A hole is there, or could not be made: the slots may be used again either way.
    pub(crate) fn punched(&mut self, first: Slot, count: u64, outcome: std::io::Result<()>) {
        self.punching = false;
        if let Err(error) = outcome {
            tracing::warn!(%error, "cannot give space back to the file system");
        }
        self.table.allocator.punched(first, count);
        self.punch_next();
    }
}

/// Cuts a chunk's overlay into runs of touching blocks.
fn slot_writes(slot: Slot, overlay: &[OverlayBlock], writes: &mut VecDeque<SlotWrite>) {
    let mut end = None;
    for block in overlay {
        match writes.back_mut() {
            Some(last) if end == Some(block.block) && last.slot == slot => {
                last.pieces.push(block.bytes.clone());
            }
            _ => writes.push_back(SlotWrite {
                slot,
                block: block.block,
                pieces: vec![block.bytes.clone()],
            }),
        }
        end = Some(block.block + 1);
    }
    debug_assert!(
        bits(u16::MAX).count() >= overlay.len(),
        "more blocks than a chunk has"
    );
}
