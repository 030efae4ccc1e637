//! Disks that come back: what they and their sources say to each other arrives late or not at all, and
//! storaged makes the swaps that they ask for.

use protocol::message::Refusal;
use protocol::recovery::{Ask, Question, Told};
use protocol::session::SlotState;
use protocol::{DiskId, Interval, PgId};
use replication::membership::{Eviction, advance, evict};
use replication::replica::Event;

use crate::world::{Happening, World};

/// How often a disk goes on with what was refused, in microseconds.
const NUDGE: u64 = 150_000;
/// Until a disk learns that a question got no answer.
const LOST: u64 = 400_000;
/// Where a life stands in the number of a question.
const LIFE_SHIFT: u32 = 40;

/// A question's number as its source sees it: an answer finds the life that asked. In a cluster it goes to the connection
/// that the question came by, which ends with its process.
pub(crate) fn of_life(number: u64, life: u64) -> u64 {
    number | life << LIFE_SHIFT
}

/// The life and the number that such a number is made of.
pub(crate) fn life_and_number(number: u64) -> (u64, u64) {
    (number >> LIFE_SHIFT, number & ((1 << LIFE_SHIFT) - 1))
}

impl World {
    /// The next nudge of a disk's present life.
    pub(crate) fn plan_nudge(&mut self, disk: DiskId) {
        if let Some(life) = self.disks.get(&disk).map(|disk| disk.life) {
            let pause = self.chance.between(NUDGE / 2, NUDGE);
            self.schedule.after(pause, Happening::Nudge { disk, life });
        }
    }

    pub(crate) fn nudge(&mut self, disk: DiskId, life: u64) {
        if self.lives(disk, life) {
            self.plan_nudge(disk);
            self.feed_replica(disk, Event::Nudge { returns: true });
            // What others met as damaged is looked at, scrub or not.
            self.feed_replica(disk, Event::ScrubStep);
        }
    }

    pub(crate) fn lives(&self, disk: DiskId, life: u64) -> bool {
        let known = self.disks.get(&disk);
        known.is_some_and(|known| known.is_up() && known.life == life)
    }

    /// A disk asks another one.
    pub(crate) fn ask_disk(&mut self, from: DiskId, to: DiskId, number: u64, question: Question) {
        let Some(life) = self.disks.get(&from).map(|disk| disk.life) else {
            return;
        };
        let (delay, lost) = (self.delay(5_000), self.chance.percent(1));
        if lost {
            return self.lose_question(from, life, number);
        }
        let happening = Happening::Question {
            from,
            life,
            to,
            number,
            question: Box::new(question),
        };
        self.schedule.after(delay, happening);
    }

    fn lose_question(&mut self, disk: DiskId, life: u64, number: u64) {
        let told = Box::new(Err(Refusal::Busy));
        let happening = Happening::Told {
            disk,
            life,
            number,
            told,
        };
        self.schedule.after(LOST, happening);
    }

    pub(crate) fn question_arrives(
        &mut self,
        (from, life): (DiskId, u64),
        to: DiskId,
        number: u64,
        question: Question,
    ) {
        let up = self.disks.get(&to).is_some_and(crate::disk::Disk::is_up);
        if !up {
            return self.lose_question(from, life, number);
        }
        let asked = brief(&question.ask);
        self.note(format_args!(
            "{to} <- {from} {number}: {asked} of {} {}",
            question.pg, question.interval
        ));
        // The source's process may die before it answers: the asker learns so, too late to matter.
        self.lose_question(from, life, number);
        self.feed_replica(
            to,
            Event::Question {
                from,
                number: of_life(number, life),
                question,
            },
        );
    }

    /// A source answers.
    pub(crate) fn tell_disk(&mut self, to: DiskId, number: u64, told: Result<Told, Refusal>) {
        let (life, number) = life_and_number(number);
        let delay = self.delay(5_000);
        let told = Box::new(told);
        let happening = Happening::Told {
            disk: to,
            life,
            number,
            told,
        };
        self.schedule.after(delay, happening);
    }

    pub(crate) fn told_arrives(&mut self, disk: DiskId, life: u64, number: u64, told: Result<Told, Refusal>) {
        if self.lives(disk, life) {
            self.feed_replica(disk, Event::Told { number, told });
        }
    }

