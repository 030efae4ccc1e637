//! What people and storaged do with volumes while they are used: snapshots, clones, rollbacks,
//! deletions, and the reclaiming of layers on every disk.

use std::collections::{BTreeMap, BTreeSet};

use coordination::map::family::Reclaim;
use protocol::map::MapView;
use protocol::rows::rows_index;
use protocol::session::{Slot, SlotState};
use protocol::storage::StorageRequest;
use protocol::{DiskId, FamilyId, Interval, ObjectId, PgId, VolumeId};

use replication::replica::Event;

use crate::cluster::POOL;
use crate::world::{Happening, Life, World};

/// Volumes and snapshots that a world may have: enough to be mixed up, few enough to be used often.
const VOLUMES_MAX: usize = 4;
const SNAPSHOTS_MAX: usize = 6;

/// An owner is asked to hold still.
#[derive(Debug)]
pub(crate) struct Guard {
    token: u64,
    life: Life,
    purpose: Purpose,
}

#[derive(Clone, Debug)]
enum Purpose {
    Snapshot(String),
    RollBack(String),
}

/// A layer on its way out.
#[derive(Debug)]
pub(crate) struct Reclaiming {
    family: FamilyId,
    reclaim: Reclaim,
    /// The groups' intervals when it began: if one changes, a disk may have come back as it was before.
    intervals: Vec<Interval>,
    /// Objects still to be done, by disk.
    left: BTreeSet<(DiskId, ObjectId)>,
    /// What the disks were asked for. A disk that crashes forgets it, and is asked again.
    asked: BTreeMap<u64, (DiskId, ObjectId)>,
}

impl World {
    /// Something is done with some volume.
    pub(crate) fn operate(&mut self) {
        let volumes: Vec<VolumeId> = self.oracle.volumes.keys().copied().collect();
        let Some(volume) = self.chance.pick(&volumes) else {
            return;
        };
        let names: Vec<(VolumeId, String)> = self.oracle.snapshots.keys().cloned().collect();
        match self.chance.between(1, 10) {
            1..=4 if names.len() < SNAPSHOTS_MAX => {
                let name = format!("s{}", self.next_token);
                self.hold_still(volume, Purpose::Snapshot(name));
            }
            5..=6 => self.with_snapshot(&names, |world, volume, name| {
                world.hold_still(volume, Purpose::RollBack(name.to_owned()));
            }),
            7 if volumes.len() < VOLUMES_MAX => self.with_snapshot(&names, Self::make_clone),
            8 => self.with_snapshot(&names, |world, volume, name| {
                world.meet("snapshot read");
                let front = world.add_front(volume, Some(name.to_owned()));
                world.note(format_args!("front {front} reads a snapshot of {volume}"));
            }),
            _ => self.with_snapshot(&names, Self::delete_snapshot),
        }
    }

    fn with_snapshot(&mut self, names: &[(VolumeId, String)], act: impl Fn(&mut Self, VolumeId, &str)) {
        let positions: Vec<usize> = (0..names.len()).collect();
        if let Some(position) = self.chance.pick(&positions) {
            let (volume, name) = names[position].clone();
            act(self, volume, &name);
        }
    }

    fn make_clone(&mut self, volume: VolumeId, name: &str) {
        let Some(clone) = self.cluster.clone_volume(volume, name) else {
            return;
        };
        self.meet("clone");
        self.note(format_args!("{clone} is a clone of {volume}@{name}"));
        if let Some(image) = self.oracle.snapshots.get(&(volume, name.to_owned())) {
            self.oracle.volumes.insert(clone, image.clone());
        }
        self.add_front(clone, None);
        self.map_changed();
    }

    fn delete_snapshot(&mut self, volume: VolumeId, name: &str) {
        if self.cluster.delete_snapshot(volume, name) {
            self.meet("snapshot deleted");
            self.note(format_args!("{volume}@{name} is deleted"));
            self.oracle.snapshots.remove(&(volume, name.to_owned()));
            let reads = |front: &crate::front::Front| {
                front.volume == volume && front.snapshot.as_deref() == Some(name)
            };
            for index in 0..self.fronts.len() {
                if reads(&self.fronts[index]) {
                    self.retire_front(index);
                }
            }
            self.map_changed();
        }
    }

