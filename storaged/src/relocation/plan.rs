//! The next steps of all groups that are not where they belong, as one transaction.

use std::collections::{BTreeMap, BTreeSet};

use coordination::keys::Key;
use coordination::{ClusterMap, Compare, Revision, Transaction};
use protocol::session::GroupView;
use protocol::{DiskId, PgId};
use replication::relocation::{Relocation, arriving, relocate};

use super::wanted::Wanted;
use crate::membership::with_group;
use crate::volumes::{Decision, OperationError, Plan};

/// Groups that change in one transaction, each with two conditions at most: below the coordination store's limit.
const GROUPS_MAX: usize = 50;
/// Groups that come to one disk at once: as many as it fills at once.
const ARRIVING_MAX: usize = 4;

/// The groups that take a step now. None begins to move unless `begins`, and none to a disk that is away.
pub(super) fn transaction(
    map: &ClusterMap,
    wanted: &Wanted,
    away: &BTreeSet<DiskId>,
    begins: bool,
) -> Result<Decision<()>, OperationError> {
    let mut transaction = Transaction::new();
    let mut bound = BTreeSet::new();
    for (pg, interval, relocation) in steps(map, wanted, away, begins) {
        transaction = with_group(transaction, pg, interval, relocation.slots)?;
        // A disk that is removed meanwhile gets nothing.
        if let Some((id, disk)) = relocation.comes.and_then(|id| Some((id, map.disks().get(&id)?)))
            && bound.insert(id)
        {
            transaction = transaction.when(Compare::Modified(Key::Disk(id).to_text(), disk.modified));
        }
    }
    if transaction.changes.is_empty() {
        return Ok(Decision::Unchanged(()));
    }
    Ok(Plan::decide_quietly(transaction, ()))
}

fn steps(
    map: &ClusterMap,
    wanted: &Wanted,
    away: &BTreeSet<DiskId>,
    begins: bool,
) -> Vec<(PgId, Revision, Relocation)> {
    let mut coming = coming(map);
    let mut steps = Vec::new();
    // Groups of a pool that is closed are being written, or deleted.
    let pools = map.pools().filter(|(_, pool)| !pool.record.closing);
    for (id, pool) in pools {
        let width = usize::from(pool.record.redundancy.width());
        for group in map.groups(id) {
            let Some(mut relocation) = relocate(&group.slots, wanted.of(group.pg), width, group.interval)
            else {
                continue;
            };
            if let Some(disk) = relocation.comes {
                let arriving = coming.entry(disk).or_default();
                if begins && *arriving < ARRIVING_MAX && !away.contains(&disk) {
                    *arriving += 1;
                } else if relocation.leave.is_empty() {
                    continue;
                } else {
                    relocation.slots.pop();
                    relocation.comes = None;
                }
            }
            steps.push((group.pg, Revision(group.interval.0), relocation));
            if steps.len() == GROUPS_MAX {
                return steps;
            }
        }
    }
    steps
}

/// How many groups come to each disk.
fn coming(map: &ClusterMap) -> BTreeMap<DiskId, usize> {
    let mut coming: BTreeMap<DiskId, usize> = BTreeMap::new();
    for (id, pool) in map.pools() {
        let width = usize::from(pool.record.redundancy.width());
        let arriving = |group: &GroupView| arriving(&group.slots, width).collect::<Vec<_>>();
        for disk in map.groups(id).flat_map(arriving) {
            *coming.entry(disk).or_default() += 1;
        }
    }
    coming
}

#[cfg(test)]
mod tests {
    //! Few at once, none to a disk that is away, and each on the condition that all is as it was.
    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture;

    /// A pool on three nodes, and a fourth one that is empty; the first one is given up.
    fn planned(away: &[u32], begins: bool) -> Vec<(PgId, Revision, Relocation)> {
        let map = fixture::map_of_nodes(4, &[1, 2, 3, 4], SlotState::InSync);
        let mut wanted = Wanted::default();
        wanted.follow(&map, &BTreeSet::from([DiskId(1)]));
        let away = away.iter().copied().map(DiskId).collect();
        steps(&map, &wanted, &away, begins)
    }

    #[test]
    fn no_more_groups_come_to_a_disk_at_once_than_it_fills() {
        let steps = planned(&[], true);
        assert_eq!(steps.len(), ARRIVING_MAX);
        for (_, interval, relocation) in steps {
            assert_eq!(interval, Revision(fixture::GROUPS_AT));
            assert_eq!((relocation.comes, relocation.slots.len()), (Some(DiskId(4)), 4));
        }
    }

    #[test]
    fn a_disk_of_shards_is_followed_by_one_with_its_shard() {
        let map = fixture::map_of_rows(4);
        let mut wanted = Wanted::default();
        wanted.follow(&map, &BTreeSet::from([DiskId(2)]));
        let steps = steps(&map, &wanted, &BTreeSet::new(), true);
        assert_eq!(steps.len(), ARRIVING_MAX);
        for (pg, _, relocation) in steps {
            let before = &map.group(pg).unwrap().slots;
            assert_eq!(&relocation.slots[..3], before.as_slice());
            let newcomer = relocation.slots[3];
            assert_eq!((newcomer.disk, newcomer.shard), (DiskId(4), before[1].shard));
            assert_eq!(newcomer.state, SlotState::Down);
        }
    }

    #[test]
    fn none_comes_to_a_disk_that_is_away_nor_while_space_is_given_back() {
        assert!(planned(&[4], true).is_empty());
        assert!(planned(&[], false).is_empty());
    }

    #[test]
    fn a_step_is_on_the_condition_of_its_group_and_of_the_disk_that_takes_it() {
        let map = fixture::map_of_nodes(4, &[1, 2, 3, 4], SlotState::InSync);
        let mut wanted = Wanted::default();
        wanted.follow(&map, &BTreeSet::from([DiskId(1)]));
        let Decision::Change(plan) = transaction(&map, &wanted, &BTreeSet::new(), true).unwrap() else {
            panic!("nothing moves");
        };
        let disk = Compare::Modified(Key::Disk(DiskId(4)).to_text(), Revision(2));
        let bound = plan
            .transaction
            .compares
            .iter()
            .filter(|compare| **compare == disk);
        assert_eq!(bound.count(), 1);
        assert_eq!(plan.transaction.compares.len(), ARRIVING_MAX + 1);
        assert_eq!(plan.transaction.changes.len(), ARRIVING_MAX);
        assert!(plan.event.is_none());
    }
}
