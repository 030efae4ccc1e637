//! A disk comes back to its groups: takes over the generations, makes its objects equal to a source's,
//! asks to be joined, verifies, and asks to be in sync (`docs/protocol/replication.md`, "Coming back").
//!
//! One group takes one step at a time; several groups go side by side. Nothing is remembered over a
//! restart: what is equal by then is not copied again.

use protocol::message::Scope;
use protocol::recovery::{Ask, Question};
use protocol::rows::is_rows;
use protocol::session::{Slot, SlotState};
use protocol::storage::{ObjectState, StorageRequest};
use protocol::{DiskId, Generation, Interval, ObjectId, PgId, VolumeId};

use super::event::Action;
use super::{Replica, Wait};
use crate::mutation::{self, Mutation};
use crate::recovery::{Column, Cursor, Filling, Step};

/// Groups that are worked on at once: each has up to 4 MiB in memory.
const GROUPS_MAX: usize = 4;
/// Slots that ask to come back with one nudge.
const RETURNS_MAX: usize = 64;
/// A pass that copied no more than so many objects has left little behind.
const FEW: usize = 16;
/// Objects in a page of our own list.
const PAGE: usize = 64;
/// Passes after which a group joins however much is behind: then it can only shrink.
const PASSES_MAX: usize = 3;
/// Nudges for which an owner that fenced us may take its time to serve.
const PATIENCE: usize = 50;

impl Replica {
    /// Time has passed: what was refused is tried again, and groups that we are out of are asked for.
    pub(super) fn nudge(&mut self, returns: bool, out: &mut Vec<Action>) {
        let groups = if returns {
            self.map.groups_with(self.disk)
        } else {
            Vec::new()
        };
        let mut asked = 0;
        for pg in groups {
            let Some((interval, state, _)) = self.place_in(pg) else {
                continue;
            };
            if state == SlotState::Down && asked < RETURNS_MAX && !self.recovery.proposing.contains(&pg) {
                asked += 1;
                self.propose(pg, interval, (state, SlotState::Syncing), out);
            }
        }
        for filling in self.recovery.groups.values_mut() {
            filling.idle += 1;
            if filling.step == Step::Paused {
                filling.step = Step::Table;
                (filling.idle, filling.again) = (0, 0);
            }
        }
        self.choose_groups(out);
        let stuck: Vec<PgId> =
            self.filling_where(|filling| filling.step == Step::Fenced && filling.idle >= PATIENCE);
        for pg in stuck {
            if let Some((interval, SlotState::Joining, _)) = self.place_in(pg) {
                self.propose(pg, interval, (SlotState::Joining, SlotState::Syncing), out);
            }
        }
    }

    /// The map changed: groups begin anew in their new interval.
    pub(super) fn follow_groups(&mut self, out: &mut Vec<Action>) {
        let old: Vec<PgId> = self.recovery.groups.keys().copied().collect();
        for pg in old {
            let same = self.place_in(pg).is_some_and(|(interval, state, _)| {
                let filling = self.recovery.groups.get(&pg);
                filling.is_some_and(|filling| filling.interval == interval && filling.state == state)
            });
            if !same {
                self.recovery.forget(pg);
            }
        }
        let groups = &self.recovery.groups;
        self.rebuilt_by.retain(|pg, _| groups.contains_key(pg));
        let map = self.map.clone();
        self.recovery
            .fences
            .retain(|(pg, _), (interval, _)| map.group(*pg).is_some_and(|group| group.interval <= *interval));
        self.unpark(|wait| matches!(wait, Wait::Behind(_)), false, out);
        self.choose_groups(out);
    }

