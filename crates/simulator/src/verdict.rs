//! The end of a world: the faults are over; does everything come to rest, is everything readable,
//! and are all copies equal?

use std::collections::{BTreeMap, BTreeSet};

use protocol::map::MapView;
use protocol::profile::Profile;
use protocol::rows::{RowPlace, is_rows, rows_index};
use protocol::session::{Slot, SlotState};
use protocol::storage::{ChunkState, ObjectDelta};
use protocol::{DiskId, ObjectId, Stamp};
use replication::owner::Event;

use crate::front::Front;
use crate::schedule::Time;
use crate::workload::ACTIVE_BLOCKS;
use crate::world::{Happening, World};

/// How long everything may take to come to rest after the last fault, each step of the way: leases
/// lapse in 5 s, a front end waits 2 s until it starts again, a silent connection 5 s.
const REST_MS: u64 = 60_000;

/// How far the end has come.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) healed: bool,
    pub(crate) healed_at: Time,
    /// No new operations.
    pub(crate) quiet: bool,
    read: bool,
    /// Whether the scrubs of the end have begun; and on which disks they go on.
    scrubs: bool,
    pub(crate) scrubbing: BTreeSet<DiskId>,
    /// How many disks had been put out when they began.
    pub(crate) scrubbed_at: u64,
    /// Nobody opens a volume again.
    pub(crate) closing: bool,
    told_to_close: bool,
    pub(crate) over: bool,
}

impl World {
    /// Something is wrong.
    pub(crate) fn violate(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.violations.push(what);
    }

    /// Looks whether the next step of the end can be taken.
    pub(crate) fn check(&mut self) {
        if self.schedule.now > self.ending.healed_at.after(Time::milliseconds(REST_MS).0) {
            self.stuck();
            return;
        }
        self.schedule.after(100_000, Happening::Check);
        if !self.ending.quiet {
            self.ending.quiet = true;
        } else if !self.ending.read {
            self.read_everything();
        } else if !self.ending.closing {
            let quiet = self.fronts.iter().all(|front| front.submitted.is_empty());
            let done = quiet && self.whole() && self.moved() && self.reclaimed() && self.guards.is_empty();
            if self.ending.scrubs {
                // A disk may have been put out and come back meanwhile, and who is closed while it takes over leaves doubt.
                if self.scrubbed_all() && done && self.settled() {
                    self.next_step();
                    self.ending.closing = true;
                }
            } else if done && self.chains_are_short() {
                self.next_step();
                self.ending.scrubs = true;
                self.scrub_all();
            }
        } else if !self.ending.told_to_close {
            self.ending.told_to_close = true;
            for index in 0..self.fronts.len() {
                let life = self.fronts[index].life(index);
                self.feed(life, Event::Close);
            }
        } else if self.fronts.iter().all(|front| front.owner.is_none()) && self.settled() {
            self.compare();
            self.ending.over = true;
        }
    }

    fn next_step(&mut self) {
        self.ending.healed_at = self.schedule.now;
    }

    /// Every volume has an owner that serves, every snapshot a reader: they read all there is.
    fn read_everything(&mut self) {
        let names: Vec<_> = self.oracle.snapshots.keys().cloned().collect();
        for (volume, name) in names {
            let reads = |front: &Front| front.volume == volume && front.snapshot.as_ref() == Some(&name);
            if !self.fronts.iter().any(reads) {
                self.add_front(volume, Some(name));
            }
        }
        let served = |world: &Self, volume| {
            let owns = |front: &Front| front.volume == volume && front.snapshot.is_none() && front.serves();
            world.fronts.iter().any(owns)
        };
        let all = self.oracle.volumes.keys().all(|volume| served(self, *volume));
        let readers = self.oracle.snapshots.keys().all(|(volume, name)| {
            let reads = |front: &Front| front.volume == *volume && front.snapshot.as_ref() == Some(name);
            self.fronts.iter().any(|front| reads(front) && front.serves())
        });
        if !all || !readers {
            return;
        }
        self.ending.read = true;
        self.next_step();
        for index in 0..self.fronts.len() {
            if self.fronts[index].serves() {
                let life = self.fronts[index].life(index);
                for run in (0..ACTIVE_BLOCKS).step_by(8) {
                    self.submit_read(life, run, 8);
                }
            }
        }
    }

