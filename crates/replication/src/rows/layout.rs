//! The newest state of one 4 MiB range: for each block whether its front has it or its row, and where that lies.
//!
//! Along a chain of layers the higher stamp is the later write, so of a row and of what its front has, the higher stamp
//! counts, whatever layers they are in, and however far the layers are merged. Only what is complete may come in here:
//! nothing is known of writes under way.

use protocol::geometry::{BLOCKS_PER_CHUNK, CHUNKS_PER_OBJECT};
use protocol::profile::Profile;
use protocol::rows::{Row, RowPlace, Rows};
use protocol::storage::{ChunkState, MapKind, MapRun, ObjectState};
use protocol::{BlockRange, LayerId, Stamp};

/// The newest state of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Rows,
    rows: Vec<RowState>,
    fronts: Vec<Front>,
}

/// The last complete version of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The write that made it.
    pub stamp: Stamp,
    /// Where it lies.
    pub place: RowPlace,
    /// Whether it reads as zeros and has no bytes.
    pub zero: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RowState {
    version: Option<Version>,
    /// Something lies in the other place, which no version needs.
    spare: bool,
    /// The version is in the layer that may still be written to: a newer one sets it free.
    ours: bool,
}

/// What of a chunk counts that its front has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Front {
    present: u16,
    zero: u16,
    /// There are blocks that do not count: the row is newer.
    spare: bool,
    /// There are blocks that count in the layer that may still be written to: a newer row sets them free.
    ours: bool,
}

/// What has a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing: it reads as zeros.
    Hole,
    /// Somebody wrote zeros.
    Zero,
    /// The front.
    Front,
    /// A row.
    Row {
        /// Which.
        row: u32,
        /// Which shard of data has it, 0 to k - 1.
        shard: u8,
        /// In which place of the row.
        place: RowPlace,
        /// The blocks in the rows object of that shard's disk.
        blocks: BlockRange,
    },
}

impl Layout {
    /// Of a range of which nothing was ever written.
    pub fn empty(profile: Profile) -> Self {
        let shape = Rows::new(profile);
        Self {
            shape,
            rows: vec![RowState::default(); shape.count() as usize],
            fronts: vec![Front::default(); CHUNKS_PER_OBJECT as usize],
        }
    }

    /// As the layers show it that a disk has of the front and of the rows. `shard` is whose rows these are; `head` is the
    /// layer that may still be written to.
    pub fn resolve(
        profile: Profile,
        head: LayerId,
        front: &[ObjectState],
        (shard, rows): (u8, &[ObjectState]),
    ) -> Self {
        let mut layout = Self::empty(profile);
        for number in 0..layout.shape.count() {
            layout.resolve_row(Row(number), head, shard, rows);
        }
        for chunk in 0..CHUNKS_PER_OBJECT {
            layout.resolve_front(chunk, head, front);
        }
        layout
    }

    fn resolve_row(&mut self, row: Row, head: LayerId, shard: u8, objects: &[ObjectState]) {
        let mut state = RowState::default();
        for place in RowPlace::BOTH {
            let chunks = objects
                .iter()
                .filter_map(|object| chunk(object, place.chunk(row.0)));
            let Some(newest) = chunks
                .filter(|chunk| chunk.present != 0)
                .max_by_key(|chunk| chunk.stamp)
            else {
                continue;
            };
            // A shard that the last row lacks is zeros on its disk, whatever the others have.
            let lacks = self.shape.lacks(row, shard);
            let version = Version {
                stamp: newest.stamp,
                place,
                zero: newest.zero == u16::MAX && !lacks,
            };
            if state.version.is_none_or(|other| other.stamp < version.stamp) {
                state.version = Some(version);
            }
        }
        let other = state.version.map(|version| version.place.other().chunk(row.0));
        let ours = objects.iter().find(|object| object.object.layer == head);
        let has = |number: u32| ours.is_some_and(|ours| chunk(ours, number).is_some());
        state.spare = other.is_some_and(has);
        let version = state.version.map(|version| version.place.chunk(row.0));
        state.ours = version.is_some_and(has);
        if let Some(known) = self.rows.get_mut(row.0 as usize) {
            *known = state;
        }
    }

    fn resolve_front(&mut self, number: u32, head: LayerId, objects: &[ObjectState]) {
        let floor = self.floor(self.row_of(number));
        let mut chunks: Vec<(LayerId, &ChunkState)> = objects
            .iter()
            .filter_map(|object| Some((object.object.layer, chunk(object, number)?)))
            .collect();
        chunks.sort_unstable_by_key(|(_, chunk)| std::cmp::Reverse(chunk.stamp));
        let mut front = Front::default();
        for (layer, chunk) in chunks {
            if chunk.stamp < floor {
                front.spare |= chunk.present != 0;
                continue;
            }
            let new = chunk.present & !front.present;
            front.present |= new;
            front.zero |= chunk.zero & new;
            front.ours |= layer == head && new != 0;
        }
        if let Some(known) = self.fronts.get_mut(number as usize) {
            *known = front;
        }
    }

