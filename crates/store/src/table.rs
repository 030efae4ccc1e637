//! All objects that are in memory, and how log records change them: the same code when a request
//! is accepted and when a log is replayed, so both come to the same state.
//!
//! Objects are kept by (family, index), all layers together, as reads need them. Those that differ
//! from the metadata tables stay until a checkpoint wrote them; the others go when memory is short.
//!
//! One file because every change of an object must be seen beside the accounts that it keeps in step.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use direct::witness::Witness;
use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::{BlockRange, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, Stamp, VolumeId};

use crate::allocator::{Allocator, Freed};
use crate::format::record::{LevelChunk, Piece, Place, Record, Slot};
use crate::mutation::{self, Mutation};
use crate::object::{BLOCK, Chunk, Object, OverlayBlock, bits, mask};
use crate::tables::{Tables, TablesError};
use crate::usage::Usage;

/// Stacks looked at for each one that comes in, to find some that can go.
const EVICTION_STEPS: usize = 64;

/// Chunks in an object, as they are numbered.
const CHUNKS: u8 = 64;

/// What is known by (family, index).
pub(crate) type StackId = (FamilyId, u32);

/// All layers of 4 MiB of a family's address space.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    pub(crate) layers: BTreeMap<LayerId, Object>,
    /// The newest batch that took an object out: what a read finds missing may come back with a power cut until that
    /// batch is durable. Zero once the stack was loaded again, for it leaves only when a checkpoint has its changes.
    removed: u64,
    /// Looked at since the last pass of the eviction.
    used: bool,
    /// About how many bytes it takes in memory, as counted when it was loaded or last committed.
    weight: u64,
}