    fn chains_are_short(&self) -> bool {
        self.reclaimed()
    }

    /// Whether nothing is in doubt any more, and all changes are durable.
    fn settled(&self) -> bool {
        let in_doubt =
            |disk: &crate::disk::Disk| disk.replica().is_some_and(|replica| replica.in_doubt() > 0);
        let clean = |(id, disk): (&DiskId, &crate::disk::Disk)| self.dead == Some(*id) || !in_doubt(disk);
        self.disks.iter().all(clean)
            && self
                .disks
                .values()
                .all(|disk| !disk.is_up() || disk.store.is_quiet())
    }

    /// It did not come to rest: says what everybody waits for.
    fn stuck(&mut self) {
        let now = self.schedule.now.moment();
        let mut reasons: Vec<String> = Vec::new();
        for (index, front) in self.fronts.iter().enumerate() {
            if let Some(owner) = &front.owner {
                let waiting = owner.waiting(now).join("; ");
                reasons.push(format!(
                    "front {index} of {} has {} unanswered ({waiting})",
                    front.volume,
                    owner.unanswered()
                ));
            }
        }
        for (id, disk) in &self.disks {
            if let Some(replica) = disk.replica() {
                reasons.push(format!("{id}: {replica:?}"));
            }
        }
        let strays = self.strays();
        reasons.push(format!(
            "whole {}, moved {}, left behind {strays:?}, reclaimed {}, held {:?}",
            self.whole(),
            self.moved(),
            self.reclaimed(),
            self.guards.keys().collect::<Vec<_>>()
        ));
        let step = format!("{:?}", self.ending);
        self.violate(format!(
            "liveness: no rest {REST_MS} ms after the last fault: {step}: {reasons:?}"
        ));
    }

    /// Every object is the same on all disks in sync of its group, and no disk holds what is gone.
    fn compare(&mut self) {
        let map = self.cluster.map.clone();
        let layers = self.cluster.layers();
        let strays = self.strays().into_iter();
        let stray = |(disk, object)| format!("{disk} still has {object}, whose group has left it");
        let mut wrong: Vec<String> = strays.map(stray).collect();
        let mut contents: BTreeMap<ObjectId, BTreeMap<DiskId, ObjectDelta>> = BTreeMap::new();
        let live = |(id, _): &(&DiskId, &mut crate::disk::Disk)| self.dead != Some(**id);
        for (id, disk) in self.disks.iter_mut().filter(live) {
            let objects = disk.store.objects(&layers).unwrap_or_else(|error| {
                wrong.push(format!("{id}: {error}"));
                Vec::new()
            });
            for object in objects {
                if map.chain(object.family, object.layer).is_none() {
                    wrong.push(format!("{id} still has {object}, whose layer is gone"));
                } else {
                    contents.entry(object).or_default();
                }
            }
        }
        let profile = self.shape.redundancy.profile();
        for (object, copies) in &mut contents {
            let kept = |slot: &&Slot| match profile {
                // Of fronts the first shards' disks have copies, and the others nothing.
                Some(profile) => is_rows(object.index) || profile.fronts().contains(&slot.shard),
                None => true,
            };
            let group = map
                .placement(object.family, object.index)
                .and_then(|pg| map.group(pg));
            let slots = group.map(|group| group.slots.as_slice()).unwrap_or_default();
            let in_sync = slots.iter().filter(|slot| slot.state == SlotState::InSync);
            for slot in in_sync.filter(kept) {
                let content = self
                    .disks
                    .get_mut(&slot.disk)
                    .map(|disk| disk.store.content(*object));
                match content {
                    Some(Ok(delta)) => drop(copies.insert(slot.disk, delta)),
                    Some(Err(error)) => wrong.push(format!("{}: {error}", slot.disk)),
                    None => {}
                }
            }
        }
        for (object, copies) in comparable_of(&contents, profile) {
            let Some((one, first)) = copies.first_key_value() else {
                continue;
            };
            if let Some((other, content)) = copies.iter().find(|(_, content)| *content != first) {
                wrong.push(format!(
                    "{object} differs: {one} {first:?}, but {other} {content:?}"
                ));
            }
        }
        for error in wrong {
            self.violate(format!("equality: {error}"));
        }
    }
}

