//! Writes to volumes in pools that encode rows (`docs/decisions/0050-erasure-coding.md`): what covers a row whole becomes
//! a write of one chunk to each slot, what is smaller a write to the range's front, which the first slots keep as copies.
//!
//! One file because a write is cut, begun, shown and followed here, and all of it goes by what is known of ranges.
//!
//! The names of rules are those of decision 0052. How reads find their bytes is `reading`'s business, how rows are made
//! level at a take-over `taking_over`'s.

mod giving_back;
mod reading;
mod resting;
mod taking_over;

pub(super) use reading::{Rebuilding, Target};
pub(super) use taking_over::{Active, RowSlots};

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use protocol::geometry::{BLOCKS_PER_CHUNK, CHUNK_SIZE};
use protocol::profile::Profile;
use protocol::rows::{Row, RowCode, RowPlace, Rows, rows_index};
use protocol::storage::{Change, ObjectState};
use protocol::{BLOCK_SIZE, BlockRange, Stamp, checksum};

use super::Owner;
use super::event::Action;
use super::limits::RANGES_KNOWN_MAX;
use super::operation::Part;
use super::write::{Draft, Write};
use crate::moment::Moment;
use crate::mutation::{self, Mutation};
use crate::rows::layout::{Layout, Version};
use giving_back::Giving;
use resting::Resting;

/// How the pool encodes.
#[derive(Clone, Debug)]
pub(super) struct Encoding {
    pub(super) shape: Rows,
    pub(super) code: Arc<dyn RowCode>,
}

/// What a write is, beside its request.
#[derive(Clone, Debug)]
pub(super) enum Encoded {
    /// To a front.
    Front,
    /// Of a whole row: where it goes, and what each shard gets.
    Row {
        row: Row,
        version: Version,
        shards: Vec<Change>,
    },
}

/// What is known of ranges, by index.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    known: HashMap<u32, Range>,
    /// Counts what may have gone from where it lay, so that reads under way notice it.
    moves: u64,
    /// Ranges of which something can be given back, and when that was done last.
    spare: BTreeSet<u32>,
    gave_back: Moment,
    /// The count when everything was forgotten last: what was decided before counts for nothing.
    forgotten: u64,
    /// What is to be encoded once it is at rest.
    resting: Resting,
}

/// One range.
#[derive(Debug, Default)]
pub(super) struct Range {
    /// What is acknowledged; nothing until it was learned.
    pub(super) layout: Option<Layout>,
    /// Whether disks are asked for its columns.
    pub(super) learning: bool,
    pub(super) front: Option<Vec<ObjectState>>,
    pub(super) rows: Option<(u8, Vec<ObjectState>)>,
    /// Parts that wait for the layout, in order.
    waiting: VecDeque<(Part, Change)>,
    /// Rows that are being written, and what waits for that.
    busy: BTreeMap<Row, Busy>,
    /// What is being given back.
    giving: Option<Giving>,
    /// The count when something that lay there may have gone.
    moves: BTreeMap<(Row, Area), u64>,
}

/// Where bytes of a row may lie on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    Front,
    Place(RowPlace),
}

#[derive(Debug, Default)]
struct Busy {
    writing: bool,
    waiting: VecDeque<(Part, Change)>,
}

impl Encoding {
    pub(super) fn new(profile: Profile, code: Arc<dyn RowCode>) -> Self {
        Self {
            shape: Rows::new(profile),
            code,
        }
    }

    /// Shards of data.
    pub(super) fn data(&self) -> u8 {
        self.shape.profile().data()
    }

    /// The shards whose disks keep fronts.
    pub(super) fn fronts(&self) -> std::ops::Range<u8> {
        self.shape.profile().fronts()
    }

