//! One placement group, as the owner sees it: its record, how far its take-over is, and what of it
//! is not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use protocol::session::{GroupView, Slot, SlotState};
use protocol::{DiskId, Interval, PgId};

use super::takeover::TakeOver;
use crate::membership::held;

/// How far a group is.
#[derive(Debug)]
pub(super) enum Phase {
    /// The volume has no object there.
    Unused,
    /// Rule 7 b and c; or, for a live owner after an interval change, 7 b alone.
    TakeOver(TakeOver),
    /// Reads and writes go on.
    Serving,
}

/// One group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) pg: PgId,
    pub(super) interval: Interval,
    pub(super) slots: Vec<Slot>,
    pub(super) phase: Phase,
    /// Whether this owner has served it: from then on it levels nothing there (W5).
    pub(super) served: bool,
    /// The counts of the writes that are not acknowledged.
    pub(super) unacknowledged: BTreeSet<u64>,
    /// Up to which count each disk was told that all is complete.
    pub(super) told: BTreeMap<DiskId, u64>,
}

impl Group {
    pub(super) fn new(view: &GroupView) -> Self {
        Self {
            pg: view.pg,
            interval: view.interval,
            slots: view.slots.clone(),
            phase: Phase::Unused,
            served: false,
            unacknowledged: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    pub(super) fn serving(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    /// Whether the volume has objects there.
    pub(super) fn is_used(&self) -> bool {
        !matches!(self.phase, Phase::Unused)
    }

    /// The disks that may be read.
    pub(super) fn in_sync(&self) -> impl Iterator<Item = DiskId> {
        self.slots
            .iter()
            .filter(|slot| slot.state == SlotState::InSync)
            .map(|slot| slot.disk)
    }

    /// The disks that must say ok to a write, and that must be fenced.
    pub(super) fn awaited(&self) -> impl Iterator<Item = DiskId> {
        self.awaited_slots().map(|slot| slot.disk)
    }

    /// The same, of those that keep one of these shards.
    pub(super) fn awaited_of(&self, shards: &std::ops::Range<u8>) -> impl Iterator<Item = DiskId> {
        self.awaited_slots()
            .filter(move |slot| shards.contains(&slot.shard))
            .map(|slot| slot.disk)
    }

    fn awaited_slots(&self) -> impl Iterator<Item = &Slot> {
        let awaited = |slot: &&Slot| matches!(slot.state, SlotState::InSync | SlotState::Joining);
        self.slots.iter().filter(awaited)
    }

    /// Which shard a disk keeps here.
    pub(super) fn shard_of(&self, disk: DiskId) -> Option<u8> {
        self.slots
            .iter()
            .find(|slot| slot.disk == disk)
            .map(|slot| slot.shard)
    }

    /// The disk in sync that keeps a shard.
    pub(super) fn keeper(&self, shard: u8) -> Option<DiskId> {
        let keeps = |slot: &&Slot| slot.shard == shard && slot.state == SlotState::InSync;
        self.slots.iter().find(keeps).map(|slot| slot.disk)
    }

    /// Whether writes may be acknowledged with so few in sync (rules 3, 4).
    pub(super) fn enough(&self, min_in_sync: u8) -> bool {
        held(&self.slots) >= usize::from(min_in_sync).max(1)
    }
}
