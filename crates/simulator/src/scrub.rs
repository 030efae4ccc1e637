//! Scrubs: disks look after their copies while everything else goes on, and once more when all is quiet. No disk
//! of a world lies, so none may ever be said to differ; and what is damaged must be whole in the end.

use std::collections::BTreeSet;

use protocol::DiskId;
use replication::replica::Event;
use replication::scrub::{Finding, Order, Progress};

use crate::world::{Happening, World};

/// Between two steps, in microseconds, at most.
const PACE: u64 = 2_000;
/// Before something is looked at again, in microseconds, at most.
const REST: u64 = 600_000;
/// Blocks that are damaged when all is quiet, at most.
const DAMAGED_MAX: u64 = 8;

impl World {
    /// A disk's scrub begins.
    pub(crate) fn scrub_disk(&mut self, disk: DiskId) {
        let deep = self.chance.percent(70);
        self.begin_scrub(disk, deep);
    }

    fn begin_scrub(&mut self, disk: DiskId, deep: bool) {
        let Some(life) = self
            .disks
            .get(&disk)
            .filter(|disk| disk.is_up())
            .map(|disk| disk.life)
        else {
            return;
        };
        self.meet(if deep { "deep scrub" } else { "light scrub" });
        self.note(format_args!("{disk} begins a scrub, deep: {deep}"));
        let run = self.next_token;
        self.next_token += 1;
        let order = Order {
            deep,
            ..Order::default()
        };
        self.feed_replica(disk, Event::Scrub { run, order });
        self.schedule.after(PACE, Happening::ScrubStep { disk, life });
    }

    pub(crate) fn scrub_step(&mut self, disk: DiskId, life: u64) {
        if self.lives(disk, life) {
            self.feed_replica(disk, Event::ScrubStep);
        }
    }

    /// A step is over, or something was found.
    pub(crate) fn scrubbed(&mut self, disk: DiskId, progress: &Progress) {
        let mut pause = PACE;
        match progress {
            Progress::Step { .. } | Progress::Passed { .. } => {}
            Progress::Rest => pause = REST,
            Progress::Skipped(_) => self.meet("object skipped by a scrub"),
            Progress::Done => {
                self.meet("scrub done");
                self.ending.scrubbing.remove(&disk);
            }
            Progress::Found(finding) => self.found(disk, finding),
        }
        let life = self.disks.get(&disk).map(|disk| disk.life);
        let pause = self.chance.between(1, pause);
        if let Some(life) = life {
            self.schedule.after(pause, Happening::ScrubStep { disk, life });
        }
    }

    fn found(&mut self, disk: DiskId, finding: &Finding) {
        self.note(format_args!("{disk} found {finding:?}"));
        let damaged = self.damaged == Some(disk);
        match finding {
            Finding::Mended { .. } if damaged => self.meet("damaged chunk mended"),
            Finding::Unmended { .. } if damaged => self.meet("damaged chunk not mended"),
            _ => self.violate(format!("scrub: {disk} found {finding:?}, which cannot be")),
        }
    }

    /// All is quiet: blocks are damaged on one disk of those that have copies elsewhere, and every disk scrubs.
    pub(crate) fn scrub_all(&mut self) {
        let copies = self.shape.width() > 1 && self.dead.is_none();
        if let Some(id) = self.damaged.filter(|_| copies) {
            for _ in 0..self.chance.between(1, DAMAGED_MAX) {
                if let Some(disk) = self.disks.get_mut(&id) {
                    disk.store.settle();
                    if disk.store.damage(&mut self.chance) {
                        self.meet("block damaged at rest");
                    }
                }
            }
        }
        self.scrub_everywhere();
    }

    fn scrub_everywhere(&mut self) {
        let up = self.disks.iter().filter(|(_, disk)| disk.is_up());
        let all: BTreeSet<DiskId> = up.map(|(id, _)| *id).collect();
        self.ending.scrubbing.clone_from(&all);
        self.ending.scrubbed_at = self.evictions;
        for disk in all {
            self.begin_scrub(disk, true);
        }
    }

    /// Whether all scrubs are done; what is damaged after that stays so.
    pub(crate) fn scrubbed_all(&mut self) -> bool {
        if !self.ending.scrubbing.is_empty() {
            return false;
        }
        if self.damaged.is_some() && self.ending.scrubbed_at != self.evictions {
            // Who was put out meanwhile, for something that takes as long as it did before all was healed, left out what
            // it came back to (seed 25151 of its time).
            if self.whole() {
                self.scrub_everywhere();
            }
            return false;
        }
        let bad: Vec<DiskId> = self
            .disks
            .iter()
            .filter(|(_, disk)| disk.store.damaged_blocks() > 0)
            .map(|(id, _)| *id)
            .collect();
        for disk in bad {
            self.violate(format!("scrub: {disk} still has damaged blocks"));
        }
        true
    }
}
