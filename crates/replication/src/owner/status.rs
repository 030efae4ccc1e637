//! What operations wait for, in sentences for people.

use std::collections::{BTreeMap, BTreeSet};

use protocol::DiskId;

use super::group::Phase;
use super::{Owner, Stage};
use crate::moment::Moment;

impl Owner {
    /// What operations wait for, for people: empty when nothing waits.
    pub fn waiting(&self, now: Moment) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.stage {
            Stage::Closed | Stage::Lost => return reasons,
            Stage::Deposed => {
                reasons.push(
                    "waiting for storaged: the lease lapsed, and the volume has to be taken again".to_owned(),
                );
                return reasons;
            }
            Stage::Opening | Stage::Open | Stage::Closing => {}
        }
        if !self.may_send(now) {
            reasons.push(
                "waiting for storaged: the lease ran out and could not be renewed, and not all disks confirm that nobody \
                 else has the volume"
                    .to_owned(),
            );
        }
        reasons.extend(self.waiting_groups());
        reasons.extend(self.waiting_disks(now));
        for disk in self.fullness.disks() {
            reasons.push(format!(
                "{disk} is full: writes are refused until something is deleted or discarded"
            ));
        }
        if self.quiescence.is_some() && !self.operations.writes.is_empty() {
            reasons.push("writes are held for a moment while a snapshot or a resize is made".to_owned());
        }
        reasons
    }

    /// Disks that keep something waiting, and what is wrong with them.
    fn waiting_disks(&self, now: Moment) -> impl Iterator<Item = String> {
        let mut waits: BTreeMap<DiskId, usize> = BTreeMap::new();
        for write in self.writes.sent.values() {
            for disk in write.missing() {
                *waits.entry(disk).or_default() += 1;
            }
        }
        let fences = self
            .unready
            .iter()
            .filter_map(|pg| match &self.groups.get(pg)?.phase {
                Phase::TakeOver(take_over) => Some(take_over),
                Phase::Unused | Phase::Serving => None,
            });
        for (disk, fence) in fences.flat_map(|take_over| &take_over.fences) {
            *waits.entry(*disk).or_default() += usize::from(!fence.done);
        }
        waits
            .into_iter()
            .filter(|(_, waiting)| *waiting > 0)
            .filter_map(move |(disk, waiting)| {
                let trouble = self.links.get(&disk)?.trouble(now)?;
                Some(format!("waiting for {disk}, which {trouble}: {waiting} requests"))
            })
    }

    /// Groups that are not served, or may not be written, and why.
    fn waiting_groups(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let left: usize = self
            .unready
            .iter()
            .filter_map(|pg| match &self.groups.get(pg)?.phase {
                Phase::TakeOver(take_over) => Some(take_over.left()),
                Phase::Unused | Phase::Serving => None,
            })
            .sum();
        if left > 0 {
            reasons.push(format!(
                "making {left} objects equal that the last owner left half written"
            ));
        }
        let few = |count: &u64| {
            let group = self.groups.get(&self.writes.sent.get(count)?.pg)?;
            (!group.enough(self.view.min_in_sync)).then_some((group.pg, group.in_sync().count()))
        };
        let groups: BTreeSet<_> = self.writes.sent.keys().filter_map(few).collect();
        for (pg, in_sync) in groups {
            let least = self.view.min_in_sync;
            reasons.push(format!(
                "waiting for {pg}: {in_sync} disks are in sync, {least} are needed"
            ));
        }
        reasons
    }
}