    /// What each shard gets of a row with this change.
    fn shards(&self, row: Row, change: &Change) -> Vec<Change> {
        let profile = self.shape.profile();
        let Change::Data { bytes, checksums } = change else {
            return vec![Change::Zero; usize::from(profile.width())];
        };
        let (size, blocks) = (CHUNK_SIZE as usize, BLOCKS_PER_CHUNK as usize);
        let given = self.shape.chunks(row) as usize;
        let zeros = vec![0; size];
        let part = |shard: usize| shard * size..(shard + 1) * size;
        let chunk = |shard: usize| {
            if shard < given {
                &bytes[part(shard)]
            } else {
                zeros.as_slice()
            }
        };
        let chunks: Vec<&[u8]> = (0..usize::from(self.data())).map(chunk).collect();
        let data = (0..usize::from(self.data())).map(|shard| {
            if shard >= given {
                // Nobody keeps the zeros that a short row lacks, but its disk must know of the version.
                return Change::Zero;
            }
            Change::Data {
                bytes: bytes.slice(part(shard)),
                checksums: checksums[shard * blocks..(shard + 1) * blocks].into(),
            }
        });
        let parity = self.code.encode(&chunks).unwrap_or_default();
        let parity = parity.into_iter().map(|parity| {
            let bytes = Bytes::from(parity);
            Change::Data {
                checksums: checksum::of_blocks(&bytes),
                bytes,
            }
        });
        data.chain(parity).collect()
    }
}

impl Encoded {
    /// With the stamp that the write got.
    pub(super) fn stamped(mut self, stamp: Stamp) -> Self {
        if let Self::Row { version, .. } = &mut self {
            version.stamp = stamp;
        }
        self
    }

    pub(super) fn is_row(&self) -> bool {
        matches!(self, Self::Row { .. })
    }

    /// What the disk with a shard gets, if not all get the same.
    pub(super) fn change_of(&self, shard: u8) -> Option<&Change> {
        match self {
            Self::Front => None,
            Self::Row { shards, .. } => shards.get(usize::from(shard)),
        }
    }
}

impl Ranges {
    /// The parts that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &(Part, Change)> {
        self.known.values().flat_map(|range| {
            let rows = range.busy.values().flat_map(|busy| &busy.waiting);
            range.waiting.iter().chain(rows)
        })
    }

    pub(super) fn get(&self, index: u32) -> Option<&Range> {
        self.known.get(&index)
    }

    /// What is acknowledged of a range, if that is known.
    pub(super) fn layout(&self, index: u32) -> Option<&Layout> {
        self.get(index)?.layout.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Range> {
        self.known.get_mut(&index)
    }

    pub(super) fn entry(&mut self, index: u32) -> &mut Range {
        self.known.entry(index).or_default()
    }

    /// The head is another layer: what is known of it is asked for anew.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.spare.clear();
        self.resting.forget();
        self.moves += 1;
        self.forgotten = self.moves;
    }

    fn gives_back(&self) -> bool {
        self.known.values().any(|range| range.giving.is_some())
    }

    pub(super) fn is_full(&self) -> bool {
        self.known.len() > RANGES_KNOWN_MAX
    }

    /// What was where reads look for it may be gone from now on.
    pub(super) fn moved(&mut self, index: u32, row: Row, area: Area) {
        self.moves += 1;
        let count = self.moves;
        self.entry(index).moves.insert((row, area), count);
    }

    /// When something may have gone from there last.
    pub(super) fn moves(&self, index: u32, row: Row, area: Area) -> u64 {
        let known = self
            .known
            .get(&index)
            .and_then(|range| range.moves.get(&(row, area)));
        known.copied().unwrap_or(self.forgotten)
    }

    fn idle(&self) -> Vec<u32> {
        let idle = self.known.iter().filter(|(_, range)| range.is_idle());
        let mut idle: Vec<u32> = idle.map(|(index, _)| *index).collect();
        idle.sort_unstable();
        idle
    }

    fn remove(&mut self, index: u32) {
        self.known.remove(&index);
        self.moves += 1;
        self.forgotten = self.moves;
    }
}

impl Range {
    fn is_idle(&self) -> bool {
        !self.learning && self.waiting.is_empty() && self.busy.is_empty()
    }
}

impl Owner {
    /// The shards whose disks get a write.
    pub(super) fn shards_of(&self, encoded: Option<&Encoded>) -> std::ops::Range<u8> {
        match (encoded, &self.encoding) {
            (Some(Encoded::Front), Some(encoding)) => encoding.fronts(),
            _ => 0..u8::MAX,
        }
    }

    /// Begins a part of a write: cuts it into rows as soon as the range is known.
    pub(super) fn begin_encoded(&mut self, part: Part, change: Change, out: &mut Vec<Action>) {
        let index = part.index;
        let range = self.writes.ranges.entry(index);
        range.waiting.push_back((part, change));
        self.writes.waiting += 1;
        self.begin_known(index, out);
    }

