//! A store in a few maps: what `protocol::storage` promises, and nothing about how.
//!
//! It has two states: what was accepted, by which stamps are judged, and what is durable, which a
//! crash leaves. Between them is a queue, of which a crash keeps any beginning.
//!
//! One file because the promises of a store are read together, and each is a few lines. What an object is made of is
//! beside it.

mod object;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::rows;
use protocol::storage::{
    Change, ChunkState, DamagedChunk, MapKind, MapRun, ObjectDelta, ObjectWrite, StorageError, StorageReply,
    StorageRequest, VERIFY_CHUNKS, Verified,
};
use protocol::{
    BLOCK_SIZE, BlockRange, BlockRanges, Generation, Interval, LayerChain, ObjectId, PgId, Stamp, VolumeId,
};

use crate::chance::Chance;
use object::{Held, Object, bits_of, parts};

#[derive(Clone, Debug, Default)]
struct State {
    objects: BTreeMap<ObjectId, Object>,
    doubts: BTreeMap<ObjectId, Stamp>,
    generations: BTreeMap<VolumeId, Generation>,
    intervals: BTreeMap<PgId, Interval>,
}

/// The store of one disk.
#[derive(Debug, Default)]
pub(crate) struct ModelStore {
    accepted: State,
    durable: State,
    /// Accepted and not durable yet, in order.
    queue: VecDeque<StorageRequest>,
    /// Whether new data is refused.
    pub(crate) full: bool,
    /// Blocks whose bytes are damaged, until they are overwritten.
    damaged: BTreeSet<(ObjectId, u32)>,
}

/// What a request turned into.
pub(crate) enum Taken {
    /// It changes something: its answer comes when it is durable.
    Queued,
    /// It looks at something: it is carried out when its time has come.
    Look,
    /// It is answered.
    Answered(Result<StorageReply, StorageError>),
}

impl ModelStore {
    /// Takes a request in.
    pub(crate) fn take(&mut self, request: &StorageRequest) -> Taken {
        match request {
            StorageRequest::Read { .. }
            | StorageRequest::Map { .. }
            | StorageRequest::Pull { .. }
            | StorageRequest::List { .. }
            | StorageRequest::Column { .. }
            | StorageRequest::Verify { .. }
            | StorageRequest::Difference { .. } => Taken::Look,
            // There is no file that blocks could be in.
            StorageRequest::Places { .. } => Taken::Answered(Ok(StorageReply::Placed {
                admission: 0,
                chunks: Vec::new(),
            })),
            StorageRequest::Probe => {
                let answer = if self.full {
                    Err(StorageError::Full)
                } else {
                    Ok(StorageReply::Done)
                };
                Taken::Answered(answer)
            }
            StorageRequest::Write(write)
                if self.full && !write.use_reserve && matches!(write.change, Change::Data { .. }) =>
            {
                Taken::Answered(Err(StorageError::Full))
            }
            // What is accepted is sound: it is not looked at again when it becomes durable.
            StorageRequest::Write(write) if !is_sound(write) => Taken::Answered(Err(StorageError::Mismatch)),
            _ => match self.accepted.change(request) {
                Ok(()) => {
                    self.queue.push_back(request.clone());
                    Taken::Queued
                }
                Err(error) => Taken::Answered(Err(error)),
            },
        }
    }

    /// The first of the queue is durable now.
    pub(crate) fn make_durable(&mut self) {
        if let Some(request) = self.queue.pop_front() {
            if !self.damaged.is_empty() {
                self.overwrite_damaged(&request);
            }
            // It was accepted in the same order, so it cannot be refused now.
            let _ = self.durable.change(&request);
        }
    }

    /// What a change brings new bytes for is no longer damaged.
    fn overwrite_damaged(&mut self, request: &StorageRequest) {
        match request {
            StorageRequest::Replace { delta, .. } => {
                let replaced = |block: &u32| {
                    let chunk = block / BLOCKS_PER_CHUNK;
                    delta.chunks.iter().any(|state| u32::from(state.chunk) == chunk)
                };
                self.damaged
                    .retain(|(other, block)| *other != delta.object || !replaced(block));
            }
            StorageRequest::Mend { object, chunk, .. } => {
                let mended = |block: &u32| block / BLOCKS_PER_CHUNK == u32::from(chunk.chunk);
                self.damaged
                    .retain(|(other, block)| other != object || !mended(block));
            }
            StorageRequest::Write(write) => {
                let object = self.durable.objects.get(&write.object);
                let dropped = object.map(|object| object.older(write)).unwrap_or_default();
                let gone = |block: &u32| {
                    write.range.blocks().contains(block) || dropped.contains(&(block / BLOCKS_PER_CHUNK))
                };
                self.damaged
                    .retain(|(other, block)| *other != write.object || !gone(block));
            }
            _ => {}
        }
    }

