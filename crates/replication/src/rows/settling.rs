//! One range of a pool that encodes rows on its way to one state on all disks in sync, at a take-over
//! (`docs/decisions/0052-rows-by-the-model.md`). What is to be asked and done follows from what the disks have; who sends
//! it is not known here. The front is made level afterwards as copies are.
//!
//! Of each row the highest version counts that k shards have (`EnoughShards`). Those that lack it get it, rebuilt from k
//! others; what is newer goes from all (`NewerGoes`); what is older stays until then (`OlderStays`). And from the fronts
//! goes what is older than their row, for what a disk lacks of a front comes beside what it has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::rows::{Row, RowCode, RowPlace, Rows};
use protocol::storage::{ChunkState, ObjectDelta, ObjectState};
use protocol::{BlockRange, DiskId, ObjectId, Stamp};

use super::{absent, replacement};
use crate::mutation::{self, Mutation};

/// What is known, and what was gathered.
#[derive(Debug)]
pub struct Settling {
    shape: Rows,
    front: ObjectId,
    rows: ObjectId,
    shelves: BTreeMap<DiskId, Shelf>,
    /// The row that is being rebuilt, and the shards of it that have come.
    gathered: Option<(Row, Stamp, BTreeMap<u8, Bytes>)>,
    /// Shards that cannot be read where they are.
    bad: BTreeSet<(DiskId, u32)>,
}

/// What one disk has.
#[derive(Debug)]
struct Shelf {
    shard: u8,
    keeps_front: bool,
    rows: Option<Column>,
    front: Option<Column>,
}

/// What a disk has of an object.
#[derive(Clone, Debug, Default)]
struct Column {
    /// The stamp of the layer that is written to.
    stamp: Stamp,
    /// Its chunks that have something.
    own: BTreeMap<u32, ChunkState>,
    /// The newest of each chunk in the layers below.
    below: BTreeMap<u32, Stamp>,
}

/// The version that counts of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    stamp: Stamp,
    place: RowPlace,
    zero: bool,
}

/// The next thing to do at a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask what it has of an object, through the layers.
    Ask(ObjectId),
    /// Read its shard of a row.
    Read {
        /// The rows object.
        object: ObjectId,
        /// The blocks of the place.
        blocks: BlockRange,
    },
    /// Make chunks other ones.
    Replace {
        /// The stamp that the object has.
        follows: Stamp,
        /// What to make of it.
        delta: ObjectDelta,
    },
}

impl Shelf {
    /// What is known of its rows, or of its front.
    fn column(&mut self, rows: bool) -> &mut Option<Column> {
        if rows { &mut self.rows } else { &mut self.front }
    }
}

impl Settling {
    /// Of a range with these two objects, on these disks in sync with their shards. `fronts` are the shards whose disks keep
    /// the front.
    pub fn new(
        shape: Rows,
        (front, rows): (ObjectId, ObjectId),
        disks: impl Iterator<Item = (DiskId, u8)>,
        fronts: &std::ops::Range<u8>,
    ) -> Self {
        let shelf = |(disk, shard)| {
            let shelf = Shelf {
                shard,
                keeps_front: fronts.contains(&shard),
                rows: None,
                front: None,
            };
            (disk, shelf)
        };
        Self {
            shape,
            front,
            rows,
            shelves: disks.map(shelf).collect(),
            gathered: None,
            bad: BTreeSet::new(),
        }
    }

    /// The front's object.
    pub fn front(&self) -> ObjectId {
        self.front
    }

    /// What a disk has of one of the two objects, by layer.
    pub fn column(&mut self, disk: DiskId, object: ObjectId, states: &[ObjectState]) {
        let mut column = Column::default();
        for state in states {
            let own = state.object.layer == object.layer;
            if own {
                column.stamp = state.stamp;
            }
            for chunk in state.chunks.iter().filter(|chunk| chunk.present != 0) {
                let number = u32::from(chunk.chunk);
                if own {
                    column.own.insert(number, chunk.clone());
                } else {
                    let known = column.below.entry(number).or_default();
                    *known = chunk.stamp.max(*known);
                }
            }
        }
        if let Some(shelf) = self.shelves.get_mut(&disk) {
            *shelf.column(object == self.rows) = Some(column);
        }
    }

    /// What a disk has is not what was thought: it is asked again.
    pub fn forget(&mut self, disk: DiskId) {
        if let Some(shelf) = self.shelves.get_mut(&disk) {
            (shelf.rows, shelf.front) = (None, None);
        }
    }

    /// A shard came that a [`Step::Read`] asked for.
    pub fn read(&mut self, disk: DiskId, blocks: BlockRange, bytes: Bytes) {
        let row = Row(RowPlace::of_chunk(blocks.start() / BLOCKS_PER_CHUNK).0);
        let shard = self.shelves.get(&disk).map(|shelf| shelf.shard);
        if let (Some(shard), Some((wanted, _, have))) = (shard, &mut self.gathered)
            && *wanted == row
        {
            have.insert(shard, bytes);
        }
    }

