//! What can happen in a world of rows.

use super::law;
use super::rule::Rule;
use super::world::{
    BLOCKS, DATA, FRONT_BLOCKS, FRONTS, Front, Known, Phase, SHARDS, Scope, Set, Value, Version, WRITES,
    What, World, Write,
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The owner writes the row whole.
    WriteRow,
    /// It writes a block of the front.
    WriteFront(usize),
    /// It reads the row by this disk's front, to encode it.
    Read(usize),
    /// It writes what it has read as a whole row.
    Encode,
    /// A write comes to a disk.
    Arrive(usize, usize),
    /// The owner acknowledges a write.
    Acknowledge(usize),
    /// A disk hears what is complete, and forgets what was before.
    Forget(usize),
    /// A disk leaves.
    Evict(usize),
    /// The owner dies, and the next one begins.
    Die,
    /// It fences a disk.
    Fence(usize),
    /// It makes a disk level.
    Level(usize),
}

impl Action {
    /// All that might happen.
    pub fn candidates(actions: &mut Vec<Self>) {
        actions.extend([Self::WriteRow, Self::Encode, Self::Die]);
        actions.extend((0..FRONT_BLOCKS).map(Self::WriteFront));
        for disk in 0..SHARDS {
            let of_disk = [Self::Read, Self::Forget, Self::Evict, Self::Fence, Self::Level];
            actions.extend(of_disk.map(|action| action(disk)));
            actions.extend((0..WRITES).map(|write| Self::Arrive(write, disk)));
        }
        actions.extend((0..WRITES).map(Self::Acknowledge));
    }

    /// The world after it; nothing if it cannot happen.
    pub fn happen(self, scope: &Scope, world: &World) -> Option<World> {
        let mut next = *world;
        let done = match self {
            Self::WriteRow => write_row(scope, &mut next, None),
            Self::WriteFront(block) => write_front(scope, &mut next, block),
            Self::Read(disk) => read(scope, &mut next, disk),
            Self::Encode => {
                let content = next.known.encoding.take()?;
                write_row(scope, &mut next, Some(content))
            }
            Self::Arrive(write, disk) => arrive(&mut next, write, disk),
            Self::Acknowledge(write) => acknowledge(scope, &mut next, write),
            Self::Forget(disk) => forget(&mut next, disk),
            Self::Evict(disk) => evict(scope, &mut next, disk),
            Self::Die => die(scope, &mut next),
            Self::Fence(disk) => fence(scope, &mut next, disk),
            Self::Level(disk) => level(scope, &mut next, disk),
        };
        done.map(|()| next)
    }
}

/// Puts a write on its way, if there may be one more; gives its number.
fn send(scope: &Scope, world: &mut World, what: What) -> Option<usize> {
    let number = world.writes.iter().flatten().count();
    if number >= scope.writes || world.phase != Phase::Serving {
        return None;
    }
    world.stamp += 1;
    let sent = match what {
        What::Row { .. } => &mut world.known.row_sent,
        What::Front { .. } => &mut world.known.front_sent,
    };
    let follows = std::mem::replace(sent, world.stamp);
    world.writes[number] = Some(Write {
        owner: world.owner,
        stamp: world.stamp,
        follows,
        what,
    });
    if !scope.keeps(Rule::ForgetAcknowledged) && matches!(what, What::Row { .. }) {
        world.complete = world.stamp;
    }
    Some(number)
}

/// What the blocks of a write show.
#[allow(clippy::cast_possible_truncation)] // There are a handful.
fn value(number: usize) -> Value {
    number as Value + 1
}

fn write_row(scope: &Scope, world: &mut World, content: Option<[Value; BLOCKS]>) -> Option<()> {
    let row_on_its_way = world.on_their_way().any(Write::is_row);
    if world.known.encoding.is_some() || row_on_its_way && scope.keeps(Rule::RowAfterRow) {
        return None;
    }
    let place = if scope.keeps(Rule::TwoPlaces) {
        1 - world.known.place
    } else {
        world.known.place
    };
    let content = content.unwrap_or([value(world.writes.iter().flatten().count()); BLOCKS]);
    send(scope, world, What::Row { place, content }).map(drop)
}