    /// How the range is cut into rows.
    pub fn shape(&self) -> Rows {
        self.shape
    }

    fn data(&self) -> u8 {
        self.shape.profile().data()
    }

    fn row_of(&self, chunk: u32) -> Row {
        Row(chunk / u32::from(self.data()))
    }

    /// The last complete version of a row.
    pub fn version(&self, row: Row) -> Option<Version> {
        self.rows.get(row.0 as usize)?.version
    }

    /// What a front's chunk must not be older than, to count: the stamp of its row.
    pub fn floor(&self, row: Row) -> Stamp {
        self.version(row).map_or(Stamp::ZERO, |version| version.stamp)
    }

    /// Where the next version of a row goes (rule `TwoPlaces`).
    pub fn next_place(&self, row: Row) -> RowPlace {
        self.version(row)
            .map_or(RowPlace::Even, |version| version.place.other())
    }

    /// A row has been written, and that is acknowledged.
    pub fn wrote_row(&mut self, row: Row, version: Version) {
        let Some(state) = self.rows.get_mut(row.0 as usize) else {
            return;
        };
        state.spare |= state.version.is_some_and(|before| before.place != version.place);
        (state.version, state.ours) = (Some(version), true);
        for chunk in self.chunks_of(row) {
            if let Some(front) = self.fronts.get_mut(chunk as usize) {
                let spare = front.spare || front.present != 0;
                *front = Front {
                    spare,
                    ..Front::default()
                };
            }
        }
    }

    /// Blocks of a front have been written, and that is acknowledged. What its chunks had before, and did not count, went
    /// with it. If the row was written since, they do not count themselves.
    pub fn wrote_front(&mut self, range: BlockRange, stamp: Stamp, zero: bool) {
        for block in range.blocks() {
            let (chunk, bit) = (block / BLOCKS_PER_CHUNK, 1 << (block % BLOCKS_PER_CHUNK));
            let old = stamp < self.floor(self.row_of(chunk));
            let Some(front) = self.fronts.get_mut(chunk as usize) else {
                continue;
            };
            // A write with a floor takes along what does not count; one that is old adds to it.
            front.spare = old;
            if !old {
                front.ours = true;
                front.present |= bit;
                front.zero = if zero { front.zero | bit } else { front.zero & !bit };
            }
        }
    }

    fn chunks_of(&self, row: Row) -> std::ops::Range<u32> {
        let first = row.0 * u32::from(self.data());
        first..first + self.shape.chunks(row)
    }

    /// What has a block.
    fn source(&self, block: u32) -> Source {
        let (chunk, bit) = (block / BLOCKS_PER_CHUNK, 1u16 << (block % BLOCKS_PER_CHUNK));
        let front = self.fronts.get(chunk as usize).copied().unwrap_or_default();
        if front.zero & bit != 0 {
            return Source::Zero;
        }
        if front.present & bit != 0 {
            return Source::Front;
        }
        let (row, shard, within) = self.shape.place(block);
        let Some(version) = self.version(row) else {
            return Source::Hole;
        };
        let first = version.place.chunk(row.0) * BLOCKS_PER_CHUNK + within;
        match (BlockRange::new(first, 1), u8::try_from(shard)) {
            (Some(blocks), Ok(shard)) if !version.zero => Source::Row {
                row: row.0,
                shard,
                place: version.place,
                blocks,
            },
            _ => Source::Zero,
        }
    }

    /// What has the blocks of a range: runs that touch and cover it, in order. One of a row lies in one chunk.
    pub fn sources(&self, range: BlockRange) -> Vec<(BlockRange, Source)> {
        let mut runs: Vec<(BlockRange, Source)> = Vec::new();
        for block in range.blocks() {
            let source = self.source(block);
            let longer = runs.last().and_then(|(run, last)| {
                let run = BlockRange::new(run.start(), run.count() + 1)?;
                Some((run, join(*last, source)?))
            });
            match (longer, BlockRange::new(block, 1)) {
                (Some(longer), _) => {
                    runs.pop();
                    runs.push(longer);
                }
                (None, Some(run)) => runs.push((run, source)),
                (None, None) => {}
            }
        }
        runs
    }

