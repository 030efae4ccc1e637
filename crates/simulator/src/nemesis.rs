//! What goes wrong: one fault after the other, until it is enough.

use protocol::DiskId;

use crate::schedule::Time;
use crate::world::{Happening, World};

impl World {
    /// The next fault.
    pub(crate) fn fault(&mut self) {
        if self.ending.healed {
            return;
        }
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        let disk = self.chance.pick(&disks).unwrap_or_default();
        let fronts: Vec<usize> = (0..self.fronts.len()).collect();
        let front = self.chance.pick(&fronts).unwrap_or_default();
        match self.chance.between(1, 100) {
            1..=14 => {
                self.meet("owner crashed");
                self.crash_front(front);
            }
            15 => {
                self.meet("owner cut off from the store");
                let away = self.chance.between(1_000_000, 15_000_000);
                self.cut_off(front, away);
            }
            16..=19 => {
                self.meet("owner stopped");
                let pause = self.chance.between(100_000, 9_000_000);
                self.stop_front(front, pause);
            }
            20..=24 => self.rob(front),
            25..=36 => {
                self.meet("disk crashed");
                let back = self.chance.between(10_000, 3_000_000);
                self.crash_disk(disk, back);
            }
            37..=39 => self.restart_storaged(&disks),
            40..=64 => self.break_some(),
            65..=69 => self.slow_down_disk(disk),
            70..=73 => self.fill_or_empty(disk),
            74..=76 => self.damage(),
            77..=78 => self.change_group(),
            79 => self.move_group(),
            80..=81 => self.empty_disk(disk),
            82 => self.kill_disk(disk),
            83..=85 => self.scrub_disk(disk),
            _ => self.operate(),
        }
        let pause = self.chance.between(5_000, 400_000);
        self.schedule.after(pause, Happening::Fault);
    }

    /// A volume is taken from an owner that lives and believes in its lease: as if clocks lied.
    fn rob(&mut self, front: usize) {
        let Some(lease) = self.fronts[front].lease else {
            return;
        };
        self.fronts[front].robbed = true;
        self.meet("owner robbed");
        self.note(format_args!("front {front} is robbed"));
        self.cluster.revoke(lease);
        self.map_changed();
    }

    /// All disks of the node at once.
    fn restart_storaged(&mut self, disks: &[DiskId]) {
        self.meet("storaged restarted");
        let back = self.chance.between(10_000, 2_000_000);
        for disk in disks {
            self.crash_disk(*disk, back);
        }
    }

    fn break_some(&mut self) {
        self.meet("connection broken");
        let all = self.connections_where(|_| true);
        if let Some(connection) = self.chance.pick(&all) {
            self.note(format_args!("connection {connection} breaks"));
            self.break_connection(connection);
        }
    }

    fn slow_down_disk(&mut self, id: DiskId) {
        let slow = if self.chance.percent(50) {
            self.chance.between(2, 2_000)
        } else {
            1
        };
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.slow = slow;
        }
        self.meet("disk slowed down");
        self.note(format_args!("{id} is {slow} times slower"));
    }

    fn fill_or_empty(&mut self, id: DiskId) {
        if let Some(disk) = self.disks.get_mut(&id) {
            let full = !disk.store.is_full();
            disk.store.set_full(full);
            self.note(format_args!("{id} is full: {full}"));
        }
    }

    fn damage(&mut self) {
        let Some(disk) = self.damaged.and_then(|id| self.disks.get_mut(&id)) else {
            return;
        };
        if disk.store.damage(&mut self.chance) {
            self.meet("block damaged");
        }
    }

    /// The faults are over, and what is broken is mended.
    pub(crate) fn heal(&mut self) {
        self.note(format_args!("the faults are over"));
        self.ending.healed = true;
        self.ending.healed_at = self.schedule.now;
        for id in self.disks.keys().copied().collect::<Vec<_>>() {
            if let Some(disk) = self.disks.get_mut(&id) {
                disk.slow = 1;
                disk.store.set_full(false);
                // Else a group whose only source is damaged could not be made whole.
                disk.store.mend();
            }
            self.start_disk(id);
        }
        for index in 0..self.fronts.len() {
            let life = self.fronts[index].life(index);
            self.reach(life);
            self.resume(life);
        }
        self.schedule.at(
            self.schedule.now.after(Time::milliseconds(1_500).0),
            Happening::Check,
        );
    }
}
