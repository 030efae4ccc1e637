//! What must hold in every world, and what must come about in some: a model in which nothing happens shows nothing.

use crate::owner;
use crate::scope::Scope;
use crate::search::Sight;
use crate::state::{DISKS, Disk, Object, Phase, Slot, Step, World, Wrong, each};

/// The first law that a world breaks, in words.
pub fn broken(scope: &Scope, world: &World) -> Option<&'static str> {
    let in_sync = world.record().in_sync();
    let objects = || each(in_sync).map(|disk| world.disks[disk].object);
    match world.wrong {
        Wrong::Nothing => {}
        Wrong::ReadOld => return Some("a read does not show what was acknowledged or read before"),
        Wrong::ReadDead => return Some("a read shows what was read as not done"),
        Wrong::AcknowledgedDead => return Some("a write is acknowledged that was read as not done"),
        Wrong::AcknowledgedByFew => return Some("a write is acknowledged that too few disks in sync have"),
    }
    let begun = scope.slots.iter().filter(|slot| **slot == Slot::InSync).count();
    if in_sync.count_ones() < scope.least.min(u32::try_from(begun).unwrap_or_default()) {
        return Some("fewer disks are in sync than the pool demands");
    }
    if objects().any(|object| world.must & !object.bytes != 0) {
        return Some("a disk in sync lacks what was acknowledged or read");
    }
    let equal = |a: &Object, b: &Object| a.stamp == b.stamp && a.bytes == b.bytes;
    let first = objects().next().unwrap_or_default();
    let level = objects().all(|object| equal(&object, &first));
    if !level && objects().all(|object| !object.doubt) {
        return Some("disks in sync differ, and it is in doubt on none of them");
    }
    for (at, one) in world.disks.iter().enumerate() {
        // A copy that is half stored is finished, unless its disk restarts.
        let whole = |disk: &Disk| disk.step != Step::Half;
        let same = |other: &Object| other.stamp == one.object.stamp && other.bytes != one.object.bytes;
        let others = world.disks[at + 1..]
            .iter()
            .filter(|other| whole(other) && whole(one));
        if others.map(|other| other.object).any(|other| same(&other)) {
            return Some("two disks have other bytes under one stamp");
        }
    }
    let owner = world.owner(world.key.max(1));
    let rests = owner.phase == Phase::Serving && !owner.has_unacknowledged();
    if rests && owner.view == world.interval && !level {
        return Some("disks in sync differ while an owner serves and nothing is on its way");
    }
    for disk in 0..DISKS {
        let Some(bytes) = owner::readable(scope, world, disk).filter(|_| world.key > 0 && rests) else {
            continue;
        };
        if world.must & !bytes != 0 {
            return Some("a disk that is read does not show what was acknowledged or read before");
        }
        if world.dead & bytes != 0 {
            return Some("a disk that is read shows what was read as not done");
        }
    }
    None
}

/// All of them.
pub const SIGHTS: &[Sight<Scope>] = &[
    Sight {
        name: "a write is acknowledged",
        expected: |_| true,
        seen: |_, world| world.must != 0,
    },
    Sight {
        name: "the last owner serves and sees what a former one had acknowledged",
        expected: |scope| scope.owners > 1,
        seen: |scope, world| {
            let owner = world.owner(scope.owners);
            owner.phase == Phase::Serving && world.must != 0
        },
    },
    Sight {
        name: "a write that was not acknowledged is found by the next owner and read",
        expected: |scope| scope.owners > 1,
        seen: |_, world| {
            let shown =
                each(world.record().in_sync()).all(|disk| world.disks[disk].object.stamp.owner() == 1);
            world.key > 1 && world.owner(world.key).phase == Phase::Serving && world.must != 0 && shown
        },
    },
    Sight {
        name: "a write that was not acknowledged is read as not done",
        expected: |scope| scope.owners > 1,
        seen: |_, world| world.dead != 0,
    },
    Sight {
        name: "a disk that was out or being filled is in sync with everything that was acknowledged",
        expected: |scope| scope.slots.iter().any(|slot| slot.comes_back()) || scope.left.returns > 0,
        seen: |scope, world| {
            let whole = world.record().in_sync().count_ones() == scope.width;
            let happened = world.left.returns < scope.left.returns || scope.left.returns == 0;
            whole && happened && world.interval > 0 && world.must != 0
        },
    },
    Sight {
        name: "a move ended with a full set, and a write was acknowledged",
        expected: |scope| scope.left.moves > 0,
        seen: |scope, world| {
            let record = world.record();
            let whole = record.in_sync().count_ones() == scope.width && record.len() == scope.width;
            // It came, joined, was in sync, and somebody left.
            whole && world.interval >= 4 && world.must != 0
        },
    },
    Sight {
        name: "a write is acknowledged without a disk that was put out",
        expected: |scope| scope.left.evictions > 0 && scope.name != "needed",
        seen: |scope, world| {
            let lacks = (0..DISKS).any(|disk| {
                world.record().slot(disk) == Slot::Down && world.must & !world.disks[disk].object.bytes != 0
            });
            world.left.evictions < scope.left.evictions && lacks
        },
    },
    Sight {
        name: "a disk waits for an owner that fenced it while it was joining",
        expected: |scope| scope.slots.iter().any(|slot| slot.comes_back()),
        seen: |_, world| world.disks.iter().any(|disk| disk.step == Step::Passed),
    },
    Sight {
        name: "a disk that restarted as joining begins anew",
        expected: |scope| scope.left.restarts > 0 && scope.slots.contains(&Slot::Joining),
        seen: |_, world| world.disks.iter().any(|disk| disk.reborn),
    },
    Sight {
        name: "an owner goes on while another one serves",
        expected: |scope| scope.zombies,
        seen: |_, world| {
            let alive = world.owners.iter().filter(|owner| owner.phase == Phase::Serving);
            alive.count() > 1
        },
    },
];