    /// A disk cannot read its shard of a row.
    pub fn unreadable(&mut self, disk: DiskId, blocks: BlockRange) {
        self.bad.insert((disk, blocks.start() / BLOCKS_PER_CHUNK));
    }

    /// A [`Step::Replace`] was done.
    pub fn replaced(&mut self, disk: DiskId, delta: &ObjectDelta) {
        let Some(shelf) = self.shelves.get_mut(&disk) else {
            return;
        };
        let Some(column) = shelf.column(delta.object == self.rows) else {
            return;
        };
        column.stamp = delta.stamp;
        for chunk in &delta.chunks {
            let number = u32::from(chunk.chunk);
            if chunk.present == 0 {
                column.own.remove(&number);
            } else {
                column.own.insert(number, chunk.clone());
            }
        }
    }

    /// What to do next, by disk; `idle` says with whom nothing is under way. Nothing, while all are idle: it is settled.
    pub fn steps(&mut self, code: &dyn RowCode, idle: impl Fn(DiskId) -> bool) -> Vec<(DiskId, Step)> {
        let unknown: Vec<(DiskId, Step)> = self
            .shelves
            .iter()
            .filter_map(|(disk, shelf)| {
                let object = match (&shelf.rows, &shelf.front) {
                    (None, _) => self.rows,
                    (_, None) if shelf.keeps_front => self.front,
                    _ => return None,
                };
                Some((*disk, Step::Ask(object)))
            })
            .collect();
        let all = self.shelves.keys().all(|disk| idle(*disk));
        let steps = if unknown.is_empty() {
            // Each step goes by what all have: none is decided while another one changes that.
            if all { self.decide(code) } else { Vec::new() }
        } else {
            unknown
        };
        steps.into_iter().filter(|(disk, _)| idle(*disk)).collect()
    }

    fn decide(&mut self, code: &dyn RowCode) -> Vec<(DiskId, Step)> {
        for row in (0..self.shape.count()).map(Row) {
            let Some(target) = self.target(row) else { continue };
            let lacking = self.lacking(row, target);
            if !lacking.is_empty() {
                return self.rebuild(row, target, &lacking, code);
            }
        }
        self.gathered = None;
        let steps = self.finish_rows();
        if steps.is_empty() {
            self.clear_fronts()
        } else {
            steps
        }
    }

    fn data(&self) -> usize {
        usize::from(self.shape.profile().data())
    }

    fn columns(&self) -> impl Iterator<Item = (DiskId, &Shelf, &Column)> {
        let shelves = self.shelves.iter();
        shelves.filter_map(|(disk, shelf)| Some((*disk, shelf, shelf.rows.as_ref()?)))
    }

    /// The version of a row that counts: the highest that k shards have.
    fn target(&self, row: Row) -> Option<Target> {
        let mut holders: BTreeMap<(Stamp, RowPlace), usize> = BTreeMap::new();
        for (_, _, column) in self.columns() {
            for place in RowPlace::BOTH {
                let chunk = place.chunk(row.0);
                let own = column.own.get(&chunk).map(|chunk| chunk.stamp);
                // The same version may be merged into the layer on one disk and not yet on the other.
                let stamps: BTreeSet<Stamp> =
                    own.into_iter().chain(column.below.get(&chunk).copied()).collect();
                for stamp in stamps {
                    *holders.entry((stamp, place)).or_default() += 1;
                }
            }
        }
        let enough = if mutation::active(Mutation::AnyShards) {
            1
        } else {
            self.data()
        };
        let mut highest = holders.iter().rev().filter(|(_, count)| **count >= enough);
        let ((stamp, place), _) = highest.next()?;
        let zero = |(_, shelf, column): (DiskId, &Shelf, &Column)| {
            let chunk = column.own.get(&place.chunk(row.0))?;
            (chunk.stamp == *stamp && !self.shape.lacks(row, shelf.shard)).then_some(chunk.zero == u16::MAX)
        };
        Some(Target {
            stamp: *stamp,
            place: *place,
            zero: self.columns().find_map(zero).unwrap_or(false),
        })
    }

    /// The stamps of the versions that count, by row.
    fn counting(&self) -> Vec<Stamp> {
        let stamp = |row| self.target(Row(row)).map_or(Stamp::ZERO, |target| target.stamp);
        (0..self.shape.count()).map(stamp).collect()
    }

    fn has(column: &Column, row: Row, target: Target) -> bool {
        let chunk = target.place.chunk(row.0);
        let own = column
            .own
            .get(&chunk)
            .is_some_and(|chunk| chunk.stamp == target.stamp);
        own || column.below.get(&chunk) == Some(&target.stamp)
    }

    fn lacking(&self, row: Row, target: Target) -> Vec<DiskId> {
        let lacks = self
            .columns()
            .filter(|(_, _, column)| !Self::has(column, row, target));
        lacks.map(|(disk, ..)| disk).collect()
    }

