//! Disks are alike: worlds that differ in the disks' numbers only are one. Each is renamed to the one in which the disks
//! stand in order; ties are left as they are, which makes some worlds count twice and none be missed.

use std::cmp::Ordering;

use crate::state::{DISKS, Disk, Record, Set, Slot, World, bit, each};

/// Puts the disks in order.
pub fn order(world: &mut World) {
    let mut ranks: [usize; DISKS] = std::array::from_fn(|disk| disk);
    if (1..DISKS).all(|disk| compare(world, disk - 1, disk) != Ordering::Greater) {
        return;
    }
    ranks.sort_by(|a, b| compare(world, *a, *b));
    rename(world, ranks);
}

fn compare(world: &World, a: usize, b: usize) -> Ordering {
    let slots = |disk: usize| {
        // Who has a slot comes first, so that traces begin with disk 0.
        move |record: &Record| std::cmp::Reverse(record.slot(disk))
    };
    let nameless = |disk: usize| Disk {
        source: 0,
        ..world.disks[disk]
    };
    let records = &world.records[..=usize::from(world.interval)];
    let by_slots = records
        .iter()
        .rev()
        .map(slots(a))
        .cmp(records.iter().rev().map(slots(b)));
    by_slots
        .then_with(|| nameless(a).cmp(&nameless(b)))
        .then_with(|| world.swaps[a].cmp(&world.swaps[b]))
        .then_with(|| {
            for owner in &world.owners {
                let of = |disk: usize| {
                    let has = |set: Set| set & bit(disk) != 0;
                    let oks = owner.writes.map(|write| has(write.oks));
                    (has(owner.fenced), has(owner.listed), owner.stamps[disk], oks)
                };
                let order = of(a).cmp(&of(b));
                if order != Ordering::Equal {
                    return order;
                }
            }
            Ordering::Equal
        })
}

/// The disk that was `ranks[i]` is `i` from now on.
#[allow(clippy::cast_possible_truncation)] // Four disks.
fn rename(world: &mut World, ranks: [usize; DISKS]) {
    let new_name = |old: usize| ranks.iter().position(|rank| *rank == old).unwrap_or(old);
    let set = |old: Set| each(old).fold(0, |set, disk| set | bit(new_name(disk)));
    for record in &mut world.records {
        let slots: [Slot; DISKS] = std::array::from_fn(|disk| record.slot(ranks[disk]));
        *record = Record::new(slots).with_extra(record.extra().map(new_name));
    }
    world.disks = ranks.map(|old| {
        let disk = world.disks[old];
        let source = if disk.in_pass() {
            new_name(usize::from(disk.source)) as u8
        } else {
            0
        };
        Disk { source, ..disk }
    });
    world.swaps = ranks.map(|old| world.swaps[old]);
    for owner in &mut world.owners {
        owner.fenced = set(owner.fenced);
        owner.listed = set(owner.listed);
        owner.stamps = ranks.map(|old| owner.stamps[old]);
        for write in &mut owner.writes {
            write.oks = set(write.oks);
        }
    }
}