    /// The power fails: any beginning of the queue has become durable, the rest is gone.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        let kept = chance.between(0, self.queue.len() as u64);
        self.cut_power(kept);
    }

    /// The same, and it is said how much of the queue has become durable.
    pub(crate) fn cut_power(&mut self, kept: u64) {
        for _ in 0..kept {
            self.make_durable();
        }
        self.queue.clear();
        self.accepted = self.durable.clone();
    }

    /// Carries out a request that looks.
    pub(crate) fn look(&self, request: &StorageRequest) -> Result<StorageReply, StorageError> {
        match request {
            StorageRequest::Read {
                chain,
                family,
                index,
                ranges,
            } => {
                let id = |layer| ObjectId {
                    family: *family,
                    index: *index,
                    layer,
                };
                self.read(chain, id, ranges)
            }
            StorageRequest::Map {
                chain,
                family,
                index,
                range,
            } => {
                let id = |layer| ObjectId {
                    family: *family,
                    index: *index,
                    layer,
                };
                Ok(self.map(chain, id, *range))
            }
            StorageRequest::Pull { object, above } => {
                Ok(StorageReply::Delta(self.accepted.delta(*object, *above)))
            }
            StorageRequest::List { after, limit } => {
                let start = after.map_or(Bound::Unbounded, Bound::Excluded);
                let mut rest = self.accepted.objects.range((start, Bound::Unbounded));
                let objects = rest
                    .by_ref()
                    .take(*limit)
                    .map(|(id, object)| object.state(*id))
                    .collect();
                let more = rest.next().is_some();
                Ok(StorageReply::Listed { objects, more })
            }
            StorageRequest::Column { family, index } => {
                let first = ObjectId {
                    family: *family,
                    index: *index,
                    layer: protocol::LayerId(0),
                };
                let here = |(id, _): &(&ObjectId, &Object)| id.family == *family && id.index == *index;
                let objects = self.accepted.objects.range(first..).take_while(here);
                let objects = objects.map(|(id, object)| object.state(*id)).collect();
                Ok(StorageReply::Listed { objects, more: false })
            }
            StorageRequest::Difference { object, have } => self.difference(*object, have),
            StorageRequest::Verify { object, first } => Ok(self.verify(*object, *first)),
            _ => Err(StorageError::Busy),
        }
    }

    /// Only what is durable is told.
    fn difference(&self, id: ObjectId, have: &[ChunkState]) -> Result<StorageReply, StorageError> {
        let mut delta = self.durable.delta(id, Stamp::ZERO);
        let mut position = 0;
        let (mut bytes, mut checksums) = (BytesMut::new(), Vec::new());
        let mut chunks = Vec::new();
        for chunk in &delta.chunks {
            let blocks = (chunk.present & !chunk.zero).count_ones() as usize;
            if !have.contains(chunk) {
                for bit in bits_of(chunk.present & !chunk.zero) {
                    let block = u32::from(chunk.chunk) * BLOCKS_PER_CHUNK + bit;
                    if self.damaged.contains(&(id, block)) {
                        return Err(StorageError::Damaged { object: id, block });
                    }
                }
                let size = BLOCK_SIZE as usize;
                bytes.extend_from_slice(&delta.bytes[position * size..(position + blocks) * size]);
                checksums.extend_from_slice(&delta.checksums[position..position + blocks]);
                chunks.push(chunk.clone());
            }
            position += blocks;
        }
        let gone = have
            .iter()
            .filter(|his| delta.chunks.iter().all(|ours| ours.chunk != his.chunk));
        chunks.extend(gone.map(|his| ChunkState {
            chunk: his.chunk,
            stamp: Stamp::ZERO,
            present: 0,
            zero: 0,
        }));
        chunks.sort_unstable_by_key(|chunk| chunk.chunk);
        delta.chunks = chunks;
        delta.checksums = Arc::from(checksums);
        delta.bytes = bytes.freeze();
        Ok(StorageReply::Delta(delta))
    }

    /// As all blocks are on stable storage here, or are to be, only those are wrong that were made so.
    fn verify(&self, id: ObjectId, first: u8) -> StorageReply {
        let empty = Object::default();
        let object = self.accepted.objects.get(&id).unwrap_or(&empty);
        let state = object.state(id);
        let (mut blocks, mut damaged) = (0, Vec::new());
        let wanted = first..first.saturating_add(VERIFY_CHUNKS);
        for chunk in state.chunks.iter().filter(|chunk| wanted.contains(&chunk.chunk)) {
            let data = chunk.present & !chunk.zero;
            blocks += data.count_ones();
            let (mut bad, mut checksums) = (0, Vec::new());
            for bit in bits_of(data) {
                let block = u32::from(chunk.chunk) * BLOCKS_PER_CHUNK + bit;
                if let Some(Held::Bytes((_, checksum))) = object.block(block) {
                    checksums.push(*checksum);
                }
                if self.damaged.contains(&(id, block)) {
                    bad |= 1 << bit;
                }
            }
            if bad != 0 {
                damaged.push(DamagedChunk {
                    state: chunk.clone(),
                    blocks: bad,
                    checksums: checksums.into(),
                });
            }
        }
        StorageReply::Verified(Verified {
            state,
            blocks,
            damaged,
        })
    }

    /// How many of the blocks that there are are damaged.
    pub(crate) fn damaged_blocks(&self) -> usize {
        let is_there = |(object, block): &&(ObjectId, u32)| {
            let object = self.accepted.objects.get(object);
            object.is_some_and(|object| matches!(object.block(*block), Some(Held::Bytes(_))))
        };
        self.damaged.iter().filter(is_there).count()
    }

    /// No block is damaged any more.
    pub(crate) fn mend(&mut self) {
        self.damaged.clear();
    }

    /// Makes one block that this disk has unreadable; tells whether it did.
    pub(crate) fn damage(&mut self, chance: &mut Chance) -> bool {
        let objects: Vec<ObjectId> = self.durable.objects.keys().copied().collect();
        let Some(object) = chance.pick(&objects) else {
            return false;
        };
        let blocks: Vec<u32> = self.durable.objects[&object].blocks().collect();
        let block = chance.pick(&blocks);
        block.is_some_and(|block| self.damaged.insert((object, block)))
    }

    /// The same, as if the power had failed before.
    #[cfg(test)]
    pub(crate) fn look_after_a_cut(&self, request: &StorageRequest) -> Result<StorageReply, StorageError> {
        let cut = Self {
            accepted: self.durable.clone(),
            durable: self.durable.clone(),
            damaged: self.damaged.clone(),
            ..Self::default()
        };
        cut.look(request)
    }

    /// Makes this block unreadable.
    #[cfg(test)]
    pub(crate) fn damage_block(&mut self, object: ObjectId, block: u32) {
        self.damaged.insert((object, block));
    }

    pub(crate) fn generations(&self) -> Vec<(VolumeId, Generation)> {
        self.durable
            .generations
            .iter()
            .map(|(volume, generation)| (*volume, *generation))
            .collect()
    }

    pub(crate) fn intervals(&self) -> Vec<(PgId, Interval)> {
        self.durable
            .intervals
            .iter()
            .map(|(pg, interval)| (*pg, *interval))
            .collect()
    }

    pub(crate) fn doubts(&self) -> Vec<(ObjectId, Stamp)> {
        self.durable
            .doubts
            .iter()
            .map(|(object, stamp)| (*object, *stamp))
            .collect()
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_durable(&self) -> bool {
        self.queue.is_empty()
    }

    /// The objects that there are.
    pub(crate) fn objects(&self) -> Vec<ObjectId> {
        self.accepted.objects.keys().copied().collect()
    }

    /// What an object holds, for comparisons between disks.
    pub(crate) fn content(&self, object: ObjectId) -> ObjectDelta {
        self.accepted.delta(object, Stamp::ZERO)
    }

    /// The objects that a chain shows, the newest first: upper ones hide lower ones.
    fn shown(
        &self,
        chain: &LayerChain,
        id: impl Fn(protocol::LayerId) -> ObjectId,
    ) -> Vec<(ObjectId, &Object)> {
        let layers = chain.layers().iter();
        let object = |layer: &protocol::LayerId| {
            let id = id(*layer);
            Some((id, self.accepted.objects.get(&id)?))
        };
        layers.filter_map(object).collect()
    }

    fn head_stamp(&self, chain: &LayerChain, id: impl Fn(protocol::LayerId) -> ObjectId) -> Stamp {
        let head = chain.head().map(id);
        head.and_then(|object| self.accepted.objects.get(&object))
            .map(|object| object.stamp)
            .unwrap_or_default()
    }

    fn read(
        &self,
        chain: &LayerChain,
        id: impl Fn(protocol::LayerId) -> ObjectId + Copy,
        ranges: &BlockRanges,
    ) -> Result<StorageReply, StorageError> {
        let mut bytes = BytesMut::with_capacity(ranges.byte_len());
        let mut checksums = Vec::new();
        let shown = self.shown(chain, id);
        for block in ranges.iter().flat_map(BlockRange::blocks) {
            let found = shown
                .iter()
                .find_map(|(object, has)| Some((*object, has.block(block)?)));
            if let Some((object, _)) = found
                && self.damaged.contains(&(object, block))
            {
                return Err(StorageError::Damaged { object, block });
            }
            if let Some((_, Held::Bytes((data, checksum)))) = found {
                bytes.extend_from_slice(data);
                checksums.push(*checksum);
            } else {
                bytes.resize(bytes.len() + BLOCK_SIZE as usize, 0);
                checksums.push(0);
            }
        }
        let stamp = self.head_stamp(chain, id);
        Ok(StorageReply::Data {
            stamp,
            bytes: bytes.freeze(),
            checksums: checksums.into(),
        })
    }

    fn map(
        &self,
        chain: &LayerChain,
        id: impl Fn(protocol::LayerId) -> ObjectId + Copy,
        range: BlockRange,
    ) -> StorageReply {
        let shown = self.shown(chain, id);
        let mut runs: Vec<MapRun> = Vec::new();
        for (number, part) in parts(range.blocks()) {
            let (mut data, mut zero) = (0, 0);
            for chunk in shown.iter().filter_map(|(_, object)| object.chunks.get(&number)) {
                let seen = chunk.present & !(data | zero);
                data |= seen & !chunk.zero;
                zero |= seen & chunk.zero;
            }
            let kind = |bit: u32| match 1 << bit {
                bit if data & bit != 0 => MapKind::Data,
                bit if zero & bit != 0 => MapKind::Zero,
                _ => MapKind::Hole,
            };
            let mut from = part.start;
            while from < part.end {
                let same = (from..part.end)
                    .take_while(|bit| kind(*bit) == kind(from))
                    .count();
                let count = u32::try_from(same).unwrap_or(1);
                add_run(&mut runs, number * BLOCKS_PER_CHUNK + from, count, kind(from));
                from += count;
            }
        }
        StorageReply::Map {
            stamp: self.head_stamp(chain, id),
            runs,
        }
    }
}