    /// The owner of a volume is asked to hold still.
    fn hold_still(&mut self, volume: VolumeId, purpose: Purpose) {
        let owner = (0..self.fronts.len()).find(|index| {
            let front = &self.fronts[*index];
            front.volume == volume
                && front.snapshot.is_none()
                && front.is_alive()
                && front.opened
                && self.cluster.map.generation(volume) == Some(front.generation())
        });
        let Some(index) = owner.filter(|_| !self.guards.contains_key(&volume)) else {
            return;
        };
        let token = self.next_token;
        self.next_token += 1;
        let life = self.fronts[index].life(index);
        self.guards.insert(volume, Guard { token, life, purpose });
        let delay = self.delay(20_000);
        let at = self.schedule.now.after(delay);
        let at = self.session_not_before(life, at);
        self.schedule.at(at, Happening::QuiesceArrives { life, token });
        self.schedule
            .after(2_500_000, Happening::QuiesceTimeout { volume, token });
    }

    /// An owner says that all is quiet: the transaction is made, and the owner goes on.
    pub(crate) fn quiesced(&mut self, volume: VolumeId, token: u64) {
        if self.guards.get(&volume).is_none_or(|guard| guard.token != token) {
            return;
        }
        let Some(Guard { life, purpose, .. }) = self.guards.remove(&volume) else {
            return;
        };
        let Some(generation) = self.front(life).map(crate::front::Front::generation) else {
            return;
        };
        match purpose {
            Purpose::Snapshot(name) => {
                if self.cluster.snapshot(volume, generation, &name) {
                    self.meet("snapshot");
                    self.note(format_args!("{volume}@{name} is made"));
                    if let Some(mut image) = self.oracle.volumes.get(&volume).cloned() {
                        // What is held back now comes after the snapshot: it must not show it.
                        for (first, count, order) in self.unanswered_writes(life) {
                            image.refuse(first, count, order);
                        }
                        self.oracle.snapshots.insert((volume, name), image);
                    }
                }
            }
            Purpose::RollBack(name) => {
                if self.cluster.roll_back(volume, generation, &name) {
                    self.meet("rollback");
                    self.note(format_args!("{volume} is rolled back to {name}"));
                    let image = self.oracle.snapshots.get(&(volume, name)).cloned();
                    if let (Some(image), Some(live)) = (image, self.oracle.volumes.get_mut(&volume)) {
                        live.replace(&image, generation);
                    }
                }
            }
        }
        self.map_changed();
        self.push_view(life);
    }

    /// An owner has another generation now: what it was asked before is void.
    pub(crate) fn forget_guard(&mut self, volume: VolumeId, life: Life) {
        let asked = self.guards.get(&volume);
        if asked.is_some_and(|guard| guard.life.front == life.front && guard.life.number == life.number) {
            self.guards.remove(&volume);
        }
    }

    /// It takes too long: it is given up, and the owner may go on.
    pub(crate) fn quiesce_timeout(&mut self, volume: VolumeId, token: u64) {
        if self.guards.get(&volume).is_none_or(|guard| guard.token != token) {
            return;
        }
        if let Some(guard) = self.guards.remove(&volume) {
            self.meet("quiescence given up");
            self.push_view(guard.life);
        }
    }

    /// A step of what goes on in the background: some objects of one layer, on some disks.
    pub(crate) fn reclaim(&mut self) {
        self.schedule.after(
            if self.ending.quiet { 20_000 } else { 150_000 },
            Happening::Reclaim,
        );
        self.relocate();
        if self.reclaiming.is_none() {
            self.begin_reclaim();
        }
        let Some(mut reclaiming) = self.reclaiming.take() else {
            return;
        };
        if reclaiming.intervals != self.intervals() {
            self.meet("reclaim begun again");
            return;
        }
        let family = self.cluster.map.family(reclaiming.family);
        if family.is_none_or(|family| !family.reclaimable().contains(&reclaiming.reclaim)) {
            // Disks refuse what the map does not want any more: whoever is refused looks at it anew.
            self.meet("reclaim not wanted any more");
            return;
        }
        let mut requests = Vec::new();
        let steps: Vec<(DiskId, ObjectId)> = reclaiming.left.iter().copied().collect();
        for (disk, object) in steps {
            if self.dead == Some(disk) {
                reclaiming.left.remove(&(disk, object));
                continue;
            }
            let up = self.disks.get(&disk).is_some_and(crate::disk::Disk::is_up);
            if !up || self.chance.percent(40) {
                continue;
            }
            let request = match reclaiming.reclaim {
                Reclaim::Drop(_) => StorageRequest::Drop(object),
                Reclaim::Merge { parent, child } => StorageRequest::Merge {
                    family: object.family,
                    index: object.index,
                    parent,
                    child,
                    row_chunks: self.cluster.map.row_chunks(object.family),
                },
            };
            let token = self.next_token;
            self.next_token += 1;
            reclaiming.asked.insert(token, (disk, object));
            requests.push((disk, Event::Reclaim { token, request }));
        }
        if reclaiming.left.is_empty() {
            self.meet(match reclaiming.reclaim {
                Reclaim::Drop(_) => "layer dropped",
                Reclaim::Merge { .. } => "layer merged",
            });
            self.note(format_args!("{:?} is done", reclaiming.reclaim));
            self.cluster.reclaimed(reclaiming.family, reclaiming.reclaim);
            self.map_changed();
        } else {
            self.reclaiming = Some(reclaiming);
            for (disk, event) in requests {
                self.feed_replica(disk, event);
            }
        }
    }