/// An object's stamp, and what it holds, by block or by row.
type Content = (Stamp, BTreeMap<u32, Held>);

#[derive(Debug, PartialEq)]
enum Held {
    Zeros,
    /// Bytes with this checksum.
    Bytes(u32),
    /// A row's version: the write that made it, and the chunk that it lies in.
    Version(Stamp, u8),
}

/// What must be equal of all objects. What a front has that is older than its row may have been given back by some of its
/// disks only, when an owner died at it.
fn comparable_of(
    contents: &BTreeMap<ObjectId, BTreeMap<DiskId, ObjectDelta>>,
    profile: Option<Profile>,
) -> BTreeMap<ObjectId, BTreeMap<DiskId, Content>> {
    let rows_of = |object: ObjectId| ObjectId {
        index: rows_index(object.index),
        ..object
    };
    let floor = |object: ObjectId, chunk: u8| {
        let row = u32::from(chunk) / u32::from(profile.map_or(1, Profile::data));
        let rows = contents
            .get(&rows_of(object))
            .into_iter()
            .flat_map(BTreeMap::values);
        let of_row = |state: &&ChunkState| RowPlace::of_chunk(u32::from(state.chunk)).0 == row;
        let stamps = rows.flat_map(|delta| delta.chunks.iter().filter(of_row).map(|state| state.stamp));
        stamps.max().unwrap_or_default()
    };
    let of_disk = |object: ObjectId, delta: &ObjectDelta| {
        if is_rows(object.index) {
            versions(delta)
        } else {
            comparable(delta, |state| {
                profile.is_none() || state.stamp >= floor(object, state.chunk)
            })
        }
    };
    let of_object = |(object, copies): (&ObjectId, &BTreeMap<DiskId, ObjectDelta>)| {
        let copies = copies
            .iter()
            .map(|(disk, delta)| (*disk, of_disk(*object, delta)));
        (*object, copies.collect())
    };
    contents.iter().map(of_object).collect()
}

/// What must be equal of rows, whose bytes differ from shard to shard: the object's stamp, and the newest version of each
/// row, by the write that made it and where it lies.
fn versions(delta: &ObjectDelta) -> Content {
    let mut newest: BTreeMap<u32, (Stamp, u8)> = BTreeMap::new();
    for chunk in delta.chunks.iter().filter(|chunk| chunk.present != 0) {
        let (row, _) = RowPlace::of_chunk(u32::from(chunk.chunk));
        let version = (chunk.stamp, chunk.chunk);
        newest
            .entry(row)
            .and_modify(|known| *known = (*known).max(version))
            .or_insert(version);
    }
    let held = newest
        .into_iter()
        .map(|(row, (stamp, chunk))| (row, Held::Version(stamp, chunk)));
    (delta.stamp, held.collect())
}

/// What must be equal: the stamp, and every block. When a chunk was touched last by whom may differ,
/// for each disk merges layers on its own.
fn comparable(delta: &ObjectDelta, counts: impl Fn(&ChunkState) -> bool) -> Content {
    let mut blocks = BTreeMap::new();
    let mut checksums = delta.checksums.iter();
    for chunk in &delta.chunks {
        for bit in (0..16).filter(|bit| chunk.present & (1 << bit) != 0) {
            let bytes = chunk.zero & (1 << bit) == 0;
            let checksum = if bytes { checksums.next().copied() } else { None };
            if counts(chunk) {
                let held = checksum.map_or(Held::Zeros, Held::Bytes);
                blocks.insert(u32::from(chunk.chunk) * 16 + bit, held);
            }
        }
    }
    (delta.stamp, blocks)
}