    /// Begins what waited for a range, if that is known; asks for it if not.
    pub(super) fn begin_known(&mut self, index: u32, out: &mut Vec<Action>) {
        let range = self.writes.ranges.entry(index);
        if range.layout.is_none() {
            return self.learn_range(index);
        }
        let waiting = std::mem::take(&mut range.waiting);
        self.writes.waiting -= waiting.len();
        for (part, change) in waiting {
            self.cut_to_rows(&part, &change, out);
        }
    }

    fn cut_to_rows(&mut self, part: &Part, change: &Change, out: &mut Vec<Action>) {
        let Some(shape) = self.encoding.as_ref().map(|encoding| encoding.shape) else {
            return;
        };
        let pieces = pieces(shape, part.range);
        self.operations.split(part.sequence, pieces.len());
        self.writes.parts += pieces.len() - 1;
        for (row, range) in pieces {
            let at = range.start() - part.range.start();
            self.begin_in_row(row, part.piece(range), slice(change, at, range.count()), out);
        }
    }

    /// Begins a write to one row, in the order of submission: after a write of the whole row that is on its way
    /// (`RowAfterRow`, `FrontWaitsForRow`).
    fn begin_in_row(&mut self, row: Row, part: Part, change: Change, out: &mut Vec<Action>) {
        let range = self.writes.ranges.entry(part.index);
        let busy = range.busy.get_mut(&row);
        let waits = !mutation::active(Mutation::RowsAtOnce);
        if let Some(busy) = busy.filter(|busy| waits && (busy.writing || !busy.waiting.is_empty())) {
            busy.waiting.push_back((part, change));
            self.writes.waiting += 1;
            return;
        }
        let Some((shape, layout)) = self
            .encoding
            .as_ref()
            .map(|encoding| encoding.shape)
            .zip(range.layout.as_ref())
        else {
            return;
        };
        let hole = change == Change::Zero && layout.is_hole(part.range);
        let (floor, mut place) = (layout.floor(row), layout.next_place(row));
        if mutation::active(Mutation::OnePlace) {
            place = RowPlace::Even;
        }
        if hole && self.writes.overlapping(part.index, part.range).is_empty() {
            self.writes.parts -= 1;
            self.operations.part_done(part.sequence, None, out);
            return;
        }
        let whole = shape.blocks(row) == Some(part.range);
        self.writes.ranges.resting.touched((part.index, row), !whole);
        if whole {
            self.write_row(row, place, part, change);
        } else {
            self.write_front(row, floor, part, change);
        }
    }

    fn write_front(&mut self, row: Row, floor: Stamp, part: Part, change: Change) {
        let range = self.writes.ranges.entry(part.index);
        if range
            .layout
            .as_ref()
            .is_some_and(|layout| layout.has_spare(part.range))
        {
            self.writes.ranges.moved(part.index, row, Area::Front);
        }
        let floor = if mutation::active(Mutation::FrontNotFresh) {
            Stamp::ZERO
        } else {
            floor
        };
        let draft = Draft {
            index: part.index,
            range: part.range,
            change,
            floor,
            encoded: Some(Encoded::Front),
        };
        self.enlist(part, draft);
    }

    fn write_row(&mut self, row: Row, place: RowPlace, part: Part, change: Change) {
        let (Some(encoding), Some(blocks)) = (&self.encoding, place.blocks(row.0)) else {
            return;
        };
        let version = Version {
            stamp: Stamp::ZERO,
            place,
            zero: change == Change::Zero,
        };
        let shards = encoding.shards(row, &change);
        let range = self.writes.ranges.entry(part.index);
        range.busy.entry(row).or_default().writing = true;
        self.writes.ranges.moved(part.index, row, Area::Place(place));
        let draft = Draft {
            index: rows_index(part.index),
            range: blocks,
            change,
            floor: Stamp::ZERO,
            encoded: Some(Encoded::Row { row, version, shards }),
        };
        self.enlist(part, draft);
    }

