//! What disks do: serve, hear of records, start anew, come back. Each step is one function that says nothing if it
//! cannot be taken now. `replication::replica` is what it is a model of.

use crate::group;
use crate::rule::Rule;
use crate::scope::Scope;
use crate::state::{Disk, Object, Slot, Stamp, Step, World};

impl Disk {
    /// Whether it serves at all: not while a swap of its own state is under way (P9).
    pub fn answers(&self, scope: &Scope) -> bool {
        let swaps = self.step == Step::Swapping || self.reborn;
        !swaps || !scope.keeps(Rule::NothingDuringOwnSwap)
    }

    /// It serves an owner in the interval of its map: both are durable by then. What it logs makes all durable that
    /// was logged before.
    pub fn serve(&mut self, scope: &Scope, generation: u8, logs: bool) {
        self.raised = self.raised.max(self.map);
        let before = (self.generation, self.object);
        if logs {
            self.durable = None;
        }
        if generation > self.generation {
            self.generation = generation;
            if !scope.keeps(Rule::GenerationDurable) {
                self.durable = Some(before);
            }
        }
    }

    /// Whether it is going through the source's objects.
    pub fn in_pass(&self) -> bool {
        matches!(
            self.step,
            Step::Table | Step::Listed | Step::Fetched | Step::Half | Step::Passed
        )
    }

    /// An owner that fenced it serves: what is listed from now on is good.
    pub fn hear_serving(&mut self, owner: u8) {
        if self.fence > 0 && self.fence <= owner {
            self.fence = 0;
            if self.step == Step::Passed {
                self.begin_pass();
            }
        }
    }

    fn begin_pass(&mut self) {
        self.step = Step::Table;
        self.void = self.fence > 0;
        self.theirs = Object::default();
        self.follows = Stamp::default();
    }

    fn forget_way(&mut self) {
        self.step = Step::Begin;
        self.source = 0;
        self.theirs = Object::default();
        self.follows = Stamp::default();
        self.void = false;
    }

    /// Whether it may have said ok to what it has, to the present owner (W1, V3).
    fn may_be_confirmed(&self, scope: &Scope, stamp: Stamp) -> bool {
        if !scope.keeps(Rule::DeadBranchGoes) {
            return true;
        }
        stamp.owner() == self.generation && scope.keeps(Rule::ConfirmedStays)
    }
}

/// A disk hears of the next interval.
pub fn learn(world: &World, disk: usize) -> Option<World> {
    if world.disks[disk].map >= world.interval {
        return None;
    }
    let mut next = *world;
    let it = &mut next.disks[disk];
    it.map += 1;
    it.forget_way();
    it.fence = 0;
    it.reborn = false;
    Some(next)
}

/// A disk's process ends and begins again, with what is durable, and with a map no newer than that.
pub fn restart(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let it = &world.disks[disk];
    let slot = world.record_at(it.raised).slot(disk);
    if world.left.restarts == 0 || slot == Slot::Absent {
        return None;
    }
    let mut next = *world;
    next.left.restarts -= 1;
    let it = &mut next.disks[disk];
    if let Some((generation, object)) = it.durable.take() {
        it.generation = generation;
        it.object = object;
    }
    if !scope.keeps(Rule::DoubtDurable) {
        it.object.doubt = false;
    }
    it.map = it.raised;
    it.forget_way();
    it.served = 0;
    it.fence = 0;
    it.reborn = slot == Slot::Joining && scope.keeps(Rule::RestartBeginsAnew);
    Some(next)
}

/// A disk that is out is replaced by an empty one, which knows nothing.
pub fn wipe(world: &World, disk: usize) -> Option<World> {
    let it = &world.disks[disk];
    let out = world.record().slot(disk) == Slot::Down && it.map == world.interval;
    if world.left.wipes == 0 || !out {
        return None;
    }
    let mut next = *world;
    next.left.wipes -= 1;
    next.disks[disk] = Disk {
        map: it.map,
        raised: it.map,
        ..Disk::default()
    };
    Some(next)
}

/// Whether a disk answers one that comes back.
fn answers(scope: &Scope, world: &World, source: usize, disk: usize) -> bool {
    let (it, asker) = (&world.disks[source], &world.disks[disk]);
    let same = it.map == asker.map || !scope.keeps(Rule::SourceOfSameInterval);
    source != disk && same && world.own_slot(source) == Slot::InSync && it.step == Step::Begin
}

fn told(scope: &Scope, world: &mut World, source: usize) {
    let it = &mut world.disks[source];
    if scope.keeps(Rule::SourceOfSameInterval) {
        it.raised = it.raised.max(it.map);
    }
}