/// Adds blocks behind those that there are already.
fn add_run(runs: &mut Vec<MapRun>, start: u32, count: u32, kind: MapKind) {
    let longer = runs.last().filter(|run| run.kind == kind);
    let longer = longer.and_then(|run| BlockRange::new(run.range.start(), run.range.count() + count));
    if let (Some(range), Some(last)) = (longer, runs.last_mut()) {
        last.range = range;
    } else if let Some(range) = BlockRange::new(start, count) {
        runs.push(MapRun { range, kind });
    }
}

/// Whether the bytes of a write are those that its checksums were made of.
fn is_sound(write: &ObjectWrite) -> bool {
    match &write.change {
        Change::Data { bytes, checksums } => bytes
            .chunks(BLOCK_SIZE as usize)
            .zip(checksums.iter())
            .all(|(block, checksum)| crc32c::crc32c(block) == *checksum),
        Change::Zero => true,
    }
}

impl State {
    fn change(&mut self, request: &StorageRequest) -> Result<(), StorageError> {
        match request {
            StorageRequest::Write(write) => self.write(write),
            StorageRequest::Level { follows, delta } => self.level(*follows, delta),
            StorageRequest::Replace {
                follows,
                delta,
                doubt,
            } => self.replace(*follows, delta, *doubt),
            StorageRequest::Mend {
                object,
                chunk,
                checksums,
                bytes,
            } => self.mend(*object, chunk, (checksums, bytes)),
            StorageRequest::Settle(objects) => {
                for (object, up_to) in objects {
                    if self.doubts.get(object).is_some_and(|stamp| stamp <= up_to) {
                        self.doubts.remove(object);
                    }
                }
                Ok(())
            }
            StorageRequest::RaiseGeneration(volume, generation) => {
                let known = self.generations.entry(*volume).or_default();
                *known = (*known).max(*generation);
                Ok(())
            }
            StorageRequest::RaiseInterval(pg, interval) => {
                let known = self.intervals.entry(*pg).or_default();
                *known = (*known).max(*interval);
                Ok(())
            }
            StorageRequest::Merge {
                family,
                index,
                parent,
                child,
                row_chunks,
            } => {
                let parent = ObjectId {
                    family: *family,
                    index: *index,
                    layer: *parent,
                };
                let child = ObjectId {
                    family: *family,
                    index: *index,
                    layer: *child,
                };
                self.leave_out(parent, child, *row_chunks);
                self.merge(parent, child);
                Ok(())
            }
            StorageRequest::Drop(object) => {
                self.objects.remove(object);
                self.doubts.remove(object);
                Ok(())
            }
            StorageRequest::Read { .. }
            | StorageRequest::Map { .. }
            | StorageRequest::Places { .. }
            | StorageRequest::Pull { .. }
            | StorageRequest::List { .. }
            | StorageRequest::Column { .. }
            | StorageRequest::Difference { .. }
            | StorageRequest::Verify { .. }
            | StorageRequest::Probe => Ok(()),
        }
    }

