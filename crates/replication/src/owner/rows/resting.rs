//! Encoding of what lies in fronts and is at rest: the row is read as it is, and written (decision 0056).
//!
//! Nobody waits for it, and guests go first: a write to the row ends it before the row is written, and while guests have
//! requests under way one row at a time is read. What is written is what everybody reads already, so it is a row like any
//! other, to whoever reads, takes over or comes back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::geometry::CHUNK_SIZE;
use protocol::rows::Row;
use protocol::storage::Change;
use protocol::{BLOCK_SIZE, BlockRange, OBJECT_SIZE, checksum};

use crate::moment::Moment;
use crate::mutation::{self, Mutation};
use crate::owner::event::Operation;
use crate::owner::limits::{
    RESTING_KNOWN_MAX, ROW_REST_MS, ROWS_GATHERED_BUSY_MAX, ROWS_GATHERED_MAX, SWEEP_PAUSE_MS,
};
use crate::owner::operation::Part;
use crate::owner::{Owner, Stage};
use crate::rows::layout::Layout;

/// A row: of which range, and which.
type Place = (u32, Row);

/// Which rows have something in their fronts, and since when.
#[derive(Debug, Default)]
pub(in crate::owner) struct Resting {
    /// Written to since the last turn.
    fresh: BTreeSet<Place>,
    /// Not since then: with the next turn they are due.
    stale: BTreeSet<Place>,
    due: BTreeSet<Place>,
    turned: Moment,
    /// Rows that are being read, by the operation that does.
    gathering: BTreeMap<u64, Place>,
    /// The range that is looked at next, for what a former owner left; and when one was looked at last.
    next_range: u32,
    looked: Moment,
    /// The one before, if nobody but us asked for it: 2 KiB that need not be kept.
    asked_for: Option<u32>,
    /// Rows that were encoded so far.
    encoded: u64,
}

impl Resting {
    /// A row is written to, or its front: whatever was to become of it is off.
    pub(super) fn touched(&mut self, place: Place, front: bool) {
        if !mutation::active(Mutation::EncodesStale) {
            self.gathering.retain(|_, other| *other != place);
        }
        self.stale.remove(&place);
        self.due.remove(&place);
        if front {
            self.put_off(place);
        }
    }

    /// It is looked at again later. What is beyond the limit is found by whoever opens the volume next.
    fn put_off(&mut self, place: Place) {
        if self.fresh.len() < RESTING_KNOWN_MAX {
            self.fresh.insert(place);
        }
    }

    /// Something was found in a front that nobody has written to for a while.
    fn found(&mut self, place: Place) {
        let known = self.fresh.contains(&place) || self.due.contains(&place);
        if !known && self.stale.len() < RESTING_KNOWN_MAX {
            self.stale.insert(place);
        }
    }

    /// The layer that is written to is another one, and has nothing yet.
    pub(super) fn forget(&mut self) {
        *self = Self {
            turned: self.turned,
            looked: self.looked,
            next_range: u32::MAX,
            encoded: self.encoded,
            ..Self::default()
        };
    }

    fn turn(&mut self, now: Moment) {
        if now.since(self.turned) >= ROW_REST_MS {
            self.turned = now;
            self.due.append(&mut self.stale);
            self.stale = std::mem::take(&mut self.fresh);
        }
    }
}

impl Owner {
    /// How many rows were encoded that had been at rest.
    pub fn encoded_at_rest(&self) -> u64 {
        self.writes.ranges.resting.encoded
    }

    /// Whether nothing is known that is to be encoded, and all was looked at.
    pub fn is_encoded(&self) -> bool {
        let resting = &self.writes.ranges.resting;
        let nothing = resting.fresh.is_empty() && resting.stale.is_empty() && resting.due.is_empty();
        let known = |index| self.writes.ranges.layout(index).is_some();
        let looked = resting.next_range >= self.ranges() && resting.asked_for.is_none_or(known);
        !self.encodes() || (nothing && looked && resting.gathering.is_empty())
    }

    fn encodes(&self) -> bool {
        let writes = self.view.generation.0 > 0 && !self.view.read_only;
        self.encoding.is_some() && writes && self.stage == Stage::Open
    }

