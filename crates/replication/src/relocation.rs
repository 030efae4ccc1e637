//! A placement group moves to other disks: one more slot is filled beside those that hold it, and takes the place
//! of one of them (P13). So a full set can be repaired, and a disk that lives be emptied.
//!
//! Decides on the slots of one record and on where the group is wanted, and nothing else. Which disks are wanted,
//! when, and how many groups may move at once is the business of `storaged`; how the new disk gets what the others
//! have is that of `replica::fill`.
//!
//! The slots that hold the group come first, as many as the pool's redundancy says; what is behind them came later.
//!
//! Copies are alike: whoever comes can take the place of anybody. Of shards (`docs/decisions/0050-erasure-coding.md`) each
//! has a slot at all times. Who comes gets the shard of the one that it replaces, and only that one leaves for it: a slot's
//! shard never changes.

use protocol::session::{Slot, SlotState};
use protocol::{DiskId, Interval};

use crate::membership::{count, has_shards};
use crate::mutation::{self, Mutation};

/// The next change of a group's record on its way to other disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The slots after it.
    pub slots: Vec<Slot>,
    /// The disk that gets one, empty and out of sync: it comes by itself, as one that comes back does.
    pub comes: Option<DiskId>,
    /// The disks that lose theirs.
    pub leave: Vec<DiskId>,
}

/// The next step of a group of `width` copies or shards to the disks where it is wanted; nothing if there is none to take
/// now. `interval` is the group's, and the step is to be taken in it.
///
/// Nothing is taken away before its replacement is in sync: the number of copies in sync never falls below what it
/// was, nor below `width` for the sake of one that lives. Of a shard the same is true, with one instead of `width`.
pub fn relocate(slots: &[Slot], wanted: &[DiskId], width: usize, interval: Interval) -> Option<Relocation> {
    if wanted.len() < width {
        return None; // There are not enough places: what there is stays where it is.
    }
    let aim = Aim {
        wanted,
        width,
        shards: has_shards(slots),
    };
    let (slots, leave) = aim.without_surplus(slots.to_vec());
    let comes = aim.newcomer(&slots, &leave);
    if comes.is_none() && leave.is_empty() {
        return None;
    }
    let state = if mutation::active(Mutation::ComeInSync) {
        SlotState::InSync
    } else {
        SlotState::Down
    };
    let slots = slots.into_iter().chain(comes.map(|(disk, shard)| Slot {
        disk,
        state,
        shard,
        // Of copies it does not matter: they are alike.
        arrived: if aim.shards { interval } else { Interval::default() },
    }));
    Some(Relocation {
        slots: slots.collect(),
        comes: comes.map(|(disk, _)| disk),
        leave,
    })
}

/// How many slots of a group came later and are not in sync yet.
pub fn arriving(slots: &[Slot], width: usize) -> impl Iterator<Item = DiskId> {
    let later = slots.iter().skip(width);
    later
        .filter(|slot| slot.state != SlotState::InSync)
        .map(|slot| slot.disk)
}

/// Whether a group is where it is wanted, in sync or not.
pub fn is_settled(slots: &[Slot], wanted: &[DiskId], width: usize) -> bool {
    let there = |disk: &DiskId| slots.iter().any(|slot| slot.disk == *disk);
    wanted.len() < width || (slots.len() <= width && wanted.iter().all(there))
}

/// What a group is to become.
struct Aim<'a> {
    wanted: &'a [DiskId],
    width: usize,
    /// Whether its slots have shards, and are not copies of one another.
    shards: bool,
}

