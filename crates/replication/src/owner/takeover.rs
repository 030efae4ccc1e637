//! The take-over of one placement group (rule 7): fence every slot, collect what is in doubt, make
//! it level. Keeps the books; the owner sends and receives.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{DiskId, ObjectId, Stamp};

use super::group::Group;
use super::rows::{Active, Encoding, RowSlots};
use crate::mutation::{self, Mutation};

/// How far the take-over of a group is.
#[derive(Debug, Default)]
pub(super) struct TakeOver {
    /// By disk: how far its fence is.
    pub(super) fences: BTreeMap<DiskId, Fence>,
    /// The disks to level: those in sync.
    in_sync: BTreeSet<DiskId>,
    /// A live owner fences after an interval change, and levels nothing (W5).
    fence_only: bool,
    /// By object: who has it in doubt, at which stamp.
    pub(super) listed: BTreeMap<ObjectId, BTreeMap<DiskId, Stamp>>,
    /// In a pool that encodes rows: its slots, and the ranges whose rows are being made level.
    pub(super) rows: Option<RowSlots>,
    pub(super) settling: BTreeMap<u32, Active>,
    /// Objects that are being made level.
    pub(super) leveling: BTreeMap<ObjectId, Leveling>,
}

/// How far the fence of one disk is.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// The number of the request in flight.
    pub(super) sent: Option<u64>,
    /// Where the next page of the list begins.
    pub(super) after: Option<ObjectId>,
    /// Whether the whole list is here.
    pub(super) done: bool,
}

/// One object on its way to one stamp.
#[derive(Debug)]
pub(super) struct Leveling {
    /// By disk in sync: its stamp, once it is known.
    pub(super) stamps: BTreeMap<DiskId, Option<Stamp>>,
    /// By disk: the number of the request in flight that brings it forward.
    pub(super) sent: BTreeMap<DiskId, u64>,
    /// Disks that could not give their copy.
    pub(super) bad_sources: BTreeSet<DiskId>,
}

/// The next thing to do for a disk and an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the disk itself what it has above the target: nothing, but its stamp comes along.
    AskStamp { above: Stamp },
    /// Ask one of these for what the disk lacks.
    Copy { sources: Vec<DiskId>, above: Stamp },
}

impl TakeOver {
    /// Of a group; with its encoding, if its pool encodes rows.
    pub(super) fn new(group: &Group, encoding: Option<&Encoding>, fence_only: bool) -> Self {
        let awaited = group.awaited();
        let mut fences: BTreeMap<DiskId, Fence> = awaited.map(|disk| (disk, Fence::default())).collect();
        if mutation::active(Mutation::FenceOne) {
            fences = fences.into_iter().take(1).collect();
        }
        Self {
            fences,
            in_sync: group.in_sync().collect(),
            fence_only,
            rows: encoding.map(|encoding| RowSlots::new(encoding, group)),
            ..Self::default()
        }
    }

    /// A page of a disk's list came.
    pub(super) fn list(&mut self, disk: DiskId, objects: Vec<(ObjectId, Stamp)>, more: bool) {
        let Some(fence) = self.fences.get_mut(&disk) else {
            return;
        };
        fence.sent = None;
        let more = more && !objects.is_empty() && !mutation::active(Mutation::FirstPageOnly);
        fence.after = objects.last().map(|(object, _)| *object);
        fence.done = !more;
        if self.fence_only || !self.in_sync.contains(&disk) {
            return; // What a joining disk has in doubt is not for the levels: it verifies later.
        }
        for (object, stamp) in objects {
            self.listed.entry(object).or_default().insert(disk, stamp);
        }
    }

    /// Whether every slot has been fenced and has sent its whole list.
    pub(super) fn fenced(&self) -> bool {
        self.fences.values().all(|fence| fence.done)
    }

    /// Starts to level some more objects, up to `room`; returns how many.
    pub(super) fn begin(&mut self, room: usize) -> usize {
        if mutation::active(Mutation::SkipLevel) {
            self.listed.clear();
        }
        if self.rows.is_some() {
            return self.begin_ranges(room);
        }
        let mut begun = 0;
        while begun < room {
            let Some((object, listed)) = self.listed.pop_first() else {
                break;
            };
            let all = |disk: &DiskId| (*disk, listed.get(disk).copied());
            let stamps = self.in_sync.iter().map(all);
            let stamps = if mutation::active(Mutation::LevelListedOnly) {
                stamps.filter(|(_, stamp)| stamp.is_some()).collect()
            } else {
                stamps.collect()
            };
            let leveling = Leveling {
                stamps,
                sent: BTreeMap::new(),
                bad_sources: BTreeSet::new(),
            };
            // All listed it at the same stamp, or there is but one copy: it is level.
            if !leveling.done() {
                self.leveling.insert(object, leveling);
                begun += 1;
            }
        }
        begun
    }

    /// Whether all is level.
    pub(super) fn level(&self) -> bool {
        self.listed.is_empty() && self.leveling.is_empty() && self.settling.is_empty()
    }

    /// How many objects are still to be made level.
    pub(super) fn left(&self) -> usize {
        self.listed.len() + self.leveling.len() + self.settling.len()
    }
}

impl Leveling {
    /// The stamp that all must come to: the highest (k = 1).
    fn target(&self) -> Stamp {
        let known = self.stamps.values().flatten().copied();
        let target = if mutation::active(Mutation::LevelToLowest) {
            known.min()
        } else {
            known.max()
        };
        target.unwrap_or_default()
    }

    /// Whether all are at one stamp.
    pub(super) fn done(&self) -> bool {
        let target = self.target();
        self.sent.is_empty()
            && self
                .stamps
                .values()
                .all(|stamp| stamp.is_some_and(|stamp| stamp >= target))
    }

    /// What to do next, by disk, for those with nothing in flight.
    pub(super) fn steps(&self) -> Vec<(DiskId, Step)> {
        let target = self.target();
        let idle = self
            .stamps
            .iter()
            .filter(|(disk, _)| !self.sent.contains_key(disk));
        // A stamp that is still unknown may be the highest: no copy before all are known.
        let all_known = self.stamps.values().all(Option::is_some);
        idle.filter_map(|(disk, stamp)| match stamp {
            None => Some((*disk, Step::AskStamp { above: target })),
            Some(stamp) if all_known && *stamp < target => {
                let has =
                    |(disk, stamp): (&DiskId, &Option<Stamp>)| (*stamp == Some(target)).then_some(*disk);
                let mut sources: Vec<DiskId> = self.stamps.iter().filter_map(has).collect();
                // One whose copy is damaged comes last: its disk may have got it again from others meanwhile.
                sources.sort_by_key(|disk| self.bad_sources.contains(disk));
                Some((
                    *disk,
                    Step::Copy {
                        sources,
                        above: *stamp,
                    },
                ))
            }
            Some(_) => None,
        })
        .collect()
    }
}