/// A record that does not fit the state that it is applied to: the log or the tables are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log record contradicts the state before it: {0}")]
pub(crate) struct Contradiction(pub(crate) &'static str);

/// The objects in memory and all that a record can change.
#[derive(Debug)]
pub(crate) struct Table {
    stacks: HashMap<StackId, Stack>,
    /// Candidates for eviction, in the order of a clock's hand.
    clock: VecDeque<StackId>,
    /// Objects that differ from the tables, and which of their chunks do.
    pub(crate) dirty: BTreeMap<ObjectId, u64>,
    /// Stacks with something in the checkpoint that runs.
    pub(crate) committing: HashSet<StackId>,
    pub(crate) allocator: Allocator,
    /// Chunks that will need a slot.
    pub(crate) reserved: u64,
    pub(crate) overlay_bytes: u64,
    metadata_bytes: u64,
    metadata_budget: u64,
    pub(crate) doubts: BTreeMap<ObjectId, Stamp>,
    pub(crate) dirty_doubts: BTreeSet<ObjectId>,
    pub(crate) generations: BTreeMap<VolumeId, Generation>,
    pub(crate) dirty_generations: BTreeSet<VolumeId>,
    pub(crate) intervals: BTreeMap<PgId, Interval>,
    pub(crate) dirty_intervals: BTreeSet<PgId>,
    /// What each layer takes.
    pub(crate) usage: Usage,
    /// Told of each chunk before it changes.
    pub(crate) witness: Option<Witness>,
}

impl Table {
    /// The state of the tables, with nothing loaded but what is always in memory.
    pub(crate) fn open(tables: &Tables, slot_limit: u64, metadata_budget: u64) -> Result<Self, TablesError> {
        let mut allocator = Allocator::new(slot_limit);
        for (page, bits) in tables.allocation()? {
            allocator.load(page, &bits)?;
        }
        Ok(Self {
            stacks: HashMap::new(),
            clock: VecDeque::new(),
            dirty: BTreeMap::new(),
            committing: HashSet::new(),
            allocator,
            reserved: 0,
            overlay_bytes: 0,
            metadata_bytes: 0,
            metadata_budget,
            doubts: tables.doubts()?.into_iter().collect(),
            dirty_doubts: BTreeSet::new(),
            generations: tables.generations()?.into_iter().collect(),
            dirty_generations: BTreeSet::new(),
            intervals: tables.intervals()?.into_iter().collect(),
            dirty_intervals: BTreeSet::new(),
            usage: Usage::open(tables)?,
            witness: None,
        })
    }

    /// Brings a stack into memory, and lets others go if there are too many.
    pub(crate) fn load(&mut self, tables: &Tables, id: StackId) -> Result<(), TablesError> {
        if let Some(stack) = self.stacks.get_mut(&id) {
            stack.used = true;
            return Ok(());
        }
        let mut stack = Stack {
            used: true,
            ..Stack::default()
        };
        for stored in tables.load(id.0, id.1)? {
            let chunks = stored
                .chunks
                .iter()
                .map(|(number, entry)| (*number, Chunk::from_entry(entry)));
            let (stamp, merged) = (stored.entry.stamp, stored.entry.merged);
            stack.layers.insert(
                stored.layer,
                Object {
                    stamp,
                    merged,
                    chunks: chunks.collect(),
                },
            );
        }
        stack.weight = weigh(&stack);
        self.metadata_bytes += stack.weight;
        self.stacks.insert(id, stack);
        self.clock.push_back(id);
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        for _ in 0..EVICTION_STEPS.min(self.clock.len()) {
            if self.metadata_bytes <= self.metadata_budget {
                return;
            }
            let Some(id) = self.clock.pop_front() else { return };
            let pinned = self.is_pinned(id);
            match self.stacks.get_mut(&id) {
                // The newest is the one that is wanted now.
                Some(stack) if stack.used || pinned || self.clock.is_empty() => {
                    stack.used = false;
                    self.clock.push_back(id);
                }
                Some(_) => {
                    if let Some(stack) = self.stacks.remove(&id) {
                        self.metadata_bytes -= stack.weight;
                    }
                }
                None => {}
            }
        }
    }

    fn is_pinned(&self, (family, index): StackId) -> bool {
        let first = ObjectId {
            family,
            index,
            layer: LayerId(0),
        };
        let last = ObjectId {
            layer: LayerId(u64::MAX),
            ..first
        };
        let is_dirty = self.dirty.range(first..=last).next().is_some();
        self.committing.contains(&(family, index)) || (is_dirty && !mutation::active(Mutation::DirtyEvicted))
    }

    /// Counts a stack's memory again, after a checkpoint wrote it.
    pub(crate) fn reweigh(&mut self, id: StackId) {
        if let Some(stack) = self.stacks.get_mut(&id) {
            self.metadata_bytes -= stack.weight;
            stack.weight = weigh(stack);
            self.metadata_bytes += stack.weight;
        }
    }

    /// About how much memory objects take, in bytes.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.metadata_bytes
    }

    /// The layers of a stack that was loaded.
    pub(crate) fn layers(&self, id: StackId) -> Option<&BTreeMap<LayerId, Object>> {
        self.stacks.get(&id).map(|stack| &stack.layers)
    }

    /// The newest batch that took an object out of a stack that was loaded.
    pub(crate) fn removed(&self, id: StackId) -> u64 {
        self.stacks.get(&id).map_or(0, |stack| stack.removed)
    }

    /// An object of a stack that was loaded.
    pub(crate) fn object(&self, object: ObjectId) -> Option<&Object> {
        self.stacks
            .get(&(object.family, object.index))?
            .layers
            .get(&object.layer)
    }

    /// A chunk of a stack that was loaded.
    pub(crate) fn chunk_mut(&mut self, object: ObjectId, chunk: u8) -> Option<&mut Chunk> {
        let stack = self.stacks.get_mut(&(object.family, object.index))?;
        stack.layers.get_mut(&object.layer)?.chunks.get_mut(&chunk)
    }

    /// The loaded objects with the family, from an index on, that are not in the tables or not
    /// like there: to be added to what the tables list.
    pub(crate) fn dirty_objects(
        &self,
        family: FamilyId,
        from_index: u32,
    ) -> impl Iterator<Item = (ObjectId, bool)> + '_ {
        let first = ObjectId {
            family,
            index: from_index,
            layer: LayerId(0),
        };
        let last = ObjectId {
            family,
            index: u32::MAX,
            layer: LayerId(u64::MAX),
        };
        self.dirty
            .range(first..=last)
            .map(|(id, _)| (*id, self.object(*id).is_some()))
    }

    /// Applies a record of a batch. Its stack is loaded. `inline` has one piece of bytes for each
    /// inline piece of a write, or one for an adoption.
    pub(crate) fn apply(
        &mut self,
        batch: u64,
        record: &Record,
        inline: &[Bytes],
    ) -> Result<(), Contradiction> {
        self.tell(record);
        match record {
            Record::Write {
                object,
                follows,
                stamp,
                pieces,
            } => self.write(batch, *object, (*follows, *stamp), pieces, inline),
            Record::Level {
                object,
                follows,
                stamp,
                merged,
                chunks,
            } => self.level(batch, *object, (*follows, *stamp), merged, chunks, inline),
            Record::Adopt {
                object,
                chunk,
                blocks,
                checksums,
            } => self.adopt(batch, *object, *chunk, (*blocks, checksums), inline),
            Record::Merge {
                family,
                index,
                parent,
                child,
                left_out,
            } => self.merge(batch, (*family, *index), (*parent, *child), *left_out),
            Record::Replace {
                object,
                follows,
                stamp,
                doubt,
                merged,
                chunks,
            } => self.replace(batch, *object, (*follows, *stamp), *doubt, (merged, chunks)),
            Record::Drop(object) => {
                self.drop_object(batch, *object);
                Ok(())
            }
            Record::Generation(volume, generation) => {
                let highest = self.generations.entry(*volume).or_default();
                *highest = (*highest).max(*generation);
                self.dirty_generations.insert(*volume);
                Ok(())
            }
            Record::Interval(pg, interval) => {
                let highest = self.intervals.entry(*pg).or_default();
                *highest = (*highest).max(*interval);
                self.dirty_intervals.insert(*pg);
                Ok(())
            }
            Record::Seal => Ok(()),
        }
    }

    /// Tells those who read the disk's file themselves which chunks a record is about to change.
    fn tell(&self, record: &Record) {
        let Some(witness) = &self.witness else { return };
        let all = |family, index| {
            (0..CHUNKS).for_each(|chunk| witness.moves(family, index, chunk));
        };
        match record {
            Record::Write { object, pieces, .. } => {
                for part in pieces.iter().flat_map(|piece| parts(piece.range)) {
                    witness.moves(object.family, object.index, part.chunk);
                }
            }
            Record::Adopt { object, chunk, .. } => witness.moves(object.family, object.index, *chunk),
            Record::Level { object, .. } | Record::Replace { object, .. } | Record::Drop(object) => {
                all(object.family, object.index);
            }
            Record::Merge { family, index, .. } => all(*family, *index),
            Record::Generation(..) | Record::Interval(..) | Record::Seal => {}
        }
    }

    fn stack_mut(&mut self, id: StackId) -> Result<&mut Stack, Contradiction> {
        self.stacks
            .get_mut(&id)
            .ok_or(Contradiction("its object is not in memory"))
    }

    /// Takes an object out for a change; it is put back with [`Table::put`].
    fn take(&mut self, object: ObjectId, follows: Stamp) -> Result<Object, Contradiction> {
        let stack = self.stack_mut((object.family, object.index))?;
        let stamp = stack
            .layers
            .get(&object.layer)
            .map_or(Stamp::ZERO, |found| found.stamp);
        if stamp != follows {
            return Err(Contradiction(
                "the object is not at the stamp that the record follows",
            ));
        }
        Ok(stack.layers.remove(&object.layer).unwrap_or_default())
    }

    fn put(&mut self, id: ObjectId, object: Object) {
        if let Some(stack) = self.stacks.get_mut(&(id.family, id.index)) {
            stack.layers.insert(id.layer, object);
        }
    }

    fn set_doubt(&mut self, object: ObjectId, stamp: Stamp) {
        self.doubts.insert(object, stamp);
        if !mutation::active(Mutation::DoubtNotKept) {
            self.dirty_doubts.insert(object);
        }
    }

    /// Takes the doubt off an object that is complete up to a stamp.
    pub(crate) fn settle(&mut self, object: ObjectId, stamp: Stamp) {
        if self.doubts.get(&object).is_some_and(|doubt| *doubt <= stamp) {
            self.doubts.remove(&object);
            if !mutation::active(Mutation::SettleNotKept) {
                self.dirty_doubts.insert(object);
            }
        }
    }

    fn write(
        &mut self,
        batch: u64,
        id: ObjectId,
        (follows, stamp): (Stamp, Stamp),
        pieces: &[Piece],
        inline: &[Bytes],
    ) -> Result<(), Contradiction> {
        let mut object = self.take(id, follows)?;
        object.stamp = stamp;
        let mut inline = inline.iter();
        let (mut touched, mut forgotten) = (0u64, 0u64);
        for piece in pieces {
            let bytes = match piece.place {
                Place::Inline(_) => inline.next().cloned().unwrap_or_default(),
                Place::Direct(..) | Place::Zero | Place::Forgotten => Bytes::new(),
            };
            for part in parts(piece.range) {
                if piece.place == Place::Forgotten {
                    self.forget(id, &mut object, part.chunk)?;
                    forgotten |= 1 << part.chunk;
                    continue;
                }
                touched |= 1 << part.chunk;
                let chunk = object.chunks.entry(part.chunk).or_insert_with(Chunk::empty);
                self.discharge(id, chunk);
                chunk.stamp = stamp;
                chunk.touched = batch;
                self.write_part(batch, chunk, &part, &piece.place, &bytes);
                self.charge(id, chunk);
            }
        }
        if forgotten & !touched != 0 {
            return Err(Contradiction(
                "a write forgets a chunk and brings no blocks for it",
            ));
        }
        self.put(id, object);
        *self.dirty.entry(id).or_default() |= touched;
        self.set_doubt(id, stamp);
        Ok(())
    }

    /// A chunk has no blocks any more, until the write that says so brings some. Its slot stays for these: what is in
    /// there is nobody's now, as in any slot beside the blocks that its chunk names.
    fn forget(&mut self, id: ObjectId, object: &mut Object, number: u8) -> Result<(), Contradiction> {
        let chunk = object.chunks.get_mut(&number);
        let chunk = chunk.ok_or(Contradiction("a write forgets a chunk that is not there"))?;
        self.discharge(id, chunk);
        chunk.forget_overlay(u16::MAX);
        (chunk.present, chunk.zero) = (0, 0);
        self.charge(id, chunk);
        Ok(())
    }

    fn write_part(&mut self, batch: u64, chunk: &mut Chunk, part: &Part, place: &Place, bytes: &Bytes) {
        let blocks = part.blocks();
        chunk.forget_overlay(blocks);
        chunk.present |= blocks;
        match place {
            Place::Zero => {
                if !mutation::active(Mutation::ZeroForgotten) {
                    chunk.zero |= blocks;
                }
                if chunk.data() == 0
                    && !mutation::active(Mutation::ZeroKeepsSlot)
                    && let Some(slot) = chunk.slot.take()
                {
                    self.allocator.release(slot, Freed::Discarded);
                }
            }
            Place::Direct(first, checksums) => {
                chunk.zero &= !blocks;
                let slot = Slot(first.0 + (part.at / BLOCKS_PER_CHUNK as usize) as u64);
                if let Some(old) = chunk.slot.replace(slot) {
                    self.allocator.release(old, Freed::Replaced);
                }
                for (block, checksum) in bits(blocks).zip(checksums.iter().skip(part.at)) {
                    chunk.checksums[usize::from(block)] = *checksum;
                }
            }
            Place::Inline(checksums) => {
                chunk.zero &= !blocks;
                for (number, block) in bits(blocks).enumerate() {
                    let at = part.at + number;
                    chunk.checksums[usize::from(block)] = checksums.get(at).copied().unwrap_or(0);
                    let bytes = bytes.slice(at * BLOCK..(at + 1) * BLOCK);
                    chunk.put_overlay(OverlayBlock { block, batch, bytes });
                }
            }
            Place::Forgotten => {}
        }
    }

    fn level(
        &mut self,
        batch: u64,
        id: ObjectId,
        (follows, stamp): (Stamp, Stamp),
        merged: &[LayerId],
        chunks: &[LevelChunk],
        inline: &[Bytes],
    ) -> Result<(), Contradiction> {
        let mut object = self.take(id, follows)?;
        object.stamp = stamp;
        object.add_merged(merged.iter().copied());
        let mut inline = inline.iter();
        let mut touched = 0;
        for level in chunks.iter().filter(|level| level.state.present != 0) {
            touched |= 1 << level.state.chunk;
            let bytes = match level.slot {
                None if !level.checksums.is_empty() => inline.next().cloned().unwrap_or_default(),
                _ => Bytes::new(),
            };
            let chunk = object
                .chunks
                .entry(level.state.chunk)
                .or_insert_with(Chunk::empty);
            self.discharge(id, chunk);
            let outcome = self.level_chunk(batch, chunk, level, &bytes);
            self.charge(id, chunk);
            outcome?;
        }
        self.put(id, object);
        *self.dirty.entry(id).or_default() |= touched;
        self.set_doubt(id, stamp);
        Ok(())
    }

    /// Replaces the blocks of a chunk that a level names. Those that it does not name came from a
    /// parent that was merged here already, and stay.
    fn level_chunk(
        &mut self,
        batch: u64,
        chunk: &mut Chunk,
        level: &LevelChunk,
        bytes: &Bytes,
    ) -> Result<(), Contradiction> {
        let state = &level.state;
        let data = state.present & !state.zero;
        if level.slot.is_some() && chunk.data() & !state.present != 0 {
            return Err(Contradiction("a level's slot lacks blocks that the chunk has"));
        }
        chunk.stamp = state.stamp;
        chunk.touched = batch;
        chunk.forget_overlay(state.present);
        chunk.present |= state.present;
        if !mutation::active(Mutation::LevelKeepsZeros) {
            chunk.zero &= !state.present;
        }
        chunk.zero |= state.zero;
        for (at, (block, checksum)) in bits(data).zip(&level.checksums).enumerate() {
            chunk.checksums[usize::from(block)] = *checksum;
            if level.slot.is_none() {
                let bytes = bytes.slice(at * BLOCK..(at + 1) * BLOCK);
                chunk.put_overlay(OverlayBlock { block, batch, bytes });
            }
        }
        let old = if level.slot.is_some() || chunk.data() == 0 {
            std::mem::replace(&mut chunk.slot, level.slot)
        } else {
            None
        };
        if let Some(old) = old {
            self.allocator.release(old, Freed::Replaced);
        }
        Ok(())
    }

    /// Gives an object the chunks of a source in place of its own. One that is left with no stamp and no
    /// chunk is gone.
    fn replace(
        &mut self,
        batch: u64,
        id: ObjectId,
        (follows, stamp): (Stamp, Stamp),
        doubt: bool,
        (merged, chunks): (&[LayerId], &[LevelChunk]),
    ) -> Result<(), Contradiction> {
        let mut object = self.take(id, follows)?;
        object.stamp = stamp;
        object.merged = merged.to_vec();
        let mut touched = 0;
        for new in chunks {
            let number = new.state.chunk;
            touched |= 1 << number;
            if let Some(mut old) = object.chunks.remove(&number) {
                self.discard(id, &mut old, Freed::Replaced);
            }
            if new.state.present == 0 {
                continue;
            }
            let mut chunk = Chunk::empty();
            self.level_chunk(batch, &mut chunk, new, &Bytes::new())?;
            self.charge(id, &chunk);
            object.chunks.insert(number, chunk);
        }
        if stamp == Stamp::ZERO && object.chunks.is_empty() {
            self.dirty.insert(id, u64::MAX);
            if self.doubts.remove(&id).is_some() {
                self.dirty_doubts.insert(id);
            }
            return Ok(());
        }
        self.put(id, object);
        *self.dirty.entry(id).or_default() |= touched;
        // A doubt that it had was about a stamp that it may not have any more.
        if doubt || self.doubts.contains_key(&id) {
            self.set_doubt(id, stamp);
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        batch: u64,
        id: ObjectId,
        number: u8,
        (blocks, checksums): (u16, &[u32]),
        inline: &[Bytes],
    ) -> Result<(), Contradiction> {
        let bytes = inline.first().cloned().unwrap_or_default();
        let Some(mut chunk) = self
            .chunk_mut(id, number)
            .map(|chunk| std::mem::replace(chunk, Chunk::empty()))
        else {
            return Err(Contradiction("a merge's child has no such chunk"));
        };
        if chunk.present & blocks != 0 {
            return Err(Contradiction("a merge's child has the blocks already"));
        }
        self.discharge(id, &chunk);
        chunk.present |= blocks;
        chunk.touched = batch;
        for (at, (block, checksum)) in bits(blocks).zip(checksums).enumerate() {
            chunk.checksums[usize::from(block)] = *checksum;
            chunk.put_overlay(OverlayBlock {
                block,
                batch,
                bytes: bytes.slice(at * BLOCK..(at + 1) * BLOCK),
            });
        }
        self.charge(id, &chunk);
        if let Some(place) = self.chunk_mut(id, number) {
            *place = chunk;
        }
        *self.dirty.entry(id).or_default() |= 1 << number;
        Ok(())
    }

    fn merge(
        &mut self,
        batch: u64,
        id: StackId,
        (parent, child): (LayerId, LayerId),
        left_out: u64,
    ) -> Result<(), Contradiction> {
        let stack = self.stack_mut(id)?;
        let Some(gone) = stack.layers.remove(&parent) else {
            return Ok(());
        };
        stack.removed = batch;
        let mut object = stack.layers.remove(&child).unwrap_or_default();
        object.add_merged(gone.merged.into_iter().chain([parent]));
        let (parent_id, child_id) = (object_id(id, parent), object_id(id, child));
        let mut touched = 0;
        for (number, mut old) in gone.chunks {
            if left_out >> number & 1 == 1 {
                self.discard(parent_id, &mut old, Freed::Replaced);
                continue;
            }
            touched |= 1 << number;
            self.discharge(parent_id, &old);
            old.touched = batch;
            match object.chunks.get_mut(&number) {
                None => {
                    self.charge(child_id, &old);
                    object.chunks.insert(number, old);
                }
                Some(chunk) => {
                    self.discharge(child_id, chunk);
                    let mut lacks = old.present & !chunk.present;
                    if mutation::active(Mutation::MergeLosesBlock) {
                        lacks &= lacks.wrapping_sub(1);
                    }
                    if chunk.data() != 0 && lacks & old.data() != 0 {
                        return Err(Contradiction("a merge's child lacks blocks of its parent"));
                    }
                    take_over(chunk, &mut old, lacks);
                    chunk.touched = batch;
                    if let Some(slot) = old.slot {
                        self.allocator.release(slot, Freed::Replaced);
                    }
                    self.charge(child_id, chunk);
                }
            }
        }
        self.put(child_id, object);
        *self.dirty.entry(child_id).or_default() |= touched;
        self.dirty.insert(parent_id, u64::MAX);
        if let Some(stamp) = self.doubts.remove(&parent_id) {
            self.dirty_doubts.insert(parent_id);
            let stamp = self.object(child_id).map_or(stamp, |object| object.stamp);
            if !mutation::active(Mutation::DoubtLeftByMerge) {
                self.set_doubt(child_id, stamp);
            }
        }
        Ok(())
    }

    fn drop_object(&mut self, batch: u64, id: ObjectId) {
        let Some(stack) = self.stacks.get_mut(&(id.family, id.index)) else {
            return;
        };
        let Some(object) = stack.layers.remove(&id.layer) else {
            return;
        };
        stack.removed = batch;
        for mut chunk in object.chunks.into_values() {
            self.discard(id, &mut chunk, Freed::Discarded);
        }
        self.dirty.insert(id, u64::MAX);
        if self.doubts.remove(&id).is_some() {
            self.dirty_doubts.insert(id);
        }
    }

    /// A chunk goes: gives back what it has.
    fn discard(&mut self, id: ObjectId, chunk: &mut Chunk, how: Freed) {
        self.discharge(id, chunk);
        if let Some(slot) = chunk.slot.take() {
            self.allocator.release(slot, how);
        }
    }

    /// Takes a chunk of an object out of the sums, before it changes.
    fn discharge(&mut self, id: ObjectId, chunk: &Chunk) {
        self.reserved -= u64::from(chunk.needs_slot());
        self.overlay_bytes -= (chunk.overlay.len() * BLOCK) as u64;
        if chunk.data() != 0 {
            self.usage.subtract(id);
        }
    }

    /// Adds a chunk of an object to the sums, after it changed.
    fn charge(&mut self, id: ObjectId, chunk: &Chunk) {
        self.reserved += u64::from(chunk.needs_slot());
        self.overlay_bytes += (chunk.overlay.len() * BLOCK) as u64;
        if chunk.data() != 0 {
            self.usage.add(id);
        }
    }
}

