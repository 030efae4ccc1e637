//! Groups move to other disks while everything else goes on, and what they leave behind goes.

use protocol::map::MapView;
use protocol::{DiskId, ObjectId, PgId};
use replication::relocation::{Relocation, is_settled, relocate};

use crate::world::World;

impl World {
    /// A group is wanted on another disk from now on, as if disks were added or emptied.
    pub(crate) fn move_group(&mut self) {
        let number = u32::try_from(self.chance.between(0, u64::from(self.shape.groups) - 1)).unwrap_or(0);
        let (pg, copies) = (
            PgId {
                pool: crate::cluster::POOL,
                number,
            },
            u64::from(self.shape.width()),
        );
        let position = usize::try_from(self.chance.between(0, copies - 1)).unwrap_or(0);
        self.replace_wanted(pg, position);
    }

    /// Another disk takes a place of a group, if there is one.
    fn replace_wanted(&mut self, pg: PgId, position: usize) {
        let wanted = self.wanted(pg);
        let all = self.disks.keys().copied();
        let spare: Vec<DiskId> = all
            .filter(|disk| !wanted.contains(disk) && self.dead != Some(*disk))
            .collect();
        let Some(disk) = self.chance.pick(&spare) else {
            return;
        };
        let mut wanted = wanted;
        if let Some(place) = wanted.get_mut(position) {
            *place = disk;
            self.note(format_args!("{pg} is wanted on {wanted:?}"));
            self.wanted.insert(pg, wanted);
        }
    }

    fn wanted(&self, pg: PgId) -> Vec<DiskId> {
        if let Some(wanted) = self.wanted.get(&pg) {
            return wanted.clone();
        }
        let group = self.cluster.map.group(pg);
        let slots = group.map(|group| group.slots.as_slice()).unwrap_or_default();
        slots.iter().map(|slot| slot.disk).collect()
    }

    /// storaged takes each group's next step to where it is wanted. A disk that is dead is wanted nowhere where
    /// another one can take its place.
    pub(crate) fn relocate(&mut self) {
        for pg in self.groups() {
            let dead = self.wanted(pg).iter().position(|disk| self.dead == Some(*disk));
            if let Some(position) = dead {
                self.replace_wanted(pg, position);
            }
            let Some(wanted) = self.wanted.get(&pg) else {
                continue;
            };
            let group = self.cluster.map.group(pg);
            let next = group.and_then(|group| relocate(&group.slots, wanted, self.copies(), group.interval));
            let Some(Relocation { slots, comes, leave }) = next else {
                continue;
            };
            if self.cluster.change_group(pg, slots) {
                self.note(format_args!("{pg} moves: {comes:?} comes, {leave:?} leave"));
                if comes.is_some() {
                    self.meet("group begins to move");
                }
                for disk in leave {
                    self.meet("disk left a group that moved");
                    self.evicted.remove(&(pg, disk));
                }
                self.map_changed();
            }
        }
    }

    /// Whether all groups are where they are wanted, and nothing of them is left where they were.
    pub(crate) fn moved(&mut self) -> bool {
        let settled = self.groups().all(|pg| {
            let group = self.cluster.map.group(pg);
            group.is_none_or(|group| is_settled(&group.slots, &self.wanted(pg), self.copies()))
        });
        settled && self.strays().is_empty()
    }

    /// What disks hold of groups in which they have no slot.
    pub(crate) fn strays(&mut self) -> Vec<(DiskId, ObjectId)> {
        let (map, layers) = (self.cluster.map.clone(), self.cluster.layers());
        let mut strays = Vec::new();
        for (id, disk) in &mut self.disks {
            if self.dead == Some(*id) {
                continue;
            }
            let objects = disk.store.objects(&layers).unwrap_or_default();
            strays.extend(objects.into_iter().map(|object| (*id, object)));
        }
        strays.retain(|(disk, object)| {
            let group = map
                .placement(object.family, object.index)
                .and_then(|pg| map.group(pg));
            group.is_some_and(|group| group.slots.iter().all(|slot| slot.disk != *disk))
        });
        strays
    }

    fn copies(&self) -> usize {
        usize::from(self.shape.width())
    }
}
