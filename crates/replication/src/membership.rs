//! Who belongs to a placement group: the steps by which a slot leaves the set and comes back.
//!
//! Decides on the slots of one record and nothing else. Who asks, and the compare-and-swap that makes
//! a decision true, are the business of `storaged` and of the simulator.

use std::collections::BTreeSet;

use protocol::DiskId;
use protocol::session::{Slot, SlotState};

use crate::mutation::{self, Mutation};

/// What becomes of the wish to take a disk out of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The group's slots without it.
    Down(Vec<Slot>),
    /// It has no slot there, or is down already.
    Absent,
    /// It stays: too few would be left in sync (rule 4).
    Needed {
        /// How many copies or shards are in sync now, its own among them.
        in_sync: usize,
        /// How many must be.
        least: usize,
    },
}

/// Takes a disk out of a group (rule 4: the set shrinks before anything is acknowledged without it).
/// A disk that is not in sync may always go; one that is, while `min_in_sync` others are. In a group of shards these must be
/// different ones; and whoever has a shard that another one in sync has too may go.
pub fn evict(slots: &[Slot], disk: DiskId, min_in_sync: u8) -> Eviction {
    let Some(slot) = slots.iter().find(|slot| slot.disk == disk) else {
        return Eviction::Absent;
    };
    let without = with(slots, disk, SlotState::Down);
    let (in_sync, left) = (held(slots), held(&without));
    let least = usize::from(min_in_sync).max(1);
    match slot.state {
        SlotState::Down => Eviction::Absent,
        SlotState::InSync
            if left < in_sync && left < least && !mutation::active(Mutation::EvictTheNeeded) =>
        {
            Eviction::Needed { in_sync, least }
        }
        _ => Eviction::Down(without),
    }
}

/// Moves a disk's slot from one state to another; nothing if it is not in the first one.
pub fn advance(slots: &[Slot], disk: DiskId, from: SlotState, to: SlotState) -> Option<Vec<Slot>> {
    let fits = slots.iter().any(|slot| slot.disk == disk && slot.state == from);
    // Who comes back gets everything from one that is in sync.
    (fits && count(slots, SlotState::InSync) > 0).then(|| with(slots, disk, to))
}

/// How many copies a group has in sync, or how many of its shards: two slots with one shard, while it moves, count once.
pub fn held(slots: &[Slot]) -> usize {
    if !has_shards(slots) {
        return count(slots, SlotState::InSync);
    }
    let in_sync = slots.iter().filter(|slot| slot.state == SlotState::InSync);
    in_sync.map(|slot| slot.shard).collect::<BTreeSet<u8>>().len()
}

/// Whether a group is one of shards. A record of one has them all, of slots that are out too, so one of them is not 0.
pub(crate) fn has_shards(slots: &[Slot]) -> bool {
    slots.iter().any(|slot| slot.shard != 0)
}

/// How many slots are in a state.
pub fn count(slots: &[Slot], state: SlotState) -> usize {
    slots.iter().filter(|slot| slot.state == state).count()
}

fn with(slots: &[Slot], disk: DiskId, state: SlotState) -> Vec<Slot> {
    let changed = |slot: &Slot| {
        if slot.disk == disk {
            Slot { state, ..*slot }
        } else {
            *slot
        }
    };
    slots.iter().map(changed).collect()
}

#[cfg(test)]
mod tests {
    //! The set never goes below its least size, and nobody skips a step on the way back.
    use protocol::Interval;

    use super::*;
    use SlotState::{Down, InSync, Joining, Syncing};

    const A: DiskId = DiskId(1);
    const C: DiskId = DiskId(3);

    fn slots(states: [SlotState; 3]) -> Vec<Slot> {
        (1..)
            .zip(states)
            .map(|(disk, state)| Slot::of_copy(DiskId(disk), state))
            .collect()
    }

    #[test]
    fn a_disk_in_sync_goes_while_enough_others_are_in_sync() {
        let all = slots([InSync, InSync, InSync]);
        assert_eq!(evict(&all, C, 2), Eviction::Down(slots([InSync, InSync, Down])));
        let two = slots([InSync, InSync, Down]);
        assert_eq!(evict(&two, A, 2), Eviction::Needed { in_sync: 2, least: 2 });
        assert_eq!(evict(&two, A, 1), Eviction::Down(slots([Down, InSync, Down])));
    }

    #[test]
    fn the_last_disk_in_sync_stays_whatever_the_pool_says() {
        let one = slots([InSync, Down, Syncing]);
        assert_eq!(evict(&one, A, 0), Eviction::Needed { in_sync: 1, least: 1 });
    }

    #[test]
    fn a_disk_that_is_coming_back_may_always_go() {
        // P14: it holds up every write while it joins, and nobody reads it.
        for state in [Syncing, Joining] {
            let group = slots([InSync, InSync, state]);
            assert_eq!(evict(&group, C, 2), Eviction::Down(slots([InSync, InSync, Down])));
        }
    }

    #[test]
    fn a_disk_that_is_not_there_or_down_needs_no_eviction() {
        assert_eq!(evict(&slots([InSync, InSync, Down]), C, 1), Eviction::Absent);
        assert_eq!(evict(&slots([InSync; 3]), DiskId(9), 1), Eviction::Absent);
    }

    #[test]
    fn a_slot_advances_only_from_the_state_that_it_is_in_and_while_there_is_a_source() {
        let group = slots([InSync, Down, Syncing]);
        assert_eq!(
            advance(&group, C, Syncing, Joining),
            Some(slots([InSync, Down, Joining]))
        );
        assert_eq!(advance(&group, C, Down, Syncing), None);
        assert_eq!(advance(&slots([Down, Down, Down]), C, Down, Syncing), None);
    }

    /// A group of 2+1, of which shard 2 moves from disk 3 to disk 4.
    fn moving(states: [SlotState; 4]) -> Vec<Slot> {
        let slots = (1..).zip(states).zip([0, 1, 2, 2]);
        slots
            .map(|((disk, state), shard)| Slot {
                disk: DiskId(disk),
                state,
                shard,
                arrived: Interval::default(),
            })
            .collect()
    }

    #[test]
    fn two_disks_with_one_shard_count_once() {
        // Of copies one of four could go, then one more: here the two with shard 2 would be left, and nothing could be read.
        let all = moving([InSync; 4]);
        assert_eq!(held(&all), 3);
        let Eviction::Down(without) = evict(&all, A, 2) else {
            panic!("shards 1 and 2 are left");
        };
        assert_eq!(without, moving([Down, InSync, InSync, InSync]));
        assert_eq!(
            evict(&without, DiskId(2), 2),
            Eviction::Needed { in_sync: 2, least: 2 }
        );
        // What another one has too is not missed.
        assert_eq!(
            evict(&without, C, 2),
            Eviction::Down(moving([Down, InSync, Down, InSync]))
        );
        assert_eq!(
            evict(&moving([InSync, Down, Joining, InSync]), DiskId(4), 2),
            Eviction::Needed { in_sync: 2, least: 2 }
        );
    }

    #[test]
    fn a_slot_keeps_its_shard_when_it_goes_and_when_it_comes_back() {
        let down = moving([InSync, Down, InSync, Syncing]);
        let back = advance(&down, DiskId(4), Syncing, Joining).unwrap();
        assert_eq!(back, moving([InSync, Down, InSync, Joining]));
        assert_eq!(
            evict(&back, DiskId(4), 2),
            Eviction::Down(moving([InSync, Down, InSync, Down]))
        );
    }
}