    /// A disk asks storaged for a swap of its own slot's state.
    pub(crate) fn propose(
        &mut self,
        disk: DiskId,
        (pg, interval): (PgId, Interval),
        (from, to): (SlotState, SlotState),
    ) {
        let Some(life) = self.disks.get(&disk).map(|disk| disk.life) else {
            return;
        };
        let delay = self.delay(20_000);
        let happening = Happening::Propose {
            disk,
            life,
            group: (pg, interval),
            step: (from, to),
        };
        self.schedule.after(delay, happening);
    }

    pub(crate) fn proposal_arrives(
        &mut self,
        (disk, life): (DiskId, u64),
        (pg, interval): (PgId, Interval),
        (from, to): (SlotState, SlotState),
    ) {
        let group = self
            .cluster
            .map
            .group(pg)
            .filter(|group| group.interval == interval);
        let slots = group.and_then(|group| advance(&group.slots, disk, from, to));
        if let Some(slots) = slots
            && self.cluster.change_group(pg, slots)
        {
            self.note(format_args!("{disk} in {pg}: {from:?} -> {to:?}"));
            match to {
                SlotState::Syncing => self.meet("disk syncing"),
                SlotState::Joining => self.meet("disk joining"),
                SlotState::InSync => {
                    self.meet("disk in sync again");
                    self.evicted.remove(&(pg, disk));
                }
                SlotState::Down => {}
            }
            self.map_changed();
        }
        if self.lives(disk, life) {
            self.refresh(disk);
            let at = self.disks.get(&disk).map(|disk| disk.map_at.after(1));
            if let Some(at) = at {
                self.schedule.at(at, Happening::Proposed { disk, life, pg });
            }
        }
    }

    pub(crate) fn proposed(&mut self, disk: DiskId, life: u64, pg: PgId) {
        if self.lives(disk, life) {
            self.feed_replica(disk, Event::Proposed { pg });
        }
    }

    /// Disks that died while they came back do so no more: storaged takes them out.
    pub(crate) fn take_out_the_dead(&mut self) {
        for pg in self.groups() {
            let Some(group) = self.cluster.map.group(pg) else {
                continue;
            };
            let dead = group.slots.iter().find(|slot| {
                slot.state.comes_back() && !self.disks.get(&slot.disk).is_some_and(crate::disk::Disk::is_up)
            });
            let out = dead.map(|slot| evict(&group.slots, slot.disk, self.shape.min_in_sync));
            if let Some(Eviction::Down(slots)) = out
                && self.cluster.change_group(pg, slots)
            {
                self.note(format_args!("who died while it came back leaves {pg}"));
                self.map_changed();
            }
        }
    }

    /// Whether every group has all its copies in sync, but for those on a disk that is dead, and the disks know it: one
    /// that does not leaves these groups out of its scrub (seed 17810 of its time).
    pub(crate) fn whole(&self) -> bool {
        let mut replicas = self.disks.values().filter_map(crate::disk::Disk::replica);
        if replicas.any(replication::replica::Replica::comes_back_anywhere) {
            return false;
        }
        let groups = self.groups().filter_map(|pg| self.cluster.map.group(pg));
        let mut slots = groups.flat_map(|group| &group.slots);
        slots.all(|slot| slot.state == SlotState::InSync || self.dead == Some(slot.disk))
    }

    /// A disk that is down loses all that it has, as if it was replaced.
    pub(crate) fn empty_disk(&mut self, disk: DiskId) {
        let spared = self.groups().all(|pg| {
            let slot = self.cluster.map.group(pg);
            let slot = slot.and_then(|group| group.slot_of(disk));
            slot.is_none_or(|slot| slot.state == SlotState::Down)
        });
        let down = self.disks.get(&disk).is_some_and(|disk| !disk.is_up());
        if spared && down && self.dead != Some(disk) {
            self.meet("disk replaced by an empty one");
            self.note(format_args!("{disk} is empty now"));
            let real = self.seed.is_multiple_of(2);
            self.replace_store(disk, real);
        }
    }
}

fn brief(ask: &Ask) -> String {
    match ask {
        Ask::Table => "generations".to_owned(),
        Ask::List { after: None } => "list".to_owned(),
        Ask::List { after: Some(object) } => format!("list after {object}"),
        Ask::Column { family, index } => format!("column {family}/{index}"),
        Ask::Difference { object, have } => format!("difference of {object} to {} chunks", have.len()),
    }
}
