//! What storaged does about disks that owners complain of, and a disk that dies for good.

use protocol::session::SlotState;
use protocol::{DiskId, Generation, PgId, VolumeId};
use replication::membership::{Eviction, evict};

use crate::cluster::POOL;
use crate::world::{Happening, World};

impl World {
    /// An owner's complaint reaches storaged: the disk leaves the groups that can spare it.
    pub(crate) fn evict(&mut self, volume: VolumeId, generation: Generation, disk: DiskId) {
        let mut left = false;
        for pg in self.groups() {
            let Some(group) = self.cluster.map.group(pg) else {
                continue;
            };
            let Eviction::Down(slots) = evict(&group.slots, disk, self.shape.min_in_sync) else {
                continue;
            };
            let interval = group.interval;
            if self.spares(pg, disk) && self.cluster.evict(volume, generation, pg, interval, slots) {
                self.note(format_args!("{disk} leaves {pg}"));
                self.evicted.insert((pg, disk));
                self.evictions += 1;
                left = true;
            }
        }
        if left {
            self.meet("disk evicted on suspicion");
            self.map_changed();
        }
    }

    /// A disk is gone, and never comes back.
    pub(crate) fn kill_disk(&mut self, disk: DiskId) {
        if self.dead.is_some() || !self.groups().all(|pg| self.spares(pg, disk)) {
            return;
        }
        self.meet("disk died for good");
        self.note(format_args!("{disk} dies for good"));
        self.crash_disk(disk, 1_000_000);
        self.dead = Some(disk);
    }

    /// Whether a group has enough in sync that live without a disk. A world does no more to it than it
    /// is made to bear.
    pub(crate) fn spares(&self, pg: PgId, disk: DiskId) -> bool {
        let Some(group) = self.cluster.map.group(pg) else {
            return false;
        };
        let others = group.slots.iter().filter(|slot| {
            slot.state == SlotState::InSync && slot.disk != disk && self.dead != Some(slot.disk)
        });
        let belongs = group
            .slots
            .iter()
            .any(|slot| slot.disk == disk && slot.state == SlotState::InSync);
        !belongs || others.count() >= usize::from(self.shape.min_in_sync).max(1)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = PgId> + use<> {
        (0..self.shape.groups).map(|number| PgId { pool: POOL, number })
    }

    /// A complaint is on its way to storaged.
    pub(crate) fn complain(&mut self, volume: VolumeId, generation: Generation, disk: DiskId) {
        let delay = self.delay(20_000);
        let happening = Happening::Evict {
            volume,
            generation,
            disk,
        };
        self.schedule.after(delay, happening);
    }
}