    fn ranges(&self) -> u32 {
        let count = self.view.size.div_ceil(u64::from(OBJECT_SIZE));
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// When something is to be encoded or looked at.
    pub(in crate::owner) fn rest_due(&self) -> Option<Moment> {
        if !self.encodes() {
            return None;
        }
        let resting = &self.writes.ranges.resting;
        let turns = !resting.fresh.is_empty() || !resting.stale.is_empty();
        let turn = turns.then(|| resting.turned + ROW_REST_MS);
        let looks = resting.next_range < self.ranges() && !self.operations.has_submitted();
        let look = looks.then(|| resting.looked + SWEEP_PAUSE_MS);
        turn.into_iter().chain(look).min()
    }

    /// Begins to read rows that have been at rest for long enough.
    pub(in crate::owner) fn encode_resting(&mut self, now: Moment) {
        if !self.encodes() {
            return;
        }
        for (sequence, pieces) in self.operations.gathered() {
            if let Some(place) = self.writes.ranges.resting.gathering.remove(&sequence) {
                self.write_gathered(sequence, place, pieces);
            }
        }
        self.look_at_next_range(now);
        self.writes.ranges.resting.turn(now);
        if self.writes.ranges.resting.due.is_empty() {
            return;
        }
        let most = if self.operations.has_submitted() {
            ROWS_GATHERED_BUSY_MAX
        } else {
            ROWS_GATHERED_MAX
        };
        let resting = &mut self.writes.ranges.resting;
        let mut turn = Vec::new();
        while resting.gathering.len() + turn.len() < most
            && let Some(place) = resting.due.pop_first()
        {
            turn.push(place);
        }
        for place in turn {
            self.gather(place);
        }
    }

    /// One range after the other, slowly, when no guest waits: what a former owner left in fronts is encoded, too.
    fn look_at_next_range(&mut self, now: Moment) {
        let ranges = self.ranges();
        let resting = &mut self.writes.ranges.resting;
        let pauses = now.since(resting.looked) < SWEEP_PAUSE_MS;
        if resting.next_range >= ranges || pauses || self.operations.has_submitted() {
            return;
        }
        let index = resting.next_range;
        resting.looked = now;
        if let Some(before) = resting.asked_for.take() {
            self.forget_looked_at(before);
        }
        match self.writes.ranges.get(index) {
            // What was learned before a merge does not tell what is in the head since.
            Some(_) if self.can_forget(index) => self.forget_range(index),
            Some(_) => return,
            None => self.writes.ranges.resting.asked_for = Some(index),
        }
        self.writes.ranges.resting.next_range = index + 1;
        self.learn_range(index);
    }

    /// What fronts have may be in another layer now.
    pub(in crate::owner) fn look_at_all_ranges(&mut self) {
        self.writes.ranges.resting.next_range = 0;
    }

    /// Forgets a range again of which nobody else wanted to know, and in which there is nothing to do.
    fn forget_looked_at(&mut self, index: u32) {
        let layout = self.writes.ranges.layout(index);
        let pays = layout.is_some_and(|layout| !layout.rows_that_pay().is_empty());
        if !pays && self.can_forget(index) {
            self.forget_range(index);
        }
    }

    /// Whether nothing is under way in a range, and nothing to be given back: a disk that was not told to give something
    /// back would never be told, if those that were are asked what there is.
    fn can_forget(&self, index: u32) -> bool {
        let ranges = &self.writes.ranges;
        let rests = |range: &super::Range| range.is_idle() && range.giving.is_none();
        ranges.get(index).is_some_and(rests) && !ranges.spare.contains(&index) && self.are_objects_idle(index)
    }

    /// A range is known: what of its fronts is worth it is encoded when it has been at rest.
    pub(super) fn note_resting(&mut self, index: u32) {
        let layout = self.writes.ranges.layout(index);
        for row in layout.map(Layout::rows_that_pay).unwrap_or_default() {
            self.writes.ranges.resting.found((index, row));
        }
    }

    /// Whether nothing else is under way in a row, and its group can be written to.
    fn is_row_at_rest(&self, (index, row): Place) -> bool {
        let (Some(blocks), Some(range)) = (self.blocks_of(row), self.writes.ranges.get(index)) else {
            return false;
        };
        let idle = range.waiting.is_empty() && !range.busy.contains_key(&row);
        let group = self.groups.get(&self.group_of(index));
        let writable = group.is_some_and(|group| group.serving() && group.enough(self.view.min_in_sync));
        idle && writable
            && self.quiescence.is_none()
            && !self.fullness.is_full()
            && self.writes.overlapping(index, blocks).is_empty()
    }

    fn gather(&mut self, place: Place) {
        let (index, row) = place;
        let Some(layout) = self.writes.ranges.layout(index) else {
            // It was forgotten meanwhile.
            self.learn_range(index);
            return self.writes.ranges.resting.put_off(place);
        };
        // What is on its way to the front is not in the layout yet, and may be what makes it pay.
        let blocks = self.blocks_of(row);
        let written = blocks.is_some_and(|blocks| !self.writes.overlapping(index, blocks).is_empty());
        if !layout.pays(row) && !written {
            return;
        }
        let chunks = layout.shape().chunks(row);
        if !self.is_row_at_rest(place) {
            return self.writes.ranges.resting.put_off(place);
        }
        let length = u64::from(chunks) * u64::from(CHUNK_SIZE);
        let offset = self.offset_of(place);
        let sequence = self.operations.add(None, Operation::Read { offset, length });
        self.writes.ranges.resting.gathering.insert(sequence, place);
    }

    fn blocks_of(&self, row: Row) -> Option<BlockRange> {
        self.encoding.as_ref()?.shape.blocks(row)
    }

    /// Where a row begins in the volume, in bytes.
    fn offset_of(&self, (index, row): Place) -> u64 {
        let first = self.blocks_of(row).map_or(0, |blocks| u64::from(blocks.start()));
        u64::from(index) * u64::from(OBJECT_SIZE) + first * u64::from(BLOCK_SIZE)
    }

    /// A row was read: it is written as it is, unless something has come up.
    fn write_gathered(&mut self, sequence: u64, place: Place, pieces: Option<Vec<Bytes>>) {
        let (index, row) = place;
        let still = mutation::active(Mutation::EncodesStale) || self.is_row_at_rest(place);
        let (Some(pieces), true) = (pieces, still) else {
            // A block that cannot be read is somebody else's to mend.
            return self.writes.ranges.resting.put_off(place);
        };
        let (layout, blocks) = (self.writes.ranges.layout(index), self.blocks_of(row));
        let whole = pieces.concat();
        let Some((layout, blocks)) = layout.zip(blocks.filter(|blocks| blocks.byte_len() == whole.len()))
        else {
            return self.writes.ranges.resting.put_off(place);
        };
        let next = layout.next_place(row);
        let bytes = Bytes::from(whole);
        let change = Change::Data {
            checksums: checksum::of_blocks(&bytes),
            bytes,
        };
        let part = Part {
            sequence,
            index,
            range: blocks,
            offset: self.offset_of(place),
        };
        self.writes.count_in(&change);
        self.writes.ranges.resting.encoded += 1;
        self.write_row(row, next, part, change);
    }
}
