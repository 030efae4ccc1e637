//! Telling the replicas what is complete (rule 6), so that they need not hold it in doubt.
//!
//! Complete up to a count, in a group: nothing of this generation is unacknowledged there up to it,
//! and what older generations wrote was made level before this owner served. It stays true for ever.

use protocol::{DiskId, PgId};

use super::Owner;
use super::event::Action;
use super::group::{Group, Phase};
use super::limits::{COMPLETE_INTERVAL_MS, WRITES_BEFORE_COMPLETE};
use crate::moment::Moment;
use crate::mutation::{self, Mutation};

impl Owner {
    /// Tells every disk that does not know it yet, when it is time or when `at_once` is set.
    pub(super) fn tell_complete(&mut self, now: Moment, at_once: bool, out: &mut Vec<Action>) {
        let due =
            now.since(self.told) >= COMPLETE_INTERVAL_MS || self.writes_since_told >= WRITES_BEFORE_COMPLETE;
        if self.untold.is_empty() || !(due || at_once) {
            return;
        }
        self.told = now;
        self.writes_since_told = 0;
        let groups: Vec<PgId> = self.untold.iter().copied().collect();
        for pg in groups {
            self.tell_group(pg, out);
        }
    }

    fn tell_group(&mut self, pg: PgId, out: &mut Vec<Action>) {
        let scope = self.scope(pg);
        let Some(group) = self
            .groups
            .get(&pg)
            .filter(|group| matches!(group.phase, Phase::Serving))
        else {
            return;
        };
        let up_to = complete_up_to(group, self.writes.count);
        let disks: Vec<DiskId> = group.awaited().collect();
        let mut all_know = group.unacknowledged.is_empty();
        for disk in disks {
            let number = self.number();
            let (Some(group), Some(link)) = (self.groups.get_mut(&pg), self.links.get(&disk)) else {
                continue;
            };
            if !link.connected {
                all_know = false;
            } else if group.told.get(&disk).is_none_or(|told| *told < up_to) {
                link.tell(number, scope, up_to, out);
                group.told.insert(disk, up_to);
            }
        }
        if all_know {
            self.untold.remove(&pg);
        }
    }
}

/// The highest count below which nothing is unacknowledged in the group.
fn complete_up_to(group: &Group, count: u64) -> u64 {
    if mutation::active(Mutation::CompleteTooFar) {
        return count;
    }
    group
        .unacknowledged
        .first()
        .map_or(count, |first| first.saturating_sub(1))
}
