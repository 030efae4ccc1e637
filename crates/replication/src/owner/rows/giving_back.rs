//! Giving back what no version of a row needs any more: the place of the version before, and what its front had.
//!
//! Nothing waits for it, and a disk that does not hear of it keeps a little more than it must. So what is refused or
//! lost is simply tried again later (`ForgetAcknowledged`: only what is acknowledged makes anything spare).

use std::collections::BTreeSet;

use bytes::Bytes;
use protocol::message::{Request, Response};
use protocol::rows::{Row, RowPlace, range_index, rows_index};
use protocol::{DiskId, ObjectId, PgId};

use super::{Area, Encoded};
use crate::moment::Moment;
use crate::mutation::{self, Mutation};
use crate::owner::event::Action;
use crate::owner::limits::{GIVE_BACK_MS, GIVING_MAX};
use crate::owner::link::Sent;
use crate::owner::{Owner, Stage};
use crate::rows::layout::Layout;
use crate::rows::{absent, replacement};

/// What is being given back of a range.
#[derive(Debug, Default)]
pub(super) struct Giving {
    places: Vec<u32>,
    fronts: Vec<u32>,
    /// Requests that are not answered.
    waits_for: BTreeSet<u64>,
}

impl Owner {
    /// When something is to be given back.
    pub(in crate::owner) fn give_back_due(&self) -> Option<Moment> {
        let ranges = &self.writes.ranges;
        // A reader of what is sealed changes nothing.
        let owns = self.view.generation.0 > 0 && self.stage == Stage::Open;
        (owns && !ranges.spare.is_empty()).then(|| ranges.gave_back + GIVE_BACK_MS)
    }

    /// Gives back what is spare in ranges that nobody writes to, now and then.
    pub(in crate::owner) fn give_back(&mut self, now: Moment, out: &mut Vec<Action>) {
        if self.give_back_due().is_none_or(|due| due > now) {
            return;
        }
        self.writes.ranges.gave_back = now;
        let spare: Vec<u32> = self
            .writes
            .ranges
            .spare
            .iter()
            .copied()
            .take(GIVING_MAX)
            .collect();
        for index in spare {
            self.give_back_range(now, index, out);
        }
    }

    /// Whether disks are at giving something back: until they have answered they doubt what they have.
    pub(in crate::owner) fn gives_back(&self) -> bool {
        self.writes.ranges.gives_back()
    }

    fn is_at_rest(&self, index: u32) -> bool {
        let idle = |index: u32| {
            self.writes
                .objects
                .get(&index)
                .is_none_or(|object| object.counts.is_empty())
        };
        idle(index) && idle(rows_index(index))
    }

    fn give_back_range(&mut self, now: Moment, index: u32, out: &mut Vec<Action>) {
        let pg = self.group_of(index);
        let serving = self
            .groups
            .get(&pg)
            .is_some_and(super::super::group::Group::serving);
        let Some(range) = self.writes.ranges.get(index) else {
            return;
        };
        let (Some(layout), None) = (&range.layout, &range.giving) else {
            return;
        };
        if !serving || !range.is_idle() || !self.is_at_rest(index) {
            return;
        }
        let (places, fronts) = (layout.spare_places(), layout.spare_fronts());
        let reachable = |disk: DiskId| self.links.get(&disk).is_some_and(|link| link.open(now));
        if !self
            .groups
            .get(&pg)
            .is_some_and(|group| group.awaited().all(reachable))
        {
            return;
        }
        for chunk in &places {
            let (row, place) = RowPlace::of_chunk(*chunk);
            self.writes.ranges.moved(index, Row(row), Area::Place(place));
        }
        if let Some(encoding) = &self.encoding {
            let shape = encoding.shape;
            for chunk in &fronts {
                let row = shape.place(chunk * protocol::geometry::BLOCKS_PER_CHUNK).0;
                self.writes.ranges.moved(index, row, Area::Front);
            }
        }
        let mut waits_for = self.send_absent(now, pg, rows_index(index), &places, None, out);
        waits_for.extend(self.send_absent(now, pg, index, &fronts, Some(&Encoded::Front), out));
        self.writes.ranges.spare.remove(&index);
        let range = self.writes.ranges.entry(index);
        range.giving = Some(Giving {
            places,
            fronts,
            waits_for,
        });
        self.gave_back(index);
    }

    /// Asks all slots of an object to take chunks of it away.
    fn send_absent(
        &mut self,
        now: Moment,
        pg: PgId,
        index: u32,
        chunks: &[u32],
        encoded: Option<&Encoded>,
        out: &mut Vec<Action>,
    ) -> BTreeSet<u64> {
        let mut sent = BTreeSet::new();
        let stamp = self.writes.objects.get(&index).and_then(|object| object.stamp);
        let shards = self.shards_of(encoded);
        let (Some(stamp), Some(group)) = (stamp.filter(|_| !chunks.is_empty()), self.groups.get(&pg)) else {
            return sent;
        };
        let disks: Vec<DiskId> = group.awaited_of(&shards).collect();
        let object = ObjectId {
            family: self.view.family,
            index,
            layer: self.view.head,
        };
        let gone = chunks.iter().filter_map(|chunk| absent(*chunk)).collect();
        let delta = replacement(object, stamp, gone, Bytes::new());
        for disk in disks {
            let (number, scope) = (self.number(), self.scope(pg));
            let Some(link) = self.links.get_mut(&disk).filter(|link| link.open(now)) else {
                continue;
            };
            let request = Request::Replace {
                scope,
                follows: stamp,
                delta: delta.clone(),
            };
            link.send(now, number, Sent::GiveBack(index), request, out);
            sent.insert(number);
        }
        sent
    }

    /// A disk has given something back, or has not: either way nothing is waited for.
    pub(in crate::owner) fn give_back_answered(
        &mut self,
        disk: DiskId,
        (index, number): (u32, u64),
        response: Option<&Response>,
    ) {
        let index = range_index(index);
        let done = matches!(response, Some(Response::Ok));
        if done {
            // The object is in doubt there now, so the disk must hear once more that all is complete.
            let pg = self.group_of(index);
            if let Some(group) = self.groups.get_mut(&pg) {
                group.told.remove(&disk);
            }
            self.untold.insert(pg);
        }
        let range = self.writes.ranges.get_mut(index);
        if let Some(giving) = range.and_then(|range| range.giving.as_mut()) {
            let this = giving.waits_for.remove(&number);
            if this && !done {
                giving.places.clear();
                giving.fronts.clear();
            }
        }
        self.gave_back(index);
    }

    fn gave_back(&mut self, index: u32) {
        let Some(range) = self.writes.ranges.get_mut(index) else {
            return;
        };
        let done = range.giving.take_if(|giving| giving.waits_for.is_empty());
        if let (Some(giving), Some(layout)) = (done, range.layout.as_mut()) {
            layout.gave_back(&giving.places, &giving.fronts);
        }
        self.note_spare(index);
    }

    /// Remembers a range of which something can be given back.
    pub(super) fn note_spare(&mut self, index: u32) {
        let range = self.writes.ranges.get(index);
        let spare = range.is_some_and(|range| {
            let layout = range.layout.as_ref();
            range.giving.is_none() && layout.is_some_and(Layout::is_spare_anywhere)
        });
        if spare && !mutation::active(Mutation::NothingBack) {
            self.writes.ranges.spare.insert(index);
        }
    }
}