impl Aim<'_> {
    /// Takes away what is too much: of those that are not wanted, whoever is worth least goes first.
    fn without_surplus(&self, mut slots: Vec<Slot>) -> (Vec<Slot>, Vec<DiskId>) {
        let mut leave = Vec::new();
        while slots.len() > self.width {
            let arrived = arriving(&slots, self.width).next().is_none();
            let going = slots.iter().enumerate().filter(|(at, slot)| {
                self.is_too_much(&slots, **slot) && self.may_go(&slots, *at, **slot, arrived)
            });
            let least = going.min_by_key(|(at, slot)| (worth(slot.state), self.width.saturating_sub(*at)));
            let Some(at) = least.map(|(at, _)| at) else { break };
            leave.push(slots.remove(at).disk);
        }
        (slots, leave)
    }

    /// Whether a slot is one that the group could do without.
    fn is_too_much(&self, slots: &[Slot], slot: Slot) -> bool {
        let wanted = |slot: Slot| self.wanted.contains(&slot.disk);
        if !self.shards {
            return !wanted(slot);
        }
        let mut others = others(slots, slot).peekable();
        if !wanted(slot) {
            return others.peek().is_some();
        }
        // Both are wanted, so another shard's disk is not: one of the two is to come again, with that shard.
        others.any(|other| wanted(*other) && other.state == SlotState::InSync)
    }

    /// Whether the group is as safe as before when a slot that is too much goes.
    fn may_go(&self, slots: &[Slot], at: usize, slot: Slot, arrived: bool) -> bool {
        match slot.state {
            SlotState::InSync if mutation::active(Mutation::LeaveBeforeArrival) => true,
            SlotState::InSync if self.shards => {
                others(slots, slot).any(|other| other.state == SlotState::InSync)
            }
            SlotState::InSync => count(slots, SlotState::InSync) > self.width,
            // Who holds the group and is away may be the last that has it: it stays until another one has come.
            _ => at >= self.width || arrived,
        }
    }

    /// The disk that comes next, and its shard: one at a time, in place of somebody who is not wanted, or where one is
    /// missing.
    fn newcomer(&self, slots: &[Slot], leave: &[DiskId]) -> Option<(DiskId, u8)> {
        // Whoever comes gets everything from those that are in sync.
        if slots.len() > self.width || count(slots, SlotState::InSync) == 0 {
            return None;
        }
        let shard = self.missing(slots).or_else(|| {
            let unwanted = slots.iter().filter(|slot| !self.wanted.contains(&slot.disk));
            // Of shards, one that nobody has in sync is replaced first.
            let least = unwanted.min_by_key(|slot| worth(slot.state))?;
            Some(least.shard)
        })?;
        let here = |disk: &DiskId| slots.iter().any(|slot| slot.disk == *disk);
        // Who leaves does not come with another shard in the same step: it must see that it has none any more.
        let free = |disk: &DiskId| !here(disk) && !leave.contains(disk);
        let disk = self.wanted.iter().copied().find(free)?;
        Some((disk, shard))
    }

    /// What no slot has: a shard, or a copy, which is 0.
    fn missing(&self, slots: &[Slot]) -> Option<u8> {
        if !self.shards {
            return (slots.len() < self.width).then_some(0);
        }
        let all = 0..u8::try_from(self.width).unwrap_or(u8::MAX);
        let mut missing = all.filter(|shard| slots.iter().all(|slot| slot.shard != *shard));
        missing.next()
    }
}

/// The other slots with the same shard.
fn others(slots: &[Slot], of: Slot) -> impl Iterator<Item = &Slot> {
    let alike = slots.iter().filter(move |slot| slot.shard == of.shard);
    alike.filter(move |slot| slot.disk != of.disk)
}

fn worth(state: SlotState) -> u8 {
    match state {
        SlotState::Down => 0,
        SlotState::Syncing => 1,
        SlotState::Joining => 2,
        SlotState::InSync => 3,
    }
}

#[cfg(test)]
mod shards;

#[cfg(test)]
mod tests {
    //! Nothing goes before its replacement is there, and what was begun for nothing is taken back.
    use super::*;
    use SlotState::{Down, InSync, Joining, Syncing};

    const WIDTH: usize = 3;

    fn slots(states: &[(u32, SlotState)]) -> Vec<Slot> {
        let slot = |(disk, state): &(u32, SlotState)| Slot::of_copy(DiskId(*disk), *state);
        states.iter().map(slot).collect()
    }

    fn next(states: &[(u32, SlotState)], wanted: [u32; WIDTH]) -> Option<Vec<Slot>> {
        let wanted = wanted.map(DiskId);
        relocate(&slots(states), &wanted, WIDTH, Interval(7)).map(|relocation| relocation.slots)
    }

