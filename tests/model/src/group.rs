//! How the group's record changes, by compare-and-swap only. `replication::membership` and `replication::relocation`
//! are what it is a model of.

use crate::rule::Rule;
use crate::scope::Scope;
use crate::state::{DISKS, Record, Slot, Step, World};

/// The record is another one from now on, if there is an interval left for it.
fn change(scope: &Scope, world: &World, record: Record) -> Option<World> {
    if world.interval >= scope.intervals {
        return None;
    }
    let mut next = *world;
    next.interval += 1;
    next.records[usize::from(next.interval)] = record;
    Some(next)
}

/// A swap of a disk's own state sets out.
pub fn propose(world: &mut World, disk: usize, interval: u8) {
    world.swaps[disk] = interval + 1;
}

/// A swap arrives.
pub fn swap(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let interval = world.swaps[disk].checked_sub(1)?;
    let record = world.record();
    let next_slot = match record.slot(disk) {
        Slot::Syncing if scope.keeps(Rule::VerifiedWhileJoining) => Slot::Joining,
        Slot::Syncing | Slot::Joining => Slot::InSync,
        Slot::Absent | Slot::Down | Slot::InSync => return None,
    };
    if (interval != world.interval && scope.keeps(Rule::SwapOfSameInterval)) || record.in_sync() == 0 {
        return None;
    }
    let mut next = change(scope, world, record.with(disk, next_slot))?;
    next.swaps[disk] = 0;
    Some(next)
}

/// A disk is put out: its owner complains, or its node is gone. Who is needed stays.
pub fn evict(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let record = world.record();
    let slot = record.slot(disk);
    let needed = slot == Slot::InSync
        && record.in_sync().count_ones() <= scope.least.max(1)
        && (scope.keeps(Rule::NeededStays) || record.in_sync().count_ones() == 1);
    if world.left.evictions == 0 || slot <= Slot::Down || needed {
        return None;
    }
    let mut next = change(scope, world, record.with(disk, Slot::Down))?;
    next.left.evictions -= 1;
    Some(next)
}

/// A disk that is out asks to come back.
pub fn come_back(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let record = world.record();
    let may = record.slot(disk) == Slot::Down && world.disks[disk].map == world.interval;
    if world.left.returns == 0 || !may || record.in_sync() == 0 {
        return None;
    }
    let mut next = change(scope, world, record.with(disk, Slot::Syncing))?;
    next.left.returns -= 1;
    Some(next)
}

/// V10: a disk that was started anew while it was joining begins anew.
pub fn begin_anew(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let it = &world.disks[disk];
    let may = it.reborn && it.map == world.interval && world.record().slot(disk) == Slot::Joining;
    if !may {
        return None;
    }
    change(scope, world, world.record().with(disk, Slot::Syncing))
}

/// The group is to move to a disk: it gets an extra slot.
pub fn add(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let record = world.record();
    let room = record.slot(disk) == Slot::Absent && record.len() <= scope.width;
    if world.left.moves == 0 || !room || record.in_sync() == 0 {
        return None;
    }
    let slot = if scope.keeps(Rule::ComeOutOfSync) {
        Slot::Syncing
    } else {
        Slot::InSync
    };
    let mut next = change(scope, world, record.with(disk, slot).with_extra(Some(disk)))?;
    next.left.moves -= 1;
    Some(next)
}

/// A slot too many goes: of one that the group moves away from, or of the extra one, if the move is taken back.
pub fn leave(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let record = world.record();
    let extra = record.extra()?;
    let in_sync = record.in_sync().count_ones();
    let may = match record.slot(disk) {
        Slot::Absent => false,
        Slot::InSync => in_sync > scope.width || (!scope.keeps(Rule::LeaveAfterArrival) && in_sync > 1),
        _ => disk == extra || record.slot(extra) == Slot::InSync,
    };
    if !may || record.len() <= scope.width {
        return None;
    }
    change(scope, world, record.with(disk, Slot::Absent))
}

/// Forgets what can make no difference any more, so that worlds that differ in nothing else are one.
pub fn tidy(scope: &Scope, world: &mut World) {
    for disk in 0..DISKS {
        // Who has no slot and gets none does not follow.
        let it = &mut world.disks[disk];
        let map = usize::from(it.map);
        let outside =
            (map..=usize::from(world.interval)).all(|at| world.records[at].slot(disk) == Slot::Absent);
        if outside
            && it.step == Step::Begin
            && world.records[usize::from(it.raised)].slot(disk) == Slot::Absent
        {
            it.map = world.interval;
            it.raised = world.interval;
        }
        if scope.keeps(Rule::SwapOfSameInterval) && world.swaps[disk] <= world.interval {
            world.swaps[disk] = 0;
        }
    }
    if !(scope.keeps(Rule::OwnIntervalOnly) && scope.keeps(Rule::SourceOfSameInterval)) {
        return;
    }
    let back = world.left.restarts > 0;
    let maps = world
        .disks
        .iter()
        .map(|disk| if back { disk.map.min(disk.raised) } else { disk.map });
    let oldest_map = maps.min().unwrap_or_default();
    let owners = world
        .owners
        .iter()
        .filter(|owner| owner.phase != crate::state::Phase::Gone);
    let oldest = owners
        .map(|owner| owner.view)
        .min()
        .unwrap_or(world.interval)
        .min(oldest_map);
    for record in &mut world.records[..usize::from(oldest)] {
        *record = Record::default();
    }
    let fenced = world
        .disks
        .iter()
        .map(|disk| disk.generation)
        .min()
        .unwrap_or_default();
    for (owner, number) in world.owners.iter_mut().zip(1..) {
        for write in &mut owner.writes {
            write.sent &= !0 << oldest_map;
            // Every disk refuses it.
            if fenced > number && scope.without.is_none() {
                write.sent = 0;
            }
        }
    }
    if !back {
        for disk in &mut world.disks {
            disk.raised = 0; // Only a restart asks.
        }
    }
}