fn write_front(scope: &Scope, world: &mut World, block: usize) -> Option<()> {
    let row_on_its_way = world.on_their_way().any(Write::is_row);
    let encoding = world.known.encoding.is_some() && scope.keeps(Rule::EncodeHolds);
    if encoding || row_on_its_way && scope.keeps(Rule::FrontWaitsForRow) {
        return None;
    }
    let fresh = world.known.front < world.known.row && scope.keeps(Rule::FreshAfterRow);
    send(scope, world, What::Front { block, fresh })?;
    world.known.front = world.stamp;
    Some(())
}

fn read(scope: &Scope, world: &mut World, disk: usize) -> Option<()> {
    let alone = world.on_their_way().next().is_none() || !scope.keeps(Rule::EncodeAlone);
    let row_on_its_way = world.on_their_way().any(Write::is_row);
    let serves = world.phase == Phase::Serving && world.fronts().any(|front| front == disk);
    if !serves || !alone || row_on_its_way || world.known.encoding.is_some() {
        return None;
    }
    world.known.encoding = Some(law::shown(scope, world, disk)?);
    Some(())
}

fn arrive(world: &mut World, number: usize, at: usize) -> Option<()> {
    let write = (*world.writes.get(number)?)?;
    let (in_sync, has_front) = (
        world.in_sync & 1 << at != 0,
        world.fronts().any(|disk| disk == at),
    );
    let disk = &mut world.disks[at];
    if !in_sync || write.owner < disk.fenced {
        return None;
    }
    match write.what {
        What::Row { place, content } => {
            if disk.at != write.follows {
                return None;
            }
            disk.at = write.stamp;
            disk.places[place] = Some(Version {
                stamp: write.stamp,
                content,
            });
        }
        What::Front { block, fresh } => {
            if !has_front || disk.front.at != write.follows {
                return None;
            }
            if fresh {
                disk.front.blocks = [None; FRONT_BLOCKS];
            }
            disk.front.at = write.stamp;
            disk.front.stamp = write.stamp;
            disk.front.blocks[block] = Some(value(number));
        }
    }
    Some(())
}

fn acknowledge(scope: &Scope, world: &mut World, number: usize) -> Option<()> {
    let write = (*world.writes.get(number)?)?;
    let acknowledged = world.acknowledged & 1 << number != 0;
    if world.phase != Phase::Serving || write.owner != world.owner || acknowledged {
        return None;
    }
    let has = |disk: &usize| {
        let disk = &world.disks[*disk];
        write.stamp <= if write.is_row() { disk.at } else { disk.front.at }
    };
    let enough = match write.what {
        What::Row { .. } if !scope.keeps(Rule::AllShards) => {
            world.all_in_sync().filter(has).count() >= DATA as usize
        }
        What::Row { .. } => world.all_in_sync().all(|disk| has(&disk)),
        What::Front { .. } => world.fronts().all(|disk| has(&disk)),
    };
    if !enough {
        return None;
    }
    world.acknowledged |= 1 << number;
    match write.what {
        What::Row { place, content } => {
            world.known.row = write.stamp;
            world.known.place = place;
            world.complete = world.complete.max(write.stamp);
            for (must, value) in world.must.iter_mut().zip(content) {
                *must = (*must).max(value);
            }
        }
        What::Front { block, .. } => {
            let must = &mut world.must[block];
            *must = (*must).max(value(number));
        }
    }
    Some(())
}

fn forget(world: &mut World, at: usize) -> Option<()> {
    let complete = world.complete;
    let disk = &mut world.disks[at];
    let known = disk.places.iter().flatten().map(|version| version.stamp);
    let last = known.filter(|stamp| *stamp <= complete).max()?;
    for place in &mut disk.places {
        *place = place.filter(|version| version.stamp >= last);
    }
    if disk.front.stamp < last {
        disk.front.blocks = [None; FRONT_BLOCKS];
    }
    Some(())
}

fn evict(scope: &Scope, world: &mut World, disk: usize) -> Option<()> {
    let in_sync = world.in_sync & 1 << disk != 0;
    if !in_sync || world.evictions == 0 || world.in_sync.count_ones() <= DATA {
        return None;
    }
    world.in_sync &= !(1 << disk);
    world.evictions -= 1;
    match world.phase {
        Phase::Serving => {}
        Phase::Fencing(_) => world.phase = Phase::Fencing(0),
        Phase::Levelling(..) if scope.keeps(Rule::AgainWithInterval) => world.phase = Phase::Fencing(0),
        Phase::Levelling(.., done) => serve_if_level(scope, world, done),
    }
    Some(())
}

