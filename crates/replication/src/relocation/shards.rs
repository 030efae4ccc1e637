//! Groups of shards on their way: who stays keeps its shard, who comes gets the one that becomes free, and each shard is
//! there at every step. What a disk does with its shard is not looked at.

use proptest::prelude::*;

use super::*;
use crate::membership::{Eviction, advance, evict, held};
use SlotState::{Down, InSync, Joining, Syncing};

/// The interval that a step is taken in.
const NOW: Interval = Interval(7);
/// Disks that there are: more than the widest group tried has slots.
const DISKS: u32 = 12;
/// Steps until a group is where it is wanted, when all disks are well: a newcomer and one that leaves for each slot, and
/// as many for a wish that crossed another one.
const STEPS_MAX: usize = 4 * 8;

fn group(slots: &[(u32, SlotState, u8)]) -> Vec<Slot> {
    let slot = |(disk, state, shard): &(u32, SlotState, u8)| Slot {
        disk: DiskId(*disk),
        state: *state,
        shard: *shard,
        arrived: Interval::default(),
    };
    slots.iter().map(slot).collect()
}

/// The slots after the next step of a group of 2+1.
fn next(slots: &[(u32, SlotState, u8)], wanted: [u32; 3]) -> Option<Vec<Slot>> {
    let step = relocate(&group(slots), &wanted.map(DiskId), 3, NOW)?;
    let mut slots = step.slots;
    for slot in &mut slots {
        // Whoever comes is told since when; the others stay as they are.
        let since = if step.comes == Some(slot.disk) {
            NOW
        } else {
            Interval::default()
        };
        assert_eq!(std::mem::take(&mut slot.arrived), since);
    }
    Some(slots)
}

const WHOLE: [(u32, SlotState, u8); 3] = [(1, InSync, 0), (2, InSync, 1), (3, InSync, 2)];

#[test]
fn a_newcomer_has_the_shard_of_the_one_that_it_replaces_and_only_that_one_leaves() {
    let [one, two, three] = WHOLE;
    // Disk 2 goes to 4 and disk 1 to 5: one after the other, each with its own shard.
    let begun = [one, two, three, (5, Down, 0)];
    assert_eq!(next(&WHOLE, [5, 4, 3]), Some(group(&begun)));
    for state in [Down, Syncing, Joining] {
        assert_eq!(
            next(&[one, two, three, (5, state, 0)], [5, 4, 3]),
            None,
            "{state:?}"
        );
    }
    let arrived = [one, two, three, (5, InSync, 0)];
    let ended = [two, three, (5, InSync, 0), (4, Down, 1)];
    assert_eq!(next(&arrived, [5, 4, 3]), Some(group(&ended)));
}

#[test]
fn whoever_is_away_is_replaced_first() {
    let away = [(1, InSync, 0), (2, Down, 1), (3, InSync, 2)];
    let [one, two, three] = away;
    assert_eq!(
        next(&away, [5, 4, 3]),
        Some(group(&[one, two, three, (5, Down, 1)]))
    );
}

#[test]
fn another_shard_that_is_away_does_not_hold_up_one_that_has_arrived() {
    // Of copies the live disk 3 would stay until three are in sync: here shard 2 is as safe as it was.
    let states = [(1, InSync, 0), (2, Down, 1), (3, InSync, 2), (4, InSync, 2)];
    let [one, two, _, four] = states;
    assert_eq!(next(&states, [1, 2, 4]), Some(group(&[one, two, four])));
}

#[test]
fn a_disk_that_is_wanted_for_another_shard_leaves_and_comes_anew() {
    // Disk 4 was on its way to replace 1; now 1 is wanted again, and 2 is not.
    let [one, two, three] = WHOLE;
    for state in [Down, Syncing, Joining, InSync] {
        let crossed = relocate(
            &group(&[one, two, three, (4, state, 0)]),
            &[1, 4, 3].map(DiskId),
            3,
            NOW,
        );
        let taken_back = Relocation {
            slots: group(&WHOLE),
            comes: None,
            leave: vec![DiskId(4)],
        };
        assert_eq!(crossed, Some(taken_back), "{state:?}");
    }
    assert_eq!(
        next(&WHOLE, [1, 4, 3]),
        Some(group(&[one, two, three, (4, Down, 1)]))
    );
    // As long as nobody has its shard in sync, neither of the two goes.
    let neither = [(1, Down, 0), two, three, (4, Syncing, 0)];
    assert_eq!(next(&neither, [1, 4, 3]), None);
    let arrived = [(1, Down, 0), two, three, (4, InSync, 0)];
    assert_eq!(
        next(&arrived, [1, 4, 3]),
        Some(group(&[two, three, (4, InSync, 0)]))
    );
}

#[test]
fn a_shard_that_no_slot_has_comes_first() {
    let states = [(1, InSync, 0), (3, InSync, 2)];
    let [one, three] = states;
    assert_eq!(next(&states, [1, 2, 3]), Some(group(&[one, three, (2, Down, 1)])));
}

/// What happens to a group.
#[derive(Clone, Debug)]
enum Happening {
    /// A place of those wanted goes to another disk.
    Wish(usize, u32),
    /// A disk of the group is put out, if it can be spared.
    Evict(usize),
    /// A disk of the group gets a step nearer to being in sync.
    Advance(usize),
    /// The group takes its next step.
    Relocate,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0usize..8, 1..=DISKS).prop_map(|(place, disk)| Happening::Wish(place, disk)),
        2 => (0usize..9).prop_map(Happening::Evict),
        6 => (0usize..9).prop_map(Happening::Advance),
        4 => Just(Happening::Relocate),
    ]
}

