//! The rows of a group of shards on their way back: asks k disks in sync for each column, and stores what
//! [`Rebuilding`] makes of their answers. When to do so, and what follows, is `fill`'s business.

use std::sync::Arc;

use protocol::map::LayerUse;
use protocol::message::Refusal;
use protocol::profile::Profile;
use protocol::recovery::{Ask, Told};
use protocol::rows::{RowCode, RowCodes, Rows, is_rows};
use protocol::session::{Slot, SlotState};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, LayerId, ObjectId, PgId, Stamp};

use super::Replica;
use super::event::Action;
use crate::recovery::{Column, Step};
use crate::rows::rebuilding::Rebuilding;

impl Replica {
    /// Hands in the arithmetic that groups of shards need to come back. Without it they stay out.
    #[must_use]
    pub fn with_codes(mut self, codes: Arc<dyn RowCodes>) -> Self {
        self.codes = Some(codes);
        self
    }

    /// Whether a disk with this shard keeps objects of this index.
    pub(super) fn is_kept(profile: Option<Profile>, shard: u8, index: u32) -> bool {
        is_rows(index) || profile.is_none_or(|profile| profile.fronts().contains(&shard))
    }

    /// The same, of this disk in a group.
    pub(super) fn keeps(&self, pg: PgId, index: u32) -> bool {
        let Some(profile) = self.map.profile(pg) else {
            return true;
        };
        let shard = self.shard_of(pg, self.disk);
        shard.is_some_and(|shard| Self::is_kept(Some(profile), shard, index))
    }

    /// Which shard a disk keeps in a group.
    pub(super) fn shard_of(&self, pg: PgId, disk: DiskId) -> Option<u8> {
        Some(self.map.group(pg)?.slot_of(disk)?.shard)
    }

    /// The disks that have a group in sync.
    pub(super) fn all_in_sync(&self, pg: PgId) -> Vec<DiskId> {
        let slots = self.map.group(pg).map(|group| group.slots.as_slice());
        let in_sync = |slot: &&Slot| slot.state == SlotState::InSync;
        let slots = slots.unwrap_or_default().iter().filter(in_sync);
        slots.map(|slot| slot.disk).collect()
    }

    /// Whom to ask for rows: whoever has the same shard, or k others.
    fn row_sources(&self, pg: PgId, profile: Profile, first: DiskId) -> Option<Vec<(DiskId, u8)>> {
        let slots = &self.map.group(pg)?.slots;
        let own = self.shard_of(pg, self.disk)?;
        let in_sync = |slot: &&Slot| slot.state == SlotState::InSync && slot.disk != self.disk;
        let mut sources: Vec<(DiskId, u8)> = Vec::new();
        for slot in slots.iter().filter(in_sync) {
            if slot.shard == own {
                return Some(vec![(slot.disk, own)]);
            }
            if sources.iter().all(|(_, shard)| *shard != slot.shard) {
                sources.push((slot.disk, slot.shard));
            }
        }
        // With another first source come others after it: a damaged shard is not asked for again and again.
        let turn = sources.iter().position(|(disk, _)| *disk == first).unwrap_or(0);
        sources.rotate_left(turn);
        sources.truncate(usize::from(profile.data()));
        (sources.len() == usize::from(profile.data())).then_some(sources)
    }

