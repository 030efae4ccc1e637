//! What owners do: take over, write, acknowledge, read. Each step is one function that says nothing if it cannot be
//! taken now. `replication::owner` is what it is a model of.

use crate::rule::Rule;
use crate::scope::Scope;
use crate::state::{Owner, Phase, Slot, Stamp, World, Write, Wrong, above, before, bit, each, written};

/// Whether a disk serves an owner in an interval, and what it is to it.
fn serving(scope: &Scope, world: &World, interval: u8, owner: u8, disk: usize) -> Option<Slot> {
    let it = &world.disks[disk];
    let good = it.map == interval && it.generation <= owner && it.answers(scope);
    good.then(|| world.own_slot(disk))
}

/// A new owner takes the key, and then reads the records. The one before has stopped by then, unless its clock lies.
pub fn take_key(scope: &Scope, world: &World) -> Option<World> {
    if world.key >= scope.owners {
        return None;
    }
    let mut next = *world;
    if world.key > 0 && !scope.zombies {
        let old = next.owner_mut(world.key);
        // What it sent is on its way.
        *old = Owner {
            said: old.said,
            writes: old.writes.map(|write| Write {
                oks: 0,
                acknowledged: false,
                ..write
            }),
            ..Owner::default()
        };
    }
    next.key += 1;
    *next.owner_mut(world.key + 1) = Owner {
        phase: Phase::TakeOver,
        view: world.interval,
        ..Owner::default()
    };
    Some(next)
}

/// An owner hears of the next interval: what was confirmed is void, every slot is fenced again.
pub fn learn(scope: &Scope, world: &World, owner: u8) -> Option<World> {
    let it = world.owner(owner);
    if it.phase == Phase::Gone || it.view >= world.interval {
        return None;
    }
    let mut next = *world;
    let record = world.record_at(it.view + 1);
    let it = next.owner_mut(owner);
    it.view += 1;
    if it.phase == Phase::TakeOver && !scope.keeps(Rule::AgainWithInterval) {
        let target = it.stamps.into_iter().max().unwrap_or_default();
        for disk in each(record.awaited() & !it.fenced) {
            it.stamps[disk] = target;
            it.fenced |= bit(disk);
        }
    } else {
        it.phase = Phase::TakeOver;
        it.fenced = 0;
        it.listed = 0;
        it.stamps = <[Stamp; crate::state::DISKS]>::default();
    }
    if scope.keeps(Rule::OksOfThisInterval) {
        for write in &mut it.writes {
            write.oks = 0;
        }
    }
    advance(scope, &mut next, owner);
    Some(next)
}

/// A disk answers a fence: its generation is durable, its list is told.
pub fn fence(scope: &Scope, world: &World, owner: u8, disk: usize) -> Option<World> {
    let it = world.owner(owner);
    let due = it.phase == Phase::TakeOver
        && it.fenced & bit(disk) == 0
        && world.record_at(it.view).awaited() & bit(disk) != 0;
    if !due {
        return None;
    }
    let slot = serving(scope, world, it.view, owner, disk)?;
    let mut next = *world;
    next.disks[disk].serve(scope, owner, true);
    let subject = &mut next.disks[disk];
    // One that serves already levels nothing (W5).
    if slot == Slot::Joining && subject.served < owner {
        subject.fence = owner;
        subject.void = subject.in_pass();
    }
    let object = subject.object;
    let it = next.owner_mut(owner);
    it.fenced |= bit(disk);
    if slot == Slot::InSync && !it.served {
        it.stamps[disk] = object.stamp;
        if object.doubt {
            it.listed |= bit(disk);
        }
    }
    advance(scope, &mut next, owner);
    Some(next)
}

/// A disk gets what it lacks of the object from one that is at the highest stamp.
pub fn level(scope: &Scope, world: &World, owner: u8, source: usize, disk: usize) -> Option<World> {
    let it = world.owner(owner);
    if it.phase != Phase::TakeOver || it.served || !fenced(scope, world, it) {
        return None;
    }
    let members = members(scope, world, it);
    let target = target(scope, it, members);
    let follows = it.stamps[disk];
    let due = members & bit(disk) != 0 && members & bit(source) != 0;
    if !due || it.stamps[source] != target || follows >= target {
        return None;
    }
    serving(scope, world, it.view, owner, disk)?;
    serving(scope, world, it.view, owner, source)?;
    let theirs = world.disks[source].object;
    if theirs.stamp <= follows || theirs.stamp.owner() >= owner {
        return None;
    }
    let mut next = *world;
    next.disks[source].serve(scope, owner, false);
    let subject = &mut next.disks[disk];
    subject.serve(scope, owner, true);
    let known = if subject.object.stamp == follows {
        subject.object.bytes |= theirs.bytes & above(follows);
        subject.object.stamp = theirs.stamp;
        subject.object.doubt |= scope.keeps(Rule::LevelInDoubt);
        target
    } else {
        subject.object.stamp
    };
    next.owner_mut(owner).stamps[disk] = known;
    advance(scope, &mut next, owner);
    Some(next)
}