    const WHOLE: [(u32, SlotState); WIDTH] = [(1, InSync), (2, InSync), (3, InSync)];

    #[test]
    fn a_group_that_is_where_it_is_wanted_stays() {
        assert_eq!(next(&WHOLE, [3, 1, 2]), None);
        // Also with one away: it comes back by itself.
        assert_eq!(next(&[(1, InSync), (2, Down), (3, InSync)], [1, 2, 3]), None);
    }

    #[test]
    fn a_live_disk_is_replaced_without_a_moment_of_fewer_copies() {
        let [one, two, three] = WHOLE;
        let begun = [one, two, three, (4, Down)];
        assert_eq!(next(&WHOLE, [1, 2, 4]), Some(slots(&begun)));
        for state in [Down, Syncing, Joining] {
            assert_eq!(next(&[one, two, three, (4, state)], [1, 2, 4]), None, "{state:?}");
        }
        let ended = [one, two, (4, InSync)];
        assert_eq!(
            next(&[one, two, three, (4, InSync)], [1, 2, 4]),
            Some(slots(&ended))
        );
    }

    #[test]
    fn a_dead_disk_keeps_its_slot_until_another_one_has_taken_its_place() {
        let away = [(1, InSync), (2, InSync), (3, Down)];
        let [one, two, three] = away;
        assert_eq!(next(&away, [1, 2, 4]), Some(slots(&[one, two, three, (4, Down)])));
        assert_eq!(next(&[one, two, three, (4, Joining)], [1, 2, 4]), None);
        let ended = Some(slots(&[one, two, (4, InSync)]));
        assert_eq!(next(&[one, two, three, (4, InSync)], [1, 2, 4]), ended);
    }

    #[test]
    fn a_move_that_is_not_wanted_any_more_is_taken_back() {
        let [one, two, three] = WHOLE;
        for state in [Down, Syncing, Joining, InSync] {
            assert_eq!(
                next(&[one, two, three, (4, state)], [1, 2, 3]),
                Some(WHOLE.to_vec()).map(|whole| slots(&whole)),
                "{state:?}"
            );
        }
        // And begun again to another disk in the same step.
        assert_eq!(
            next(&[one, two, three, (4, Down)], [1, 2, 5]),
            Some(slots(&[one, two, three, (5, Down)]))
        );
    }

    #[test]
    fn a_live_disk_stays_while_another_one_is_away() {
        let states = [(1, InSync), (2, Down), (3, InSync), (4, InSync)];
        assert_eq!(next(&states, [1, 2, 4]), None);
    }

    #[test]
    fn two_disks_are_replaced_one_after_the_other() {
        let mut group = slots(&[(1, Down), (2, Down), (3, InSync)]);
        let wanted = [4, 5, 3].map(DiskId);
        let mut steps = Vec::new();
        while let Some(relocation) = relocate(&group, &wanted, WIDTH, Interval(7)) {
            steps.push((relocation.comes, relocation.leave));
            group = relocation.slots;
            for slot in &mut group {
                if wanted.contains(&slot.disk) {
                    slot.state = InSync;
                }
            }
        }
        let (four, five) = (Some(DiskId(4)), Some(DiskId(5)));
        assert_eq!(
            steps,
            [(four, vec![]), (five, vec![DiskId(2)]), (None, vec![DiskId(1)])]
        );
        assert_eq!(group, slots(&[(3, InSync), (4, InSync), (5, InSync)]));
        assert!(is_settled(&group, &wanted, WIDTH));
    }

    #[test]
    fn with_too_few_places_or_without_a_source_nothing_moves() {
        assert_eq!(
            relocate(&slots(&[(1, InSync), (2, Down)]), &[DiskId(1)], 2, Interval(7)),
            None
        );
        assert_eq!(next(&[(1, Down), (2, Down), (3, Down)], [1, 2, 4]), None);
    }

    #[test]
    fn a_group_with_a_slot_too_few_gets_one() {
        let states = [(1, InSync), (2, InSync)];
        let [one, two] = states;
        assert_eq!(next(&states, [1, 2, 3]), Some(slots(&[one, two, (3, Down)])));
    }
}