    /// A disk has merged or dropped an object, durably.
    pub(crate) fn reclaimed_object(&mut self, token: u64, done: bool) {
        if let Some(reclaiming) = &mut self.reclaiming
            && let Some(step) = reclaiming.asked.remove(&token)
            && done
        {
            reclaiming.left.remove(&step);
        }
    }

    fn begin_reclaim(&mut self) {
        self.take_out_the_dead();
        let map = self.cluster.map.clone();
        let comes_back = |slot: &Slot| slot.state.comes_back();
        let groups = self.groups().filter_map(|pg| map.group(pg));
        if groups.flat_map(|group| &group.slots).any(comes_back) {
            return;
        }
        let next = map
            .families()
            .find_map(|(family, tree)| Some((family, *tree.reclaimable().first()?)));
        let Some((family, reclaim)) = next else { return };
        self.note(format_args!("{reclaim:?} begins"));
        let encoded = self.shape.redundancy.profile().is_some();
        let of_range = |index: u32| [Some(index), encoded.then_some(rows_index(index))];
        let objects = (0..4).flat_map(of_range).flatten().map(|index| ObjectId {
            family,
            index,
            layer: reclaim.layer(),
        });
        let left = objects
            .flat_map(|object| self.disks.keys().map(move |disk| (*disk, object)))
            .filter(|(disk, object)| {
                let group = map.placement(family, object.index).and_then(|pg| map.group(pg));
                let down = |slot: &Slot| slot.disk == *disk && slot.state == SlotState::Down;
                !group.is_some_and(|group| group.slots.iter().any(down))
            })
            .collect();
        self.reclaiming = Some(Reclaiming {
            family,
            reclaim,
            intervals: self.intervals(),
            left,
            asked: BTreeMap::new(),
        });
    }

    fn intervals(&self) -> Vec<Interval> {
        let groups = self.groups().filter_map(|pg| self.cluster.map.group(pg));
        groups.map(|group| group.interval).collect()
    }

    /// Whether nothing is left to be reclaimed.
    pub(crate) fn reclaimed(&self) -> bool {
        self.reclaiming.is_none()
            && self
                .cluster
                .map
                .families()
                .all(|(_, tree)| tree.reclaimable().is_empty())
    }

    /// A group gets another interval; with some luck one of its disks leaves it.
    pub(crate) fn change_group(&mut self) {
        let number = u32::try_from(self.chance.between(0, u64::from(self.shape.groups) - 1)).unwrap_or(0);
        let pg = PgId { pool: POOL, number };
        let Some(group) = self.cluster.map.group(pg) else {
            return;
        };
        let mut slots = group.slots.clone();
        let in_sync: Vec<usize> = (0..slots.len())
            .filter(|slot| slots[*slot].state == SlotState::InSync)
            .collect();
        if in_sync.len() > usize::from(self.shape.min_in_sync) && self.chance.percent(20) {
            let slot = self.chance.pick(&in_sync);
            if let Some(slot) = slot.filter(|slot| self.spares(pg, slots[*slot].disk)) {
                slots[slot].state = SlotState::Down;
                self.evicted.insert((pg, slots[slot].disk));
                self.evictions += 1;
                self.meet("disk evicted");
            }
        } else {
            self.meet("interval changed");
        }
        if self.cluster.change_group(pg, slots) {
            self.note(format_args!("{pg} changes"));
            self.map_changed();
        }
    }
}
