//! What must hold in every world of rows, and what must come about in some.

use super::rule::Rule;
use super::world::{BLOCKS, DATA, FRONT_BLOCKS, Phase, SHARDS, Scope, Set, Value, What, World};
use crate::search::Sight;

/// What the blocks show, read by the front of this disk; nothing if the row that it names is not on enough shards.
pub fn shown(scope: &Scope, world: &World, disk: usize) -> Option<[Value; BLOCKS]> {
    let everybody = world.in_sync;
    read_from(scope, world, disk, everybody)
}

/// The same, with no other shards than these.
fn read_from(scope: &Scope, world: &World, disk: usize, shards: Set) -> Option<[Value; BLOCKS]> {
    let front = &world.disks[disk].front;
    let versions = world.disks[disk].places.iter().flatten();
    let version = versions.max_by_key(|version| version.stamp)?;
    let has = |shard: &usize| {
        let mut places = world.disks[*shard].places.iter().flatten();
        shards & 1 << shard != 0 && places.any(|other| other.stamp == version.stamp)
    };
    if (0..SHARDS).filter(has).count() < DATA as usize {
        return None;
    }
    let mut content = version.content;
    if front.stamp > version.stamp || !scope.keeps(Rule::StampsDecide) {
        for (block, value) in front.blocks.iter().enumerate().take(FRONT_BLOCKS) {
            content[block] = value.unwrap_or(content[block]);
        }
    }
    Some(content)
}

/// The first law that a world breaks, in words.
pub fn broken(scope: &Scope, world: &World) -> Option<&'static str> {
    if world.lost {
        return Some("no version of the row is on enough shards");
    }
    if world.phase != Phase::Serving || world.on_their_way().next().is_some() {
        return None;
    }
    for disk in world.fronts() {
        // With as many shards as must do, whichever they are.
        let pairs =
            (0..1 << SHARDS).filter(|set: &Set| set & !world.in_sync == 0 && set.count_ones() == DATA);
        for shards in pairs {
            let Some(content) = read_from(scope, world, disk, shards) else {
                return Some("a row cannot be read: it is torn");
            };
            for (block, value) in content.into_iter().enumerate() {
                if value < world.must[block] {
                    return Some("a read does not show what was acknowledged or read before");
                }
                if value > 0 && world.dead[block] & 1 << (value - 1) != 0 {
                    return Some("a read shows what was read as not done");
                }
            }
        }
    }
    None
}

fn encoded(world: &World) -> impl Iterator<Item = usize> {
    let writes = world.writes.iter().flatten().enumerate();
    let mixed = |what: &What| matches!(what, What::Row { content, .. } if content.iter().any(|value| *value != content[0]));
    writes
        .filter(move |(_, write)| mixed(&write.what))
        .map(|(number, _)| number)
}

/// All of them.
pub const SIGHTS: &[Sight<Scope>] = &[
    Sight {
        name: "a take-over undoes a row",
        expected: |_| true,
        seen: |_, world| {
            let Phase::Levelling(version, ..) = world.phase else {
                return false;
            };
            let newer = |disk: usize| {
                world.disks[disk]
                    .places
                    .iter()
                    .flatten()
                    .any(|other| other.stamp > version.stamp)
            };
            world.all_in_sync().any(newer)
        },
    },
    Sight {
        name: "a take-over finishes a row that was not acknowledged",
        expected: |_| true,
        seen: |_, world| {
            let Phase::Levelling(version, ..) = world.phase else {
                return false;
            };
            let open = |number: usize| world.acknowledged & 1 << number == 0;
            let mut writes = world.writes.iter().flatten().enumerate();
            writes.any(|(number, write)| write.stamp == version.stamp && open(number))
        },
    },
    Sight {
        name: "a front lies over a row",
        expected: |_| true,
        seen: |_, world| {
            let disk = &world.disks[0];
            let row = disk.places.iter().flatten().map(|version| version.stamp).max();
            row.is_some_and(|row| {
                row > 0 && disk.front.stamp > row && disk.front.blocks != [None; FRONT_BLOCKS]
            })
        },
    },
    Sight {
        name: "what was encoded is acknowledged",
        expected: |_| true,
        seen: |_, world| encoded(world).any(|number| world.acknowledged & 1 << number != 0),
    },
    Sight {
        name: "an owner serves with a shard less, after a take-over",
        expected: |_| true,
        seen: |_, world| {
            world.owner > 1 && world.phase == Phase::Serving && world.in_sync.count_ones() == DATA
        },
    },
];