/// Whether all that must be fenced are.
fn fenced(scope: &Scope, world: &World, it: &Owner) -> bool {
    let record = world.record_at(it.view);
    if scope.keeps(Rule::FenceAll) {
        record.awaited() & !it.fenced == 0
    } else {
        record.in_sync() & it.fenced != 0
    }
}

/// The disks to level.
fn members(scope: &Scope, world: &World, it: &Owner) -> u8 {
    let known = world.record_at(it.view).in_sync() & it.fenced;
    if scope.keeps(Rule::LevelAll) {
        known
    } else {
        known & it.listed
    }
}

/// The stamp to level them to.
fn target(scope: &Scope, it: &Owner, members: u8) -> Stamp {
    let stamps = each(members).map(|disk| it.stamps[disk]);
    let target = if scope.keeps(Rule::LevelToHighest) {
        stamps.max()
    } else {
        stamps.min()
    };
    target.unwrap_or_default()
}

/// Ends a take-over that is done: the owner serves, says so, and sends again what is not acknowledged.
fn advance(scope: &Scope, world: &mut World, owner: u8) {
    let it = world.owner(owner);
    if it.phase != Phase::TakeOver || !fenced(scope, world, it) {
        return;
    }
    let members = members(scope, world, it);
    let target = target(scope, it, members);
    let level = each(members).all(|disk| it.stamps[disk] >= target);
    if !(it.served || it.listed == 0 || level || !scope.keeps(Rule::LevelFirst)) {
        return;
    }
    let it = world.owner_mut(owner);
    it.phase = Phase::Serving;
    it.served = true;
    it.fenced = 0;
    it.listed = 0;
    it.stamps = <[Stamp; crate::state::DISKS]>::default();
    let interval = 1 << it.view;
    for write in it.writes.iter_mut().take(usize::from(it.count)) {
        if !write.acknowledged {
            write.sent |= interval;
        }
    }
    say(scope, world, owner);
}

/// Notes up to where the owner may say that all is complete. Its word comes to each disk at some time, or never.
fn say(scope: &Scope, world: &mut World, owner: u8) {
    let it = world.owner(owner);
    if it.phase != Phase::Serving {
        return;
    }
    let mut complete = it.complete();
    if !scope.keeps(Rule::CompleteIsAcknowledged) {
        complete = it.count;
    }
    if !scope.keeps(Rule::CompleteWithJoining) {
        let in_sync = world.record_at(it.view).in_sync();
        let lacks = |write: &&Write| !write.acknowledged && in_sync & !write.oks != 0;
        let has = it.made().take_while(|write| !lacks(write)).count();
        complete = u8::try_from(has).unwrap_or(complete);
    }
    world.owner_mut(owner).said = Some(complete);
}

/// An owner makes a write. It learns the object's stamp from a disk in sync before its first.
pub fn write(scope: &Scope, world: &World, owner: u8, teacher: usize) -> Option<World> {
    let it = world.owner(owner);
    let unacknowledged = it.made().filter(|write| !write.acknowledged).count();
    if it.phase != Phase::Serving
        || it.count >= scope.writes[usize::from(owner - 1)]
        || unacknowledged >= scope.in_flight
    {
        return None;
    }
    let mut next = *world;
    let follows = if let Some(last) = it.last {
        if teacher > 0 {
            return None;
        }
        last
    } else {
        let in_sync = serving(scope, world, it.view, owner, teacher)? == Slot::InSync;
        if !in_sync {
            return None;
        }
        next.disks[teacher].serve(scope, owner, false);
        world.disks[teacher].object.stamp
    };
    let it = next.owner_mut(owner);
    it.count += 1;
    it.last = Some(Stamp::new(owner, it.count));
    it.writes[usize::from(it.count - 1)] = Write {
        follows,
        sent: 1 << it.view,
        ..Write::default()
    };
    say(scope, &mut next, owner);
    Some(next)
}