    /// What a range holds, as a map tells it.
    pub fn map(&self, range: BlockRange) -> Vec<MapRun> {
        let mut runs: Vec<MapRun> = Vec::new();
        for (range, source) in self.sources(range) {
            let kind = match source {
                Source::Hole => MapKind::Hole,
                Source::Zero => MapKind::Zero,
                Source::Front | Source::Row { .. } => MapKind::Data,
            };
            match runs.last_mut() {
                Some(last) if last.kind == kind => {
                    let joined = BlockRange::new(last.range.start(), last.range.count() + range.count());
                    last.range = joined.unwrap_or(last.range);
                }
                _ => runs.push(MapRun { range, kind }),
            }
        }
        runs
    }

    /// Whether nobody ever wrote to a range.
    pub fn is_hole(&self, range: BlockRange) -> bool {
        range.blocks().all(|block| self.source(block) == Source::Hole)
    }

    /// Whether the front's chunks of a range have something that does not count.
    pub fn has_spare(&self, range: BlockRange) -> bool {
        let (first, end) = (
            range.start() / BLOCKS_PER_CHUNK,
            range.end().div_ceil(BLOCKS_PER_CHUNK),
        );
        let fronts = self.fronts.get(first as usize..end as usize);
        fronts.unwrap_or_default().iter().any(|front| front.spare)
    }

    /// Chunks of the rows object that no version needs.
    pub fn spare_places(&self) -> Vec<u32> {
        let spare = |(row, state): (usize, &RowState)| {
            let version = state.version.filter(|_| state.spare)?;
            Some(version.place.other().chunk(u32::try_from(row).ok()?))
        };
        self.rows.iter().enumerate().filter_map(spare).collect()
    }

    /// Chunks of the front of which nothing counts, and which have something.
    pub fn spare_fronts(&self) -> Vec<u32> {
        let spare = |(chunk, front): (usize, &Front)| {
            (front.spare && front.present == 0).then(|| u32::try_from(chunk).ok())?
        };
        self.fronts.iter().enumerate().filter_map(spare).collect()
    }

    /// Whether less space is taken when a row is written as it reads now, and what that sets free is given back.
    pub fn pays(&self, row: Row) -> bool {
        let profile = self.shape.profile();
        let fronts = self.chunks_of(row).filter(|chunk| {
            let front = self.fronts.get(*chunk as usize);
            front.is_some_and(|front| front.ours)
        });
        // Chunks on all disks together.
        let row_takes = self.shape.chunks(row) as usize + usize::from(profile.parity());
        let fronts_take = fronts.count() * profile.fronts().len();
        let before = self.rows.get(row.0 as usize).filter(|state| state.ours);
        let before = before
            .and_then(|state| state.version)
            .filter(|version| !version.zero);
        let set_free = fronts_take + before.map_or(0, |_| row_takes);
        fronts_take > 0 && set_free > row_takes
    }

    /// The rows of which that is true.
    pub fn rows_that_pay(&self) -> Vec<Row> {
        (0..self.shape.count())
            .map(Row)
            .filter(|row| self.pays(*row))
            .collect()
    }

    /// Whether anything can be given back.
    pub fn is_spare_anywhere(&self) -> bool {
        let front = |front: &Front| front.spare && front.present == 0;
        self.rows.iter().any(|row| row.spare && row.version.is_some()) || self.fronts.iter().any(front)
    }

    /// These have been given back.
    pub fn gave_back(&mut self, places: &[u32], fronts: &[u32]) {
        for chunk in places {
            if let Some(state) = self.rows.get_mut(RowPlace::of_chunk(*chunk).0 as usize) {
                state.spare = false;
            }
        }
        for chunk in fronts {
            if let Some(front) = self.fronts.get_mut(*chunk as usize) {
                front.spare = false;
            }
        }
    }
}

/// Two sources side by side as one, if that is what they are.
fn join(first: Source, second: Source) -> Option<Source> {
    match (first, second) {
        (
            Source::Row {
                row,
                shard,
                place,
                blocks,
            },
            Source::Row {
                row: other_row,
                shard: other_shard,
                blocks: next,
                ..
            },
        ) => {
            let same = row == other_row && shard == other_shard;
            let blocks = BlockRange::new(blocks.start(), blocks.count() + next.count()).filter(|_| same)?;
            Some(Source::Row {
                row,
                shard,
                place,
                blocks,
            })
        }
        (first, second) => (first == second).then_some(first),
    }
}

fn chunk(object: &ObjectState, number: u32) -> Option<&ChunkState> {
    object
        .chunks
        .iter()
        .find(|chunk| u32::from(chunk.chunk) == number)
}

#[cfg(test)]
#[path = "layout/tests.rs"]
mod tests;
