//! Merging one layer's object into the child that continues it.
//!
//! Blocks that lie in a chunk of both are copied first, a chunk at a time, through the log; a
//! reader sees no difference, whichever of the two it finds them in. Then one record moves the
//! chunks that only the parent has and ends the parent. Writes to the child go on meanwhile; other
//! changes of the two objects as a whole wait.
//!
//! Of a front, chunks that are older than their row are left out ([`crate::store::rows`]). Rows may be written while
//! their front is merged, so each step asks anew; the last one's answer is in its record.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{LayerId, ObjectId};

use crate::format::record::Record;
use crate::log::Waiter;
use crate::medium::Buffer;
use crate::object::{BLOCK, bits};
use crate::store::read::Target;
use crate::store::{Stalled, Store};
use crate::table::StackId;

/// Blocks that one step copies at most: a chunk's, and their record.
const STEP_BLOCKS: u64 = 16;
const STEP_RECORD_BYTES: u64 = 256;

/// A merge under way, and what waits for its end.
#[derive(Debug)]
pub(crate) struct Merge {
    waiter: Waiter,
    parent: LayerId,
    child: LayerId,
    /// How many chunks a row has, where rows are encoded.
    row_chunks: Option<u8>,
    pub(crate) waiting: VecDeque<(Waiter, StorageRequest)>,
}

impl Merge {
    /// All who wait for it or behind it.
    pub(crate) fn all_waiters(self) -> impl Iterator<Item = Waiter> {
        self.waiting
            .into_iter()
            .map(|(waiter, _)| waiter)
            .chain([self.waiter])
    }
}

impl Store {
    /// Starts a merge. None runs on this stack.
    pub(crate) fn start_merge(
        &mut self,
        waiter: Waiter,
        stack: StackId,
        (parent, child): (LayerId, LayerId),
        row_chunks: Option<u8>,
    ) {
        self.merging.insert(
            stack,
            Merge {
                waiter,
                parent,
                child,
                row_chunks,
                waiting: VecDeque::new(),
            },
        );
        self.advance_merge(stack);
    }

    /// Does a merge's next step, once there is room in the log for it.
    pub(crate) fn advance_merge(&mut self, stack: StackId) {
        let overlay = self.table.overlay_bytes + STEP_BLOCKS * BLOCK as u64;
        if !self.log.has_room(STEP_BLOCKS, STEP_RECORD_BYTES) || overlay > self.options.memory.overlay {
            self.stalled.push_back(Stalled::Merge(stack));
            self.checkpoint();
            return;
        }
        let Some(left_out) = self.left_out_now(stack) else {
            return;
        };
        let Some(merge) = self.merging.get(&stack) else {
            return;
        };
        let (family, index) = stack;
        let (parent, child) = (merge.parent, merge.child);
        let waiter = merge.waiter;
        let (old, new) = (object_of(stack, parent), object_of(stack, child));
        if self.table.object(old).is_none() || parent == child {
            // Gone already: answered when what made it go is durable.
            let waits = self.log.wait_for_newest(waiter);
            self.end_merge(stack, Ok(!waits));
        } else if let Some((chunk, blocks)) = self.next_to_copy(old, new, left_out) {
            self.read(Target::Merge {
                stack,
                object: old,
                chunk,
                blocks,
            });
        } else {
            let record = Record::Merge {
                family,
                index,
                parent,
                child,
                left_out,
            };
            match self.log_record(&record, &[], Some(waiter)) {
                Ok(()) => self.end_merge(stack, Ok(false)),
                Err(error) => self.end_merge(stack, Err(error)),
            }
        }
    }

    /// Loads what a merge's step looks at, and tells which of the parent's chunks are left out as things are now.
    /// Nothing if there is no such merge any more.
    fn left_out_now(&mut self, stack: StackId) -> Option<u64> {
        let merge = self.merging.get(&stack)?;
        let (layers, row_chunks) = ((merge.parent, merge.child), merge.row_chunks);
        match self.left_out(stack, layers, row_chunks) {
            Ok(left_out) => Some(left_out),
            Err(error) => {
                self.end_merge(stack, Err(error));
                None
            }
        }
    }

    /// A chunk of which both have bytes, and the parent some that the child lacks.
    fn next_to_copy(&self, parent: ObjectId, child: ObjectId, left_out: u64) -> Option<(u8, u16)> {
        let (parent, child) = (self.table.object(parent)?, self.table.object(child)?);
        let mut chunks = parent.chunks.iter();
        chunks.find_map(|(number, old)| {
            if left_out >> number & 1 == 1 {
                return None;
            }
            let new = child.chunks.get(number).filter(|new| new.data() != 0)?;
            let lacks = old.data() & !new.present;
            (lacks != 0).then_some((*number, lacks))
        })
    }

    /// Blocks of the parent were read: logs those that the child still lacks, and goes on.
    pub(crate) fn adopt_blocks(
        &mut self,
        stack: StackId,
        number: u8,
        blocks: u16,
        checksums: &[u32],
        bytes: &Bytes,
    ) {
        let Some(left_out) = self.left_out_now(stack) else {
            return;
        };
        let Some(merge) = self.merging.get(&stack) else {
            return;
        };
        let child = object_of(stack, merge.child);
        // The child may have got some of them meanwhile, or may have lost the chunk; or its row was written.
        let has = self
            .table
            .object(child)
            .and_then(|object| object.chunks.get(&number));
        let lacks = has
            .filter(|chunk| chunk.data() != 0 && left_out >> number & 1 == 0)
            .map_or(0, |chunk| blocks & !chunk.present);
        if lacks != 0 {
            let wanted: Vec<usize> = bits(blocks)
                .enumerate()
                .filter(|(_, block)| lacks >> block & 1 == 1)
                .map(|(at, _)| at)
                .collect();
            let mut copy = Buffer::with_capacity(BLOCK, wanted.len() * BLOCK);
            for at in &wanted {
                copy.extend_from_slice(&bytes[at * BLOCK..(at + 1) * BLOCK]);
            }
            let checksums = wanted
                .iter()
                .filter_map(|at| checksums.get(*at).copied())
                .collect();
            let record = Record::Adopt {
                object: child,
                chunk: number,
                blocks: lacks,
                checksums,
            };
            if let Err(error) = self.log_record(&record, &[Bytes::from_owner(copy)], None) {
                self.end_merge(stack, Err(error));
                return;
            }
        }
        self.advance_merge(stack);
    }

    /// A merge is over: its record is logged (`Ok(false)`: its answer comes with the log), there was
    /// nothing to do (`Ok(true)`), or it failed. What waited for it goes on.
    pub(crate) fn end_merge(&mut self, stack: StackId, outcome: Result<bool, StorageError>) {
        let Some(merge) = self.merging.remove(&stack) else {
            return;
        };
        match outcome {
            Ok(false) => {}
            Ok(true) => self.answer(merge.waiter, Ok(StorageReply::Done)),
            Err(error) => self.answer(merge.waiter, Err(error)),
        }
        for (waiter, request) in merge.waiting {
            self.change(waiter, request);
        }
    }
}

fn object_of((family, index): StackId, layer: LayerId) -> ObjectId {
    ObjectId { family, index, layer }
}