    /// A write is about to be acknowledged: the layout shows it from now on, and before it those to the same object that
    /// are older. All slots have these, though not all said so.
    pub(super) fn note_encoded(&mut self, count: u64) {
        let Some(write) = self
            .writes
            .sent
            .get(&count)
            .filter(|write| write.encoded.is_some())
        else {
            return;
        };
        let object = self.writes.objects.get(&write.request.object.index);
        let counts: Vec<u64> = object
            .map(|object| {
                object
                    .counts
                    .iter()
                    .copied()
                    .filter(|other| *other <= count)
                    .collect()
            })
            .unwrap_or_default();
        for count in counts {
            // One that is acknowledged after a later one was shown with that: shown again, it would cover the later one.
            let Some(write) = self.writes.sent.get_mut(&count).filter(|write| !write.noted) else {
                continue;
            };
            write.noted = true;
            let (part, stamp, index) = (&write.part, write.request.stamp, write.part.index);
            if let Some(Encoded::Row { row, version, .. }) = &write.encoded {
                // What the front has is old now, and so is the version before: a merge may leave them out.
                let ranges = &mut self.writes.ranges;
                ranges.moved(index, *row, Area::Front);
                ranges.moved(index, *row, Area::Place(version.place.other()));
            }
            let range = self.writes.ranges.get_mut(part.index);
            match (
                write.encoded.as_ref(),
                range.and_then(|range| range.layout.as_mut()),
            ) {
                (Some(Encoded::Row { row, version, .. }), Some(layout)) => layout.wrote_row(*row, *version),
                (Some(Encoded::Front), Some(layout)) => {
                    layout.wrote_front(part.range, stamp, write.request.change == Change::Zero);
                }
                _ => {}
            }
            self.note_spare(index);
        }
    }

    /// Whether a write to a front is older than the row that was acknowledged last.
    pub(super) fn is_behind_row(&self, count: u64, write: &Write) -> bool {
        let (Some(encoding), Some(Encoded::Front)) = (&self.encoding, &write.encoded) else {
            return false;
        };
        let (row, ..) = encoding.shape.place(write.part.range.start());
        let layout = self.writes.ranges.layout(write.part.index);
        let floor = layout.map(|layout| layout.floor(row));
        floor.is_some_and(|floor| floor.generation == self.view.generation && floor.count > count)
    }

    /// A write to a row is acknowledged. If it was one of the whole row, what waited for it is begun, until the next such.
    pub(super) fn go_on_in_row(&mut self, part: &Part, whole: bool, out: &mut Vec<Action>) {
        let (Some(encoding), true) = (&self.encoding, whole) else {
            return;
        };
        let row = encoding.shape.place(part.range.start()).0;
        let Some(busy) = self.writes.ranges.entry(part.index).busy.remove(&row) else {
            return;
        };
        self.writes.waiting -= busy.waiting.len();
        for (part, change) in busy.waiting {
            self.begin_in_row(row, part, change, out);
        }
    }

    /// Forgets half of the ranges when too many are known, whichever have nothing to do.
    pub(super) fn forget_ranges(&mut self) {
        if !self.writes.ranges.is_full() {
            return;
        }
        let known = self.writes.ranges.idle();
        let idle = known.into_iter().filter(|index| self.are_objects_idle(*index));
        let gone: Vec<u32> = idle.take(RANGES_KNOWN_MAX / 2).collect();
        for index in gone {
            self.forget_range(index);
        }
    }

    fn are_objects_idle(&self, index: u32) -> bool {
        let idle = |index: u32| {
            let object = self.writes.objects.get(&index);
            object.is_none_or(super::write::Object::idle)
        };
        idle(index) && idle(rows_index(index))
    }

    fn forget_range(&mut self, index: u32) {
        self.writes.ranges.remove(index);
        self.writes.objects.remove(&index);
        self.writes.objects.remove(&rows_index(index));
    }
}

/// A range cut at the borders of rows: whole rows, and what is left of others.
fn pieces(shape: Rows, range: BlockRange) -> Vec<(Row, BlockRange)> {
    let mut pieces = Vec::new();
    let mut at = range.start();
    while at < range.end() {
        let row = shape.place(at).0;
        let end = shape
            .blocks(row)
            .map_or(range.end(), BlockRange::end)
            .min(range.end());
        pieces.extend(BlockRange::new(at, end - at).map(|piece| (row, piece)));
        at = end.max(at + 1);
    }
    pieces
}

/// A part of a change, in blocks from its beginning.
fn slice(change: &Change, at: u32, count: u32) -> Change {
    let Change::Data { bytes, checksums } = change else {
        return Change::Zero;
    };
    if checksums.len() == count as usize {
        return change.clone();
    }
    let (from, to) = (at as usize, (at + count) as usize);
    let block = BLOCK_SIZE as usize;
    Change::Data {
        bytes: bytes.slice(from * block..to * block),
        checksums: checksums[from..to].into(),
    }
}