/// Gives a child's chunk, which has no bytes of its own that the slot could collide with or lacks
/// none with bytes, what it lacks of its parent's.
fn take_over(chunk: &mut Chunk, old: &mut Chunk, lacks: u16) {
    let lacks = if mutation::active(Mutation::MergeTakesOlder) {
        old.present
    } else {
        lacks
    };
    let with_bytes = lacks & old.data();
    chunk.present |= lacks;
    chunk.zero |= lacks & old.zero;
    chunk.stamp = chunk.stamp.max(old.stamp);
    if with_bytes != 0 {
        chunk.slot = old.slot.take();
        for block in bits(with_bytes) {
            chunk.checksums[usize::from(block)] = old.checksums[usize::from(block)];
        }
        for overlay in old
            .overlay
            .drain(..)
            .filter(|overlay| with_bytes >> overlay.block & 1 == 1)
        {
            chunk.put_overlay(overlay);
        }
    }
}

/// The part of a range that lies in one chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) chunk: u8,
    /// First block of the chunk.
    pub(crate) start: u32,
    /// How many blocks.
    pub(crate) count: u32,
    /// Where the part begins in the range, in blocks.
    pub(crate) at: usize,
}

impl Part {
    /// As a mask.
    pub(crate) fn blocks(&self) -> u16 {
        mask(self.start, self.count)
    }
}

/// Cuts a range at the borders of chunks.
pub(crate) fn parts(range: BlockRange) -> impl Iterator<Item = Part> {
    let first = range.start() / BLOCKS_PER_CHUNK;
    let last = (range.end() - 1) / BLOCKS_PER_CHUNK;
    (first..=last).map(move |number| {
        let begin = range.start().max(number * BLOCKS_PER_CHUNK);
        let end = range.end().min((number + 1) * BLOCKS_PER_CHUNK);
        Part {
            chunk: u8::try_from(number).unwrap_or(u8::MAX),
            start: begin - number * BLOCKS_PER_CHUNK,
            count: end - begin,
            at: (begin - range.start()) as usize,
        }
    })
}

fn object_id((family, index): StackId, layer: LayerId) -> ObjectId {
    ObjectId { family, index, layer }
}

fn weigh(stack: &Stack) -> u64 {
    let objects: usize = stack
        .layers
        .values()
        .map(|object| 128 + object.chunks.len() * (size_of::<Chunk>() + 16) + object.merged.len() * 8)
        .sum();
    (objects + 160) as u64
}