/// A copy of a write comes to a disk, from the interval in which it was sent; its ok is counted if it is still good.
pub fn deliver(
    scope: &Scope,
    world: &World,
    (owner, count): (u8, u8),
    interval: u8,
    disk: usize,
) -> Option<World> {
    let sent = world.owner(owner).writes[usize::from(count - 1)];
    let it = &world.disks[disk];
    let in_time = if scope.keeps(Rule::OwnIntervalOnly) {
        it.map == interval
    } else {
        it.map >= interval
    };
    let wanted = sent.sent & 1 << interval != 0 && world.record_at(interval).awaited() & bit(disk) != 0;
    let fenced = it.generation > owner && scope.keeps(Rule::LowerGenerationRefused);
    if !in_time || !wanted || fenced || !world.own_slot(disk).is_awaited() || !it.answers(scope) {
        return None;
    }
    let stamp = Stamp::new(owner, count);
    let at = it.object.stamp;
    let fits = at == sent.follows || (!scope.keeps(Rule::FollowsExactly) && at < stamp);
    let has = at >= stamp && (at.owner() == owner || !scope.keeps(Rule::OkWithinGeneration));
    if !fits && !has {
        return None; // A gap: what precedes must come first.
    }
    let mut next = *world;
    let subject = &mut next.disks[disk];
    let before = (subject.generation, subject.object);
    subject.serve(scope, owner.max(it.generation), !has);
    if !has {
        subject.object.stamp = stamp;
        subject.object.bytes |= written(owner, count);
        subject.object.doubt |= scope.keeps(Rule::WriteInDoubt);
        if !scope.keeps(Rule::OkIsDurable) {
            subject.durable = it.durable.or(Some(before));
        }
    }
    let it = next.owner_mut(owner);
    let counts = if scope.keeps(Rule::OksOfThisInterval) {
        it.phase == Phase::Serving && it.view == interval
    } else {
        it.phase != Phase::Gone
    };
    let write = &mut it.writes[usize::from(count - 1)];
    if counts && !write.acknowledged {
        write.oks |= bit(disk);
        say(scope, &mut next, owner);
    }
    Some(next)
}

/// An owner tells its guest that a write is done.
pub fn acknowledge(scope: &Scope, world: &World, owner: u8, count: u8) -> Option<World> {
    let it = world.owner(owner);
    if it.phase == Phase::Gone || count > it.count {
        return None;
    }
    let write = &it.writes[usize::from(count - 1)];
    let record = world.record_at(it.view);
    let awaited = if scope.keeps(Rule::JoiningAwaited) {
        record.awaited()
    } else {
        record.in_sync()
    };
    let missing = (awaited & !write.oks).count_ones();
    let may_miss = u32::from(!scope.keeps(Rule::AllOks));
    let enough = record.in_sync().count_ones() >= scope.least || !scope.keeps(Rule::EnoughInSync);
    if write.acknowledged || missing > may_miss || !enough {
        return None;
    }
    let mut next = *world;
    let this = written(owner, count);
    next.must |= this;
    let has = each(record.in_sync()).filter(|disk| world.disks[*disk].object.bytes & this != 0);
    if u32::try_from(has.count()).unwrap_or_default() < scope.least {
        next.wrong = Wrong::AcknowledgedByFew;
    }
    if world.dead & this != 0 {
        next.wrong = Wrong::AcknowledgedDead;
    }
    let write = &mut next.owner_mut(owner).writes[usize::from(count - 1)];
    write.acknowledged = true;
    write.oks = 0;
    say(scope, &mut next, owner);
    Some(next)
}

/// An owner's word that all is complete comes to a disk.
pub fn complete(scope: &Scope, world: &World, owner: u8, disk: usize) -> Option<World> {
    let it = world.owner(owner);
    let subject = &world.disks[disk];
    if subject.generation < owner {
        return None;
    }
    let mut next = *world;
    let after = &mut next.disks[disk];
    if let Some(said) = it.said {
        let up_to = Stamp::new(owner, said);
        let whole = each(world.record_at(subject.map).set(|slot| slot != Slot::Absent))
            .all(|disk| world.record_at(subject.map).slot(disk) == Slot::InSync);
        if !whole {
            after.served = after.served.max(owner);
            after.hear_serving(owner);
        }
        if after.object.stamp <= up_to || !scope.keeps(Rule::CompleteUpToStamp) {
            after.object.doubt = false;
        }
    } else {
        // W4: what is level here is taken for done, though others are not level yet.
        let level = it.phase == Phase::TakeOver
            && fenced(scope, world, it)
            && members(scope, world, it) & bit(disk) != 0
            && it.stamps[disk] == target(scope, it, members(scope, world, it));
        if scope.keeps(Rule::DoubtUntilLevel) || !level {
            return None;
        }
        after.object.doubt = false;
    }
    (*after != *subject).then_some(next)
}

/// The owner who has the key reads, and is believed from then on.
pub fn read(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    if world.key == 0 {
        return None;
    }
    let bytes = readable(scope, world, disk)?;
    let mut next = *world;
    let old = world.must & !bytes != 0;
    let dead = world.dead & bytes != 0;
    if old {
        next.wrong = Wrong::ReadOld;
    } else if dead {
        next.wrong = Wrong::ReadDead;
    }
    next.must |= bytes;
    next.dead |= before(world.key) & !bytes;
    next.disks[disk].serve(scope, world.key, false);
    (next != *world).then_some(next)
}

/// What the owner who has the key would read now at a disk, if it may.
pub fn readable(scope: &Scope, world: &World, disk: usize) -> Option<u8> {
    let it = world.owner(world.key.max(1));
    let waits = it.has_unacknowledged() && scope.keeps(Rule::ReadWaits);
    if it.phase != Phase::Serving || waits {
        return None;
    }
    let slot = serving(scope, world, it.view, world.key, disk)?;
    (slot == Slot::InSync).then_some(world.disks[disk].object.bytes)
}