    /// Takes up some more groups.
    pub(super) fn choose_groups(&mut self, out: &mut Vec<Action>) {
        for pg in self.map.groups_with(self.disk) {
            let Some((interval, state, sources)) = self.place_in(pg) else {
                continue;
            };
            if !state.comes_back()
                || self.recovery.groups.contains_key(&pg)
                || self.recovery.proposing.contains(&pg)
            {
                continue;
            }
            let before = self.recovery.served_before.get(&pg);
            if state == SlotState::Joining && before.is_some_and(|before| *before >= interval) {
                self.propose(pg, interval, (state, SlotState::Syncing), out);
                continue;
            }
            // A joining one holds up writes: it never waits for its turn.
            let full = self.recovery.groups.len() >= GROUPS_MAX && state == SlotState::Syncing;
            if let Some(source) = sources.first().filter(|_| !full) {
                let run = self.recovery.next_number;
                self.recovery.next_number += 1;
                let filling = Filling::new(run, interval, state, *source);
                self.recovery.groups.insert(pg, filling);
            }
        }
        let tables: Vec<PgId> = self.filling_where(|filling| filling.step == Step::Table);
        for pg in tables {
            let waits = self.recovery.asked.values().any(|asked| *asked == pg);
            // What is merged or dropped here while it is compared would be taken for what it was before.
            if !waits && !self.reclaims_in(pg) && !self.clears(pg, out) {
                self.ask_source(pg, Ask::Table, out);
            }
        }
    }

    /// Our slot's interval and state in a group, and the disks in sync there, in an order that changes
    /// with the questions that were asked, so that a bad source is not asked for ever.
    pub(super) fn place_in(&self, pg: PgId) -> Option<(Interval, SlotState, Vec<DiskId>)> {
        let group = self.map.group(pg)?;
        let own = group.slot_of(self.disk)?;
        let profile = self.map.profile(pg);
        // Whoever keeps fronts asks one that does.
        let front = |slot: &Slot| Self::is_kept(profile, slot.shard, 0);
        let may_tell = |slot: &&Slot| slot.state == SlotState::InSync && (front(slot) || !front(own));
        let in_sync = group.slots.iter().filter(may_tell);
        let mut sources: Vec<DiskId> = in_sync.map(|slot| slot.disk).collect();
        if !sources.is_empty() {
            let turn = usize::try_from(self.recovery.next_number).unwrap_or(0) % sources.len();
            sources.rotate_left(turn);
        }
        Some((group.interval, own.state, sources))
    }

    fn filling_where(&self, condition: impl Fn(&Filling) -> bool) -> Vec<PgId> {
        let groups = self.recovery.groups.iter();
        groups
            .filter(|(_, filling)| condition(filling))
            .map(|(pg, _)| *pg)
            .collect()
    }