fn die(scope: &Scope, world: &mut World) -> Option<()> {
    if world.owner >= scope.owners {
        return None;
    }
    world.owner += 1;
    world.phase = Phase::Fencing(0);
    world.known = Known::default();
    Some(())
}

fn fence(scope: &Scope, world: &mut World, disk: usize) -> Option<()> {
    let Phase::Fencing(done) = world.phase else {
        return None;
    };
    if world.in_sync & !done & 1 << disk == 0 {
        return None;
    }
    world.disks[disk].fenced = world.owner;
    let done = done | 1 << disk;
    world.phase = Phase::Fencing(done);
    if world.in_sync & !done == 0 {
        let Some((place, version)) = found(scope, world) else {
            world.lost = true;
            return Some(());
        };
        let fronts = world.fronts().map(|disk| world.disks[disk].front);
        let front = fronts.max_by_key(|front| front.at)?;
        world.stamp += 1;
        world.phase = Phase::Levelling(version, place, front, 0);
    }
    Some(())
}

/// The version of the row that a take-over goes on with, and its place.
fn found(scope: &Scope, world: &World) -> Option<(usize, Version)> {
    let versions = || {
        let places = world.all_in_sync().map(|disk| world.disks[disk].places);
        places
            .flat_map(|places| places.into_iter().enumerate())
            .filter_map(|(place, version)| Some((place, version?)))
    };
    let enough = |(_, version): &(usize, Version)| {
        let holders = versions()
            .filter(|(_, other)| other.stamp == version.stamp)
            .count();
        holders >= DATA as usize || !scope.keeps(Rule::EnoughShards)
    };
    versions().filter(enough).max_by_key(|(_, version)| version.stamp)
}

fn level(scope: &Scope, world: &mut World, at: usize) -> Option<()> {
    let Phase::Levelling(version, place, front, done) = world.phase else {
        return None;
    };
    if world.in_sync & !done & 1 << at == 0 {
        return None;
    }
    let stamp = world.stamp;
    let disk = &mut world.disks[at];
    let has = disk
        .places
        .iter()
        .flatten()
        .any(|other| other.stamp == version.stamp);
    // Without k shards of a version nothing can be rebuilt.
    if !has && scope.keeps(Rule::EnoughShards) {
        disk.places[place] = Some(version);
    }
    for other in &mut disk.places {
        let newer = |other: &Version| other.stamp > version.stamp && scope.keeps(Rule::NewerGoes);
        let older = |other: &Version| other.stamp < version.stamp && !scope.keeps(Rule::OlderStays);
        *other = other.filter(|other| !newer(other) && !older(other));
    }
    disk.at = stamp;
    if at < FRONTS {
        disk.front = Front { at: stamp, ..front };
    }
    serve_if_level(scope, world, done | 1 << at);
    Some(())
}

/// When all are level it serves; and it is taken for having read everything at once.
fn serve_if_level(scope: &Scope, world: &mut World, done: Set) {
    let Phase::Levelling(version, place, front, _) = world.phase else {
        return;
    };
    world.phase = Phase::Levelling(version, place, front, done);
    if world.in_sync & !done != 0 {
        return;
    }
    world.phase = Phase::Serving;
    world.complete = version.stamp;
    world.known = Known {
        row_sent: world.stamp,
        front_sent: world.stamp,
        row: version.stamp,
        place,
        front: front.stamp,
        encoding: None,
    };
    let seen = world
        .fronts()
        .next()
        .and_then(|disk| law::shown(scope, world, disk));
    for (block, value) in seen.into_iter().flatten().enumerate() {
        world.must[block] = world.must[block].max(value);
        // Those that come after it and were not acknowledged: they did not happen.
        let later = (usize::from(value)..WRITES).fold(0, |set: Set, number| set | 1 << number);
        world.dead[block] |= later & written(world);
    }
}

/// The writes so far.
fn written(world: &World) -> Set {
    let numbers = 0..world.writes.iter().flatten().count();
    numbers.fold(0, |set, number| set | 1 << number)
}