    fn write(&mut self, write: &ObjectWrite) -> Result<(), StorageError> {
        let at = self
            .objects
            .get(&write.object)
            .map(|object| object.stamp)
            .unwrap_or_default();
        if at != write.follows
            && !replication::mutation::active(replication::mutation::Mutation::IgnoreFollows)
        {
            return Err(StorageError::Gap(at));
        }
        self.objects.entry(write.object).or_default().write(write);
        self.doubts.insert(write.object, write.stamp);
        Ok(())
    }

    /// Drops what a front that is about to be merged has from before its rows, as either layer has them.
    fn leave_out(&mut self, parent: ObjectId, child: ObjectId, row_chunks: Option<u8>) {
        let Some(row_chunks) = row_chunks.filter(|chunks| *chunks > 0) else {
            return;
        };
        // Of the rows object itself, the two places of a row are neighbours.
        let row_chunks = if rows::is_rows(parent.index) {
            2
        } else {
            row_chunks
        };
        let rows: Vec<Object> = [parent, child]
            .into_iter()
            .filter_map(|front| {
                let index = rows::rows_index(front.index);
                self.objects.get(&ObjectId { index, ..front }).cloned()
            })
            .collect();
        let Some(front) = self.objects.get_mut(&parent) else {
            return;
        };
        front.chunks.retain(|number, chunk| {
            let row = number / u32::from(row_chunks);
            let mut places = rows
                .iter()
                .flat_map(|rows| rows.chunks.range(2 * row..2 * row + 2));
            !places.any(|(_, row)| chunk.stamp < row.stamp)
        });
    }