    fn propose(&mut self, pg: PgId, interval: Interval, step: (SlotState, SlotState), out: &mut Vec<Action>) {
        self.recovery.proposing.insert(pg);
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Proposed;
        }
        let (from, to) = step;
        out.push(Action::Propose {
            pg,
            interval,
            from,
            to,
        });
    }

    /// The outcome of a swap is known, and the map shows it.
    pub(super) fn proposed(&mut self, pg: PgId, out: &mut Vec<Action>) {
        self.recovery.proposing.remove(&pg);
        // If it was not made, the group begins anew.
        self.recovery.forget(pg);
        self.choose_groups(out);
    }

    pub(super) fn ask_source(&mut self, pg: PgId, ask: Ask, out: &mut Vec<Action>) {
        if let Some(source) = self.recovery.groups.get(&pg).map(|filling| filling.source) {
            self.ask_disk(pg, source, ask, out);
        }
    }

    /// Asks a disk something for a group that we come back to; gives the question's number.
    pub(super) fn ask_disk(&mut self, pg: PgId, to: DiskId, ask: Ask, out: &mut Vec<Action>) -> Option<u64> {
        let filling = self.recovery.groups.get(&pg)?;
        let number = self.recovery.next_number;
        self.recovery.next_number += 1;
        self.recovery.asked.insert(number, pg);
        out.push(Action::Question {
            to,
            number,
            question: Question {
                pg,
                interval: filling.interval,
                from: self.disk,
                ask,
            },
        });
        Some(number)
    }

    /// V3: before anything is compared, all owners that the source knows are known here, durably.
    pub(super) fn take_over_table(
        &mut self,
        pg: PgId,
        table: Vec<(VolumeId, Generation, bool)>,
        out: &mut Vec<Action>,
    ) {
        let mut wanted = Vec::new();
        for (volume, generation, served) in table {
            if served {
                let known = self.recovery.served.entry((pg, volume)).or_default();
                *known = generation.max(*known);
            }
            if generation > Generation(0) && !mutation::active(Mutation::SkipTable) {
                wanted.push((volume, generation));
                let durable = self.generations.get(&volume).copied().unwrap_or_default().durable;
                if durable < generation {
                    self.raise_generation(volume, generation, out);
                }
            }
        }
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Generations(wanted);
            // V10: if we restart, we must know that we were joining, though nothing was served meanwhile. Else we
            // would serve again while the swap that we asked for before is still to come.
            if filling.state == SlotState::Joining {
                let interval = filling.interval;
                if !self.is_durable(pg, interval) {
                    self.raise_interval(pg, interval, out);
                }
            }
        }
        self.resume_groups(out);
    }

    fn is_durable(&self, pg: PgId, interval: Interval) -> bool {
        let raised = self.intervals.get(&pg);
        raised.is_some_and(|raised| raised.durable >= interval)
    }

    /// Takes up groups that waited for generations and intervals to be durable, or for owners to serve.
    pub(super) fn resume_groups(&mut self, out: &mut Vec<Action>) {
        let mut ready = self.filling_where(|filling| match &filling.step {
            Step::Generations(wanted) => wanted.iter().all(|(volume, generation)| {
                let known = self.generations.get(volume).copied().unwrap_or_default();
                known.durable >= *generation
            }),
            _ => false,
        });
        ready.retain(|pg| {
            let filling = self.recovery.groups.get(pg);
            filling.is_some_and(|filling| {
                filling.state == SlotState::Syncing || self.is_durable(*pg, filling.interval)
            })
        });
        let served = self.filling_where(|filling| filling.step == Step::Fenced);
        let served = served.into_iter().filter(|pg| {
            let filling = self.recovery.groups.get(pg);
            filling.is_some_and(|filling| !self.recovery.is_fenced(*pg, filling.interval))
        });
        let ready: Vec<PgId> = ready.into_iter().chain(served).collect();
        for pg in ready {
            self.begin_pass(pg);
            self.advance(pg, out);
        }
    }

    /// Takes a group's next step.
    pub(super) fn advance(&mut self, pg: PgId, out: &mut Vec<Action>) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        if filling.step != Step::Next {
            return;
        }
        filling.idle = 0;
        let urgent = filling.urgent.pop_first().map(|at| (at, None));
        if let Some((at, known)) = urgent.or_else(|| filling.columns.pop_front()) {
            self.take_column(pg, at, known, out);
        } else if let Cursor::After(after) = filling.source_next {
            filling.step = Step::Listing;
            self.ask_source(pg, Ask::List { after }, out);
        } else if let Cursor::After(after) = filling.own_next {
            filling.step = Step::OwnList;
            self.ask_own(pg, StorageRequest::List { after, limit: PAGE }, out);
        } else {
            self.end_pass(pg, out);
        }
    }

    /// Looks at a column; `known` is what the source has of it, if that was told.
    fn take_column(&mut self, pg: PgId, at: Column, known: Option<Vec<ObjectState>>, out: &mut Vec<Action>) {
        let (family, index) = at;
        if let Some(profile) = self.map.profile(pg).filter(|_| is_rows(index)) {
            self.rebuild_column(pg, profile, at, out);
        } else if !self.keeps(pg, index) {
            // A front, which is on other disks of the group.
            self.end_column(pg, out);
        } else if let Some(objects) = known {
            self.ask_own_column(pg, at, objects, out);
        } else {
            if let Some(filling) = self.recovery.groups.get_mut(&pg) {
                filling.step = Step::SourceColumn(at);
            }
            self.ask_source(pg, Ask::Column { family, index }, out);
        }
    }

    /// All that the source has, and all that is here, was looked at.
    fn end_pass(&mut self, pg: PgId, out: &mut Vec<Action>) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        filling.passes += 1;
        let interval = filling.interval;
        if filling.state == SlotState::Syncing {
            if filling.copied <= FEW || filling.passes >= PASSES_MAX {
                self.propose(pg, interval, (SlotState::Syncing, SlotState::Joining), out);
            } else {
                self.begin_pass(pg);
                self.advance(pg, out);
            }
            return;
        }
        // What was listed before an owner that may level was done proves nothing (W7).
        let (void, keeps) = (filling.void, mutation::active(Mutation::KeepListOverFence));
        if self.recovery.is_fenced(pg, interval) && !keeps {
            self.wait_for_owners(pg);
        } else if void && !keeps {
            self.begin_pass(pg);
            self.advance(pg, out);
        } else {
            self.propose(pg, interval, (SlotState::Joining, SlotState::InSync), out);
        }
    }

    fn begin_pass(&mut self, pg: PgId) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        filling.begin_pass();
        let interval = filling.interval;
        let void = self.recovery.is_fenced(pg, interval);
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.void = void;
        }
    }

    fn wait_for_owners(&mut self, pg: PgId) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Fenced;
        }
    }

    /// An owner fenced a group that we are joining (W7): unless it serves there already, it may level, and
    /// what was listed before proves nothing.
    pub(super) fn fenced(&mut self, scope: &Scope) {
        let served = self.recovery.served.get(&(scope.pg, scope.volume));
        if served.is_some_and(|served| *served >= scope.generation) {
            return;
        }
        if !self.is_joining(scope.pg) {
            return;
        }
        let fence = (scope.interval, scope.generation);
        self.recovery.fences.insert((scope.pg, scope.volume), fence);
        if let Some(filling) = self.recovery.groups.get_mut(&scope.pg) {
            filling.void = true;
        }
    }

    /// An owner says that something is complete: it serves.
    pub(super) fn serves(&mut self, scope: &Scope, out: &mut Vec<Action>) {
        let group = self.map.group(scope.pg);
        let whole = |group: &protocol::session::GroupView| {
            group.slots.iter().all(|slot| slot.state == SlotState::InSync)
        };
        if group.is_none_or(whole) {
            return; // Nobody will ask.
        }
        let known = self.recovery.served.entry((scope.pg, scope.volume)).or_default();
        *known = scope.generation.max(*known);
        let key = (scope.pg, scope.volume);
        let fence = self.recovery.fences.get(&key);
        if fence.is_some_and(|(_, generation)| *generation <= scope.generation) {
            self.recovery.fences.remove(&key);
            self.resume_groups(out);
        }
    }

    /// Whether we are joining a group: writes wait for us then, and may find their objects behind.
    pub(super) fn is_joining(&self, pg: PgId) -> bool {
        let group = self.map.group(pg);
        let own = group.and_then(|group| group.slot_of(self.disk));
        own.is_some_and(|own| own.state == SlotState::Joining)
    }

    /// Whether a write that finds its object behind is to wait for its copy.
    pub(super) fn comes_back(&self, pg: PgId) -> bool {
        let filling = self.recovery.groups.get(&pg);
        filling.is_some_and(|filling| filling.state == SlotState::Joining)
    }

    /// A write found its object behind: it waits for the copy, which never waits for it (P3).
    pub(super) fn behind_is(&mut self, pg: PgId, object: ObjectId, out: &mut Vec<Action>) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.urgent.insert((object.family, object.index));
        }
        self.advance(pg, out);
    }
}
