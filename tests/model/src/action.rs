//! Everything that can happen in the world, one thing at a time.

use crate::scope::Scope;
use crate::state::{DISKS, INTERVALS, OWNERS, Phase, WRITES, World};
use crate::{disk, group, owner};

/// Something that happens. Owners and counts are from 1, disks and intervals from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The next owner takes the key.
    TakeKey,
    /// An owner hears of the next interval.
    OwnerLearns(u8),
    /// A disk answers an owner's fence.
    Fence(u8, usize),
    /// An owner brings an object from one disk to another.
    Level(u8, usize, usize),
    /// An owner makes a write, and learns the stamp before it from this disk if it does not know it.
    Write(u8, usize),
    /// An owner's write, from an interval, comes to a disk.
    Deliver((u8, u8), u8, usize),
    /// An owner acknowledges a write.
    Acknowledge(u8, u8),
    /// An owner's word that all is complete comes to a disk.
    Complete(u8, usize),
    /// The owner reads at a disk.
    Read(usize),
    /// A disk hears of the next interval.
    DiskLearns(usize),
    /// A disk is started anew.
    Restart(usize),
    /// A disk that is out is replaced by an empty one.
    Wipe(usize),
    /// A disk (second) that comes back takes over the generations of a source (first).
    Table(usize, usize),
    /// It is told what the source has.
    List(usize),
    /// It compares, and fetches what differs.
    Compare(usize),
    /// It stores that.
    Store(usize),
    /// Only with a rule left out: the rest of it.
    StoreRest(usize),
    /// Its swap arrives.
    Swap(usize),
    /// A disk that was started anew as joining begins anew.
    BeginAnew(usize),
    /// A disk is put out.
    Evict(usize),
    /// A disk that is out asks to come back.
    ComeBack(usize),
    /// A disk gets an extra slot.
    Add(usize),
    /// A slot too many goes.
    Leave(usize),
}

impl Action {
    /// The world after it, if it can happen.
    pub fn happen(self, scope: &Scope, world: &World) -> Option<World> {
        match self {
            Self::TakeKey => owner::take_key(scope, world),
            Self::OwnerLearns(by) => owner::learn(scope, world, by),
            Self::Fence(by, disk) => owner::fence(scope, world, by, disk),
            Self::Level(by, source, disk) => owner::level(scope, world, by, source, disk),
            Self::Write(by, teacher) => owner::write(scope, world, by, teacher),
            Self::Deliver(write, interval, disk) => owner::deliver(scope, world, write, interval, disk),
            Self::Acknowledge(by, count) => owner::acknowledge(scope, world, by, count),
            Self::Complete(by, disk) => owner::complete(scope, world, by, disk),
            Self::Read(disk) => owner::read(scope, world, disk),
            Self::DiskLearns(disk) => disk::learn(world, disk),
            Self::Restart(disk) => disk::restart(scope, world, disk),
            Self::Wipe(disk) => disk::wipe(world, disk),
            Self::Table(source, disk) => disk::table(scope, world, source, disk),
            Self::List(disk) => disk::list(scope, world, disk),
            Self::Compare(disk) => disk::compare(scope, world, disk),
            Self::Store(disk) => disk::store(scope, world, disk),
            Self::StoreRest(disk) => disk::store_rest(scope, world, disk),
            Self::Swap(disk) => group::swap(scope, world, disk),
            Self::BeginAnew(disk) => group::begin_anew(scope, world, disk),
            Self::Evict(disk) => group::evict(scope, world, disk),
            Self::ComeBack(disk) => group::come_back(scope, world, disk),
            Self::Add(disk) => group::add(scope, world, disk),
            Self::Leave(disk) => group::leave(scope, world, disk),
        }
    }

    /// What might happen; some of it cannot.
    #[allow(clippy::cast_possible_truncation)] // Small numbers.
    pub fn candidates(world: &World, actions: &mut Vec<Self>) {
        actions.push(Self::TakeKey);
        for by in 1..=world.key.min(OWNERS as u8) {
            Self::of_owner(world, by, actions);
        }
        for disk in 0..DISKS {
            let comes_back = world.own_slot(disk).comes_back();
            actions.extend([
                Self::Read(disk),
                Self::DiskLearns(disk),
                Self::Restart(disk),
                Self::Wipe(disk),
            ]);
            if comes_back {
                actions.extend((0..DISKS).map(|source| Self::Table(source, disk)));
                actions.extend([Self::List(disk), Self::Compare(disk), Self::Store(disk)]);
                actions.extend([Self::StoreRest(disk), Self::BeginAnew(disk)]);
            }
            actions.extend([Self::Swap(disk), Self::Evict(disk), Self::ComeBack(disk)]);
            actions.extend([Self::Add(disk), Self::Leave(disk)]);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // Small numbers.
    fn of_owner(world: &World, by: u8, actions: &mut Vec<Self>) {
        let it = world.owner(by);
        actions.extend((0..DISKS).map(|disk| Self::Complete(by, disk)));
        for (write, count) in it.writes.iter().zip(1..=WRITES as u8) {
            for interval in (0..INTERVALS as u8).filter(|interval| write.sent & 1 << interval != 0) {
                actions.extend((0..DISKS).map(|disk| Self::Deliver((by, count), interval, disk)));
            }
        }
        if it.phase == Phase::Gone {
            return;
        }
        actions.push(Self::OwnerLearns(by));
        match it.phase {
            Phase::TakeOver => {
                actions.extend((0..DISKS).map(|disk| Self::Fence(by, disk)));
                for source in 0..DISKS {
                    actions.extend((0..DISKS).map(|disk| Self::Level(by, source, disk)));
                }
            }
            Phase::Serving => actions.extend((0..DISKS).map(|disk| Self::Write(by, disk))),
            Phase::Gone => {}
        }
        actions.extend((1..=it.count).map(|count| Self::Acknowledge(by, count)));
    }
}