    /// Begins with a column of rows.
    pub(super) fn rebuild_column(
        &mut self,
        pg: PgId,
        profile: Profile,
        (family, index): Column,
        out: &mut Vec<Action>,
    ) {
        let Some(first) = self.recovery.groups.get(&pg).map(|filling| filling.source) else {
            return;
        };
        let (sources, shard) = (self.row_sources(pg, profile, first), self.shard_of(pg, self.disk));
        let (Some(sources), Some(shard)) = (sources, shard) else {
            return self.pause(pg);
        };
        let range = ObjectId {
            family,
            index,
            layer: LayerId::default(),
        };
        let first = sources.first().map_or(first, |(disk, _)| *disk);
        self.rebuilt_by.insert(pg, self.map.clone());
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            let shape = Rows::new(profile);
            let rebuilding = Rebuilding::new(shape, range, shard, first, sources.iter().copied());
            filling.step = Step::Rebuilding(Box::new(rebuilding));
        }
        for (disk, _) in sources {
            self.ask_one(pg, disk, Ask::Column { family, index }, out);
        }
        self.ask_own(pg, StorageRequest::Column { family, index }, out);
    }

    /// Asks one of the sources of rows.
    fn ask_one(&mut self, pg: PgId, disk: DiskId, ask: Ask, out: &mut Vec<Action>) {
        let number = self.ask_disk(pg, disk, ask, out);
        if let (Some(number), Some(rebuilding)) = (number, self.rebuilding(pg)) {
            rebuilding.asked.insert(number, disk);
        }
    }

    fn rebuilding(&mut self, pg: PgId) -> Option<&mut Rebuilding> {
        match &mut self.recovery.groups.get_mut(&pg)?.step {
            Step::Rebuilding(rebuilding) => Some(rebuilding),
            _ => None,
        }
    }

    pub(super) fn row_code(&self, pg: PgId) -> Option<Arc<dyn RowCode>> {
        self.codes.as_ref()?.code(self.map.profile(pg)?)
    }

    /// A source of rows answered.
    pub(super) fn rows_heard(
        &mut self,
        pg: PgId,
        number: u64,
        told: Result<Told, Refusal>,
        out: &mut Vec<Action>,
    ) {
        let Some(rebuilding) = self.rebuilding(pg) else {
            return;
        };
        let Some(disk) = rebuilding.asked.remove(&number) else {
            return;
        };
        match told {
            Ok(Told::Listed { objects, .. }) => {
                rebuilding.column(disk, objects);
                self.plan_rows(pg, out);
            }
            Ok(Told::Difference { delta, doubt }) => {
                rebuilding.sent(disk, &delta, doubt);
                if rebuilding.asked.is_empty() {
                    self.store_rows(pg, out);
                }
            }
            _ => self.try_another(pg),
        }
    }

    /// Our own store answered.
    pub(super) fn rows_told(
        &mut self,
        pg: PgId,
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        let Some(rebuilding) = self.rebuilding(pg) else {
            return;
        };
        match result {
            Ok(StorageReply::Listed { objects, .. }) => {
                rebuilding.own(objects);
                self.plan_rows(pg, out);
            }
            Ok(StorageReply::Done) => {
                rebuilding.stored();
                self.next_rows(pg, out);
            }
            // A write came between: the column is looked at again.
            Err(StorageError::Gap(_)) => {
                let range = rebuilding.range();
                self.look_again(pg, range, out);
            }
            _ => self.pause(pg),
        }
    }

    fn plan_rows(&mut self, pg: PgId, out: &mut Vec<Action>) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        let step = std::mem::replace(&mut filling.step, Step::Paused);
        let Step::Rebuilding(mut rebuilding) = step else {
            filling.step = step;
            return;
        };
        let known = rebuilding.is_known();
        let range = rebuilding.range();
        if known && self.is_sealed_since(pg, &rebuilding) {
            return self.look_again(pg, range, out);
        }
        if known {
            let family = range.family;
            let is_head = |layer| matches!(self.map.layer_use(family, layer), LayerUse::Head(_));
            let confirmed = |object: ObjectId, at: Stamp| self.may_be_confirmed(object, at);
            rebuilding.plan(is_head, confirmed);
        }
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Rebuilding(rebuilding);
        }
        if known {
            self.next_rows(pg, out);
        }
    }

    /// Whether a layer was sealed, merged or dropped while the sources were asked. What they told may be from before: a row
    /// that was written at the last moment is there by now, and nobody would keep it here for the owner's sake any more.
    fn is_sealed_since(&mut self, pg: PgId, rebuilding: &Rebuilding) -> bool {
        let Some(before) = self.rebuilt_by.remove(&pg) else {
            return false;
        };
        let family = rebuilding.range().family;
        let is_other = |layer| before.layer_use(family, layer) != self.map.layer_use(family, layer);
        rebuilding.layers().into_iter().any(is_other)
    }

    /// Asks for the next object of the column, if there is one.
    fn next_rows(&mut self, pg: PgId, out: &mut Vec<Action>) {
        let Some(rebuilding) = self.rebuilding(pg) else {
            return;
        };
        if rebuilding.next().is_none() {
            return self.end_column(pg, out);
        }
        let wishes = rebuilding.wishes();
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.copied += 1;
        }
        if wishes.is_empty() {
            return self.store_rows(pg, out);
        }
        for (disk, object, have) in wishes {
            self.ask_one(pg, disk, Ask::Difference { object, have }, out);
        }
    }

    fn store_rows(&mut self, pg: PgId, out: &mut Vec<Action>) {
        let Some(code) = self.row_code(pg) else {
            return self.pause(pg);
        };
        let Some(rebuilding) = self.rebuilding(pg) else {
            return;
        };
        let Some(change) = rebuilding.next().cloned() else {
            return;
        };
        match rebuilding.delta(code.as_ref()) {
            Some((delta, doubt)) => self.store_object(pg, change.follows, delta, doubt, out),
            None => self.look_again(pg, change.object, out),
        }
    }

    /// The next nudge begins anew.
    pub(super) fn pause(&mut self, pg: PgId) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Paused;
        }
    }

    /// The same, with another source.
    pub(super) fn try_another(&mut self, pg: PgId) {
        let sources = self.place_in(pg).map(|(.., sources)| sources).unwrap_or_default();
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Paused;
            if let Some(source) = sources.first() {
                filling.source = *source;
            }
        }
    }
}