fn after(state: SlotState) -> SlotState {
    match state {
        Down => Syncing,
        Syncing => Joining,
        Joining | InSync => InSync,
    }
}

/// A group that is whole, of shards or of copies.
fn whole(width: u8, shards: bool) -> Vec<Slot> {
    let slot = |place| Slot {
        disk: DiskId(u32::from(place) + 1),
        state: InSync,
        shard: if shards { place } else { 0 },
        arrived: Interval::default(),
    };
    (0..width).map(slot).collect()
}

fn wish(wanted: &mut [DiskId], place: usize, disk: u32) {
    if !wanted.contains(&DiskId(disk)) {
        let place = place % wanted.len();
        wanted[place] = DiskId(disk);
    }
}

/// The laws of each step of a group of shards.
fn check_step(
    before: &[Slot],
    step: &Relocation,
    wanted: &[DiskId],
    width: usize,
) -> Result<(), TestCaseError> {
    let slot_of = |slots: &[Slot], disk: DiskId| slots.iter().find(|slot| slot.disk == disk).copied();
    for slot in &step.slots {
        if let Some(stayed) = slot_of(before, slot.disk) {
            prop_assert_eq!(*slot, stayed);
            prop_assert!(!step.leave.contains(&slot.disk));
        } else {
            prop_assert_eq!(step.comes, Some(slot.disk));
            prop_assert_eq!(slot.state, Down);
            // Somebody has the shard whose disk is to go.
            let mut replaced = others(&step.slots, *slot);
            prop_assert!(replaced.next().is_some_and(|other| !wanted.contains(&other.disk)));
            prop_assert!(replaced.next().is_none());
        }
    }
    for shard in 0..u8::try_from(width).unwrap() {
        let has = |slots: &[Slot], state: Option<SlotState>| {
            let mut slots = slots.iter().filter(|slot| slot.shard == shard);
            slots.any(|slot| state.is_none_or(|state| slot.state == state))
        };
        prop_assert!(has(&step.slots, None), "shard {} is gone", shard);
        prop_assert_eq!(has(before, Some(InSync)), has(&step.slots, Some(InSync)));
    }
    prop_assert!(step.slots.len() <= width + 1);
    prop_assert!(step.leave.iter().all(|disk| slot_of(before, *disk).is_some()));
    Ok(())
}

proptest! {
    #[test]
    fn who_stays_keeps_its_shard_and_newcomers_get_the_free_ones(
        (data, parity) in (2u8..6, 1u8..3),
        happenings in prop::collection::vec(happening(), 1..120),
    ) {
        let width = usize::from(data + parity);
        let mut slots = whole(data + parity, true);
        let mut wanted: Vec<DiskId> = slots.iter().map(|slot| slot.disk).collect();
        for happening in happenings {
            match happening {
                Happening::Wish(place, disk) => wish(&mut wanted, place, disk),
                Happening::Evict(at) => {
                    let disk = slots[at % slots.len()].disk;
                    if let Eviction::Down(without) = evict(&slots, disk, data) {
                        slots = without;
                    }
                }
                Happening::Advance(at) => {
                    let Slot { disk, state, .. } = slots[at % slots.len()];
                    slots = advance(&slots, disk, state, after(state)).unwrap_or(slots);
                }
                Happening::Relocate => {
                    if let Some(step) = relocate(&slots, &wanted, width, NOW) {
                        check_step(&slots, &step, &wanted, width)?;
                        slots = step.slots;
                    }
                }
            }
            prop_assert!(held(&slots) >= usize::from(data), "{:?}", slots);
        }
        // When all is well, the group gets to where it is wanted.
        for _ in 0..STEPS_MAX {
            for slot in &mut slots {
                slot.state = InSync;
            }
            let Some(step) = relocate(&slots, &wanted, width, NOW) else { break };
            check_step(&slots, &step, &wanted, width)?;
            slots = step.slots;
        }
        prop_assert!(is_settled(&slots, &wanted, width), "{:?} {:?}", slots, wanted);
        let mut shards: Vec<u8> = slots.iter().map(|slot| slot.shard).collect();
        shards.sort_unstable();
        prop_assert_eq!(shards, (0..data + parity).collect::<Vec<_>>());
    }

    #[test]
    fn groups_of_copies_get_no_shards(
        width in 1u8..6,
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut slots = whole(width, false);
        let mut wanted: Vec<DiskId> = slots.iter().map(|slot| slot.disk).collect();
        for happening in happenings {
            match happening {
                Happening::Wish(place, disk) => wish(&mut wanted, place, disk),
                Happening::Evict(at) => {
                    let disk = slots[at % slots.len()].disk;
                    if let Eviction::Down(without) = evict(&slots, disk, 1) {
                        slots = without;
                    }
                }
                Happening::Advance(at) => {
                    let Slot { disk, state, .. } = slots[at % slots.len()];
                    slots = advance(&slots, disk, state, after(state)).unwrap_or(slots);
                }
                Happening::Relocate => {
                    let step = relocate(&slots, &wanted, usize::from(width), NOW);
                    slots = step.map_or(slots, |step| step.slots);
                }
            }
            prop_assert!(slots.iter().all(|slot| slot.shard == 0));
        }
    }
}