/// The step that a disk which comes back is at, if it may go on.
fn at(world: &World, disk: usize, step: Step) -> Option<Disk> {
    let it = world.disks[disk];
    let goes_on = world.own_slot(disk).comes_back() && !it.reborn && it.step == step;
    goes_on.then_some(it)
}

/// V3: a disk takes over what a source knows of owners, durably, and begins to compare.
#[allow(clippy::cast_possible_truncation)] // Four disks.
pub fn table(scope: &Scope, world: &World, source: usize, disk: usize) -> Option<World> {
    at(world, disk, Step::Begin)?;
    if !answers(scope, world, source, disk) {
        return None;
    }
    let mut next = *world;
    told(scope, &mut next, source);
    let theirs = next.disks[source];
    let it = &mut next.disks[disk];
    it.source = source as u8;
    if theirs.served >= theirs.generation {
        it.served = it.served.max(theirs.generation);
    }
    if scope.keeps(Rule::TableFirst) {
        it.generation = it.generation.max(theirs.generation);
    }
    it.durable = None;
    it.begin_pass();
    Some(next)
}

/// It is told what the source has.
pub fn list(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let it = at(world, disk, Step::Table)?;
    let source = usize::from(it.source);
    if !answers(scope, world, source, disk) {
        return None;
    }
    let mut next = *world;
    told(scope, &mut next, source);
    let theirs = next.disks[source].object;
    let it = &mut next.disks[disk];
    it.theirs = Object {
        doubt: false,
        ..theirs
    };
    it.step = Step::Listed;
    Some(next)
}

/// It compares, and asks for what differs.
pub fn compare(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let it = at(world, disk, Step::Listed)?;
    let (ours, theirs) = (it.object, it.theirs);
    let mut next = *world;
    let equal = ours.stamp == theirs.stamp && ours.bytes == theirs.bytes;
    let stays = ours.stamp > theirs.stamp && it.may_be_confirmed(scope, ours.stamp);
    if equal || stays {
        passed(scope, &mut next, disk);
        return Some(next);
    }
    let source = usize::from(it.source);
    if !answers(scope, world, source, disk) {
        return None;
    }
    told(scope, &mut next, source);
    let theirs = next.disks[source].object;
    // It may have been older than what came here meanwhile.
    if theirs.stamp < ours.stamp && it.may_be_confirmed(scope, ours.stamp) {
        passed(scope, &mut next, disk);
        return Some(next);
    }
    let it = &mut next.disks[disk];
    it.theirs = theirs;
    it.follows = ours.stamp;
    it.step = Step::Fetched;
    Some(next)
}

/// It stores what it was told in place of what it has, if that is still what it compared.
pub fn store(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    let it = at(world, disk, Step::Fetched)?;
    let mut next = *world;
    let subject = &mut next.disks[disk];
    if it.object.stamp != it.follows && scope.keeps(Rule::CopyIfUnchanged) {
        subject.begin_pass_again();
        return Some(next);
    }
    subject.durable = None;
    subject.object.bytes = it.theirs.bytes;
    if scope.keeps(Rule::CopyInOneStep) {
        finish(scope, &mut next, disk);
    } else {
        subject.step = Step::Half;
    }
    Some(next)
}

/// Only with a rule left out: the second half of storing it.
pub fn store_rest(scope: &Scope, world: &World, disk: usize) -> Option<World> {
    at(world, disk, Step::Half)?;
    let mut next = *world;
    finish(scope, &mut next, disk);
    Some(next)
}

fn finish(scope: &Scope, world: &mut World, disk: usize) {
    let it = &mut world.disks[disk];
    it.object.stamp = it.theirs.stamp;
    let doubt = it.theirs.doubt && scope.keeps(Rule::CopyInDoubt);
    it.object.doubt = (it.object.doubt || doubt) && it.object.stamp > Stamp::default();
    passed(scope, world, disk);
}

/// It has gone through everything: the swap is asked for, unless a fence says that it proves nothing (W7).
fn passed(scope: &Scope, world: &mut World, disk: usize) {
    let slot = world.own_slot(disk);
    let it = &mut world.disks[disk];
    it.theirs = Object::default();
    it.follows = Stamp::default();
    let fenced = slot == Slot::Joining && scope.keeps(Rule::FenceVoidsList);
    if fenced && it.fence > 0 {
        it.step = Step::Passed;
    } else if fenced && it.void {
        it.begin_pass();
    } else {
        let interval = it.map;
        if scope.keeps(Rule::IntervalDurableBeforeSwap) {
            it.raised = it.raised.max(interval);
        }
        it.forget_way();
        it.step = Step::Swapping;
        group::propose(world, disk, interval);
    }
}

impl Disk {
    /// The object is looked at again; what came before in the pass stays good.
    fn begin_pass_again(&mut self) {
        self.step = Step::Table;
        self.theirs = Object::default();
        self.follows = Stamp::default();
    }
}
