//! The volume's view changes: size, head, revision, members of groups, addresses of disks.

use std::collections::BTreeSet;

use protocol::session::VolumeView;
use protocol::{DiskId, PgId};

use super::Owner;
use super::event::{Action, Operation};
use super::group::{Group, Phase};
use super::link::Link;
use super::takeover::TakeOver;
use super::write::Progress;
use crate::moment::Moment;
use crate::mutation::{self, Mutation};

impl Owner {
    /// Takes in a view, unless it is another volume's, another generation's, or an old one.
    ///
    /// What the volume has becomes another volume's, with the same owner, when it begins to move to another pool: that
    /// happens while it holds still.
    pub(super) fn change_view(&mut self, now: Moment, view: VolumeView, out: &mut Vec<Action>) {
        let same = view.generation == self.view.generation
            && view.family == self.view.family
            && view.groups.len() == self.view.groups.len();
        let renamed = view.volume != self.view.volume;
        let may_be_renamed = self.holds_still() && view.head == self.view.head;
        if !same || view.revision < self.view.revision || (renamed && !may_be_renamed) {
            return;
        }
        if view.head != self.view.head {
            if !self.writes.is_empty() {
                // The head was sealed under writes that nobody was asked to drain: they can be neither
                // finished nor given up. Taking the volume anew is what keeps the copies equal.
                self.depose(out);
                return;
            }
            self.writes.forget_stamps();
        } else if view.revision != self.view.revision {
            // A layer may have been merged into the head.
            self.look_at_all_ranges();
        }
        let old_size = self.view.size;
        let groups = view.groups.clone();
        self.lease.set_length(view.lease_ms);
        self.view = view;
        self.quiescence = None;
        self.link_up(now, out);
        for group in &groups {
            if self
                .groups
                .get(&group.pg)
                .is_some_and(|known| known.interval < group.interval)
            {
                let mut changed = Group::new(group);
                if let Some(known) = self.groups.remove(&group.pg) {
                    changed.unacknowledged = known.unacknowledged;
                    changed.served = known.served;
                    changed.phase = known.phase;
                }
                self.groups.insert(group.pg, changed);
                self.heartbeats.void();
                self.begin_interval(group.pg, out);
            }
        }
        if renamed {
            self.begin_as_another(out);
        }
        self.use_groups();
        self.change_size(old_size, out);
    }

    /// Keeps a link to every disk that the view names, and to no other.
    pub(super) fn link_up(&mut self, now: Moment, out: &mut Vec<Action>) {
        for disk in &self.view.disks {
            match self.links.get_mut(&disk.disk) {
                Some(link) if link.disk == *disk => {}
                Some(link) => {
                    link.disk = disk.clone();
                    out.push(Action::Connect(disk.clone()));
                }
                None => {
                    self.links.insert(disk.disk, Link::new(now, disk.clone()));
                    out.push(Action::Connect(disk.clone()));
                }
            }
        }
        let named: BTreeSet<DiskId> = self.view.disks.iter().map(|disk| disk.disk).collect();
        let gone: Vec<DiskId> = self
            .links
            .keys()
            .copied()
            .filter(|disk| !named.contains(disk))
            .collect();
        for disk in gone {
            self.disconnected(now, disk);
            self.links.remove(&disk);
            self.fullness.forget(disk);
            out.push(Action::Disconnect { disk });
        }
    }

    /// The disks know of no owner of a volume of this number: each is told by a fence before anything else.
    fn begin_as_another(&mut self, out: &mut Vec<Action>) {
        self.heartbeats.void();
        let groups: Vec<PgId> = self.groups.keys().copied().collect();
        for pg in groups {
            self.begin_interval(pg, out);
        }
    }

    /// A group has another interval: the oks of unacknowledged writes are void, every slot is fenced
    /// and then asked again (V6). Before this owner served, the whole take-over starts again.
    fn begin_interval(&mut self, pg: PgId, out: &mut Vec<Action>) {
        let reader = self.view.generation.0 == 0;
        let Some(group) = self.groups.get_mut(&pg) else {
            return;
        };
        if !matches!(group.phase, Phase::Unused) && !reader {
            group.phase = Phase::TakeOver(TakeOver::new(group, self.encoding.as_ref(), group.served));
            self.unready.insert(pg);
        }
        let counts: Vec<u64> = group.unacknowledged.iter().copied().collect();
        for count in &counts {
            let encoded = self
                .writes
                .sent
                .get(count)
                .and_then(|write| write.encoded.as_ref());
            let shards = self.shards_of(encoded);
            let (Some(write), Some(group)) = (self.writes.sent.get_mut(count), self.groups.get(&pg)) else {
                continue;
            };
            let awaited: Vec<DiskId> = group.awaited_of(&shards).collect();
            let before = std::mem::take(&mut write.slots);
            let keep = mutation::active(Mutation::KeepOksOverInterval);
            write.slots = awaited
                .iter()
                .map(|disk| match before.iter().find(|(other, _)| other == disk) {
                    Some((_, Progress::Ok)) if keep => (*disk, Progress::Ok),
                    _ => (*disk, Progress::Waiting),
                })
                .collect();
            let missing: BTreeSet<DiskId> = write.missing().collect();
            for (disk, link) in &mut self.links {
                if missing.contains(disk) {
                    link.pending.insert(*count);
                } else {
                    link.pending.remove(count);
                }
            }
        }
        self.lookups_again(pg);
        for count in counts {
            self.acknowledge(count, out);
        }
    }

    /// After a shrink the owner zeroes what lies beyond the new end, so that a later growth shows
    /// zeros there.
    fn change_size(&mut self, old: u64, out: &mut Vec<Action>) {
        let new = self.view.size;
        if new == old {
            return;
        }
        if new < old && !self.view.read_only && self.view.generation.0 > 0 {
            self.operations.add(
                None,
                Operation::Zero {
                    offset: new,
                    length: old - new,
                },
            );
        }
        out.push(Action::Resized(new));
    }
}