    /// Gathers k shards of a row, and then gives theirs to those that lack it.
    fn rebuild(
        &mut self,
        row: Row,
        target: Target,
        lacking: &[DiskId],
        code: &dyn RowCode,
    ) -> Vec<(DiskId, Step)> {
        let wanted = (row, target.stamp);
        if self.gathered.as_ref().map(|(row, stamp, _)| (*row, *stamp)) != Some(wanted) {
            self.gathered = Some((row, target.stamp, BTreeMap::new()));
        }
        let Some((_, _, have)) = &self.gathered else {
            return Vec::new();
        };
        let Some(blocks) = target.place.blocks(row.0) else {
            return Vec::new();
        };
        let short = self.data().saturating_sub(have.len());
        if !target.zero && short > 0 {
            let chunk = target.place.chunk(row.0);
            let readable = |(disk, shelf, column): (DiskId, &Shelf, &Column)| {
                let fit = Self::has(column, row, target) && !have.contains_key(&shelf.shard);
                fit.then_some(disk)
            };
            let mut sources: Vec<DiskId> = self.columns().filter_map(readable).collect();
            // One whose shard is damaged comes last: it may have been mended meanwhile.
            sources.sort_by_key(|disk| self.bad.contains(&(*disk, chunk)));
            let read = Step::Read {
                object: self.rows,
                blocks,
            };
            return sources
                .into_iter()
                .take(short)
                .map(|disk| (disk, read.clone()))
                .collect();
        }
        let have = |shard: u8| have.get(&shard).map(|bytes| bytes.to_vec());
        let width = self.shape.profile().width();
        let shards = if target.zero {
            Vec::new()
        } else {
            code.rebuild((0..width).map(have).collect()).unwrap_or_default()
        };
        let give = |disk: &DiskId| {
            let shelf = self.shelves.get(disk)?;
            let zero = target.zero || self.shape.lacks(row, shelf.shard);
            let bytes = match shards.get(usize::from(shelf.shard)) {
                Some(shard) if !zero => Bytes::copy_from_slice(shard),
                _ => Bytes::new(),
            };
            let chunk = ChunkState {
                chunk: u8::try_from(target.place.chunk(row.0)).ok()?,
                stamp: target.stamp,
                present: u16::MAX,
                zero: if zero { u16::MAX } else { 0 },
            };
            let follows = shelf.rows.as_ref()?.stamp;
            Some((*disk, replace(self.rows, follows, follows, vec![chunk], bytes)))
        };
        lacking.iter().filter_map(give).collect()
    }

    /// What is newer than the version that counts goes, and what is older, as all have that by now; and all come to one
    /// stamp.
    fn finish_rows(&self) -> Vec<(DiskId, Step)> {
        let counts = self.counting();
        let stamp = self
            .columns()
            .map(|(.., column)| column.stamp)
            .max()
            .unwrap_or(Stamp::ZERO);
        let finish = |(disk, _, column): (DiskId, &Shelf, &Column)| {
            let other = |number: &&u32| {
                let counts = stamp_of(&counts, RowPlace::of_chunk(**number).0);
                let stays =
                    |at: Stamp| at == counts || (at > counts && mutation::active(Mutation::NewerStays));
                column.own.get(*number).is_some_and(|chunk| !stays(chunk.stamp))
            };
            let gone: Vec<ChunkState> = column
                .own
                .keys()
                .filter(other)
                .filter_map(|number| absent(*number))
                .collect();
            let done = gone.is_empty() && column.stamp == stamp;
            (!done).then(|| (disk, replace(self.rows, column.stamp, stamp, gone, Bytes::new())))
        };
        self.columns().filter_map(finish).collect()
    }

    /// What is older than its row goes from the fronts.
    fn clear_fronts(&self) -> Vec<(DiskId, Step)> {
        if mutation::active(Mutation::OldFrontsStay) {
            return Vec::new();
        }
        let counts = self.counting();
        let clear = |(disk, shelf): (&DiskId, &Shelf)| {
            let front = shelf.front.as_ref()?;
            let old = |(number, chunk): (&u32, &ChunkState)| {
                let floor = stamp_of(&counts, number / u32::from(self.shape.profile().data()));
                (chunk.stamp < floor).then(|| absent(*number))?
            };
            let gone: Vec<ChunkState> = front.own.iter().filter_map(old).collect();
            let replace = replace(self.front, front.stamp, front.stamp, gone.clone(), Bytes::new());
            (!gone.is_empty()).then_some((*disk, replace))
        };
        self.shelves.iter().filter_map(clear).collect()
    }
}

fn replace(object: ObjectId, follows: Stamp, stamp: Stamp, chunks: Vec<ChunkState>, bytes: Bytes) -> Step {
    Step::Replace {
        follows,
        delta: replacement(object, stamp, chunks, bytes),
    }
}

fn stamp_of(counts: &[Stamp], row: u32) -> Stamp {
    counts.get(row as usize).copied().unwrap_or(Stamp::ZERO)
}