    fn level(&mut self, follows: Stamp, delta: &ObjectDelta) -> Result<(), StorageError> {
        let at = self
            .objects
            .get(&delta.object)
            .map(|object| object.stamp)
            .unwrap_or_default();
        if at != follows {
            return Err(StorageError::Gap(at));
        }
        let object = self.objects.entry(delta.object).or_default();
        object.take_in(delta, |_| true);
        self.doubts.insert(delta.object, delta.stamp);
        Ok(())
    }

    fn replace(&mut self, follows: Stamp, delta: &ObjectDelta, doubt: bool) -> Result<(), StorageError> {
        let id = delta.object;
        let had = self.doubts.get(&id).copied();
        let mut object = self.objects.remove(&id).unwrap_or_default();
        if object.stamp != follows {
            let at = object.stamp;
            if at > Stamp::ZERO || object.has_blocks() {
                self.objects.insert(id, object);
            }
            return Err(StorageError::Gap(at));
        }
        for chunk in &delta.chunks {
            object.chunks.remove(&u32::from(chunk.chunk));
        }
        object.take_in(delta, |chunk| chunk.present != 0);
        self.doubts.remove(&id);
        if object.stamp == Stamp::ZERO && !object.has_blocks() {
            return Ok(());
        }
        self.objects.insert(id, object);
        if doubt || had.is_some() {
            self.doubts.insert(id, delta.stamp);
        }
        Ok(())
    }

    fn mend(
        &mut self,
        id: ObjectId,
        wanted: &ChunkState,
        (checksums, bytes): (&[u32], &Bytes),
    ) -> Result<(), StorageError> {
        let at = self.objects.get(&id).map_or(Stamp::ZERO, |object| object.stamp);
        let object = self.objects.get_mut(&id);
        if object.is_some_and(|object| object.mend(wanted, checksums, bytes)) {
            Ok(())
        } else {
            Err(StorageError::Gap(at))
        }
    }

    fn merge(&mut self, parent: ObjectId, child: ObjectId) {
        self.doubts.remove(&parent);
        let Some(old) = self.objects.remove(&parent) else {
            return;
        };
        let object = self.objects.entry(child).or_default();
        object.take_over(old);
    }

    fn delta(&self, id: ObjectId, above: Stamp) -> ObjectDelta {
        let empty = Object::default();
        self.objects.get(&id).unwrap_or(&empty).delta(id, above)
    }
}
