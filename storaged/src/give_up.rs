//! An operator gives a disk up for lost: its groups go on without it, though too few are left, or though others have
//! less than it had.
//!
//! Nothing here happens by itself. Where the disk held the last copy in sync, another one counts as that from now on,
//! and what was written since it left is lost: the operator must name it. All owners of the pool's volumes must take
//! them anew then, before any I/O, so that nothing of what the lost disk alone had is of a present generation.

use std::collections::BTreeSet;
use std::time::Duration;

use coordination::keys::Key;
use coordination::records::{Redundancy, Severity};
use coordination::{ClusterMap, Compare, Revision, Transaction};
use protocol::session::{GroupView, Slot, SlotState};
use protocol::{DiskId, PoolId, VolumeId};
use replication::membership::held;

use crate::membership::with_group;
use crate::volumes::{Decision, OperationError, Plan, Volumes, event, owned_by};

/// Groups, or owners, that are changed in one transaction: below the coordination store's limit.
const STEPS_MAX: usize = 100;
/// An owner may go on for so long on the word of its disks, after its lease.
const WORD_OF_DISKS: Duration = Duration::from_secs(2);

/// What a group goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Remains {
    /// Others in sync: nothing is lost.
    Others(Vec<Slot>),
    /// One that was not: what it missed is lost.
    Kept(Vec<Slot>),
    /// Nobody that was named.
    Nobody,
}

/// What giving a disk up comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Groups that go on with others that were in sync.
    pub without: usize,
    /// Groups that go on with the kept disk, which had missed something.
    pub rolled_back: usize,
}

impl Volumes {
    /// Gives a disk up. Refused while its `storaged` is up and it serves; and where it held the last copy in sync, if
    /// no disk is kept in its place. Owners have their leases for so long.
    pub async fn give_up(
        &self,
        disk: DiskId,
        keep: Option<DiskId>,
        lease: Duration,
    ) -> Result<GivenUp, OperationError> {
        let map = self.fresh_map().await?;
        let pools = judge(&map, disk, keep)?;
        if !pools.is_empty() {
            while self.carry_out(|map| Ok(plan_revocation(map, &pools))).await? {}
            // Who had a volume may read for so long, and must not see that time goes back under him.
            tokio::time::sleep(lease + WORD_OF_DISKS).await;
        }
        let mut all = GivenUp::default();
        loop {
            let some = self.carry_out(|map| plan(map, disk, keep)).await?;
            if some == GivenUp::default() {
                return Ok(all);
            }
            all.without += some.without;
            all.rolled_back += some.rolled_back;
        }
    }
}

/// What a group goes on with, if it has the disk and something is to be changed. Of shards, k must be in sync: an older one
/// fits none of them.
fn remains(group: &GroupView, redundancy: Redundancy, disk: DiskId, keep: Option<DiskId>) -> Option<Remains> {
    let own = group.slot_of(disk)?;
    if own.state == SlotState::Down {
        return None;
    }
    let with = |changed: DiskId, state: SlotState, slots: &[Slot]| -> Vec<Slot> {
        let slot = |slot: &Slot| {
            if slot.disk == changed {
                Slot { state, ..*slot }
            } else {
                *slot
            }
        };
        slots.iter().map(slot).collect()
    };
    let without = with(disk, SlotState::Down, &group.slots);
    if held(&without) >= usize::from(redundancy.readable()) || own.state != SlotState::InSync {
        return Some(Remains::Others(without));
    }
    let kept = keep.filter(|_| redundancy.profile().is_none());
    let kept = kept.filter(|keep| without.iter().any(|slot| slot.disk == *keep));
    Some(match kept {
        // Whoever else was on his way got it from the lost one: he begins anew.
        Some(keep) => Remains::Kept(
            with(keep, SlotState::InSync, &without)
                .into_iter()
                .map(|slot| {
                    if slot.state.comes_back() {
                        let state = SlotState::Down;
                        Slot { state, ..slot }
                    } else {
                        slot
                    }
                })
                .collect(),
        ),
        None => Remains::Nobody,
    })
}

/// The pools in which something is lost by it, if it may be done at all.
fn judge(map: &ClusterMap, disk: DiskId, keep: Option<DiskId>) -> Result<BTreeSet<PoolId>, OperationError> {
    for id in [Some(disk), keep].into_iter().flatten() {
        if !map.disks().contains_key(&id) {
            return Err(OperationError::NotFound(format!("there is no disk {}", id.0)));
        }
    }
    if keep == Some(disk) {
        return Err(OperationError::Invalid(format!(
            "{disk} cannot be given up and kept"
        )));
    }
    let mut pools = BTreeSet::new();
    let mut stuck = 0;
    let mut others: BTreeSet<DiskId> = BTreeSet::new();
    for (id, pool) in map.pools() {
        let redundancy = pool.record.redundancy;
        for group in map.groups(id) {
            match remains(group, redundancy, disk, keep) {
                Some(Remains::Nobody) if redundancy.profile().is_some() => {
                    return Err(OperationError::Conflict(format!(
                        "{disk} has one of the last {} shards in sync of {}: without it nothing of that can be read; bring it \
                         back, or another disk of that group first",
                        redundancy.readable(),
                        group.pg
                    )));
                }
                None | Some(Remains::Others(_)) => {}
                Some(Remains::Kept(_)) => {
                    pools.insert(id);
                }
                Some(Remains::Nobody) => {
                    stuck += 1;
                    others.extend(
                        group
                            .slots
                            .iter()
                            .map(|slot| slot.disk)
                            .filter(|other| *other != disk),
                    );
                }
            }
        }
    }
    if stuck == 0 {
        return Ok(pools);
    }
    let others: Vec<String> = others.iter().map(DiskId::to_string).collect();
    Err(OperationError::Conflict(format!(
        "{disk} has the only copy in sync of {stuck} placement groups: bring it back if there is any way to. If it is lost for \
         good, say which disk is to be kept in its place (--keep); what was written since that one left is lost then. \
         These have older copies: {}",
        if others.is_empty() {
            "none".to_owned()
        } else {
            others.join(", ")
        }
    )))
}

/// Ends the generations of these pools' volumes; answers whether there were more than one transaction takes.
fn plan_revocation(map: &ClusterMap, pools: &BTreeSet<PoolId>) -> Decision<bool> {
    let lies_there = |volume: VolumeId| {
        let pool = map.volume(volume).and_then(|(family, _)| family.pool());
        pool.is_some_and(|pool| pools.contains(&pool))
    };
    // One that moves lies in two pools.
    let of_pools = |volume: &VolumeId| {
        let source = map.moving(*volume).map(|moving| moving.record.source);
        lies_there(*volume) || source.is_some_and(lies_there)
    };
    let mut transaction = Transaction::new();
    let mut count = 0;
    for volume in map.owners().keys().copied().filter(of_pools) {
        let Some(generation) = map.generation(volume) else {
            continue;
        };
        if count == STEPS_MAX {
            return Plan::decide_quietly(transaction, true);
        }
        count += 1;
        transaction = transaction
            .when(owned_by(volume, generation))
            .delete(Key::Owner(volume).to_text());
    }
    if count == 0 {
        return Decision::Unchanged(false);
    }
    Plan::decide_quietly(transaction, false)
}

fn plan(map: &ClusterMap, disk: DiskId, keep: Option<DiskId>) -> Result<Decision<GivenUp>, OperationError> {
    let mut given_up = GivenUp::default();
    let mut transaction = Transaction::new();
    let of = |pool: PoolId, redundancy| map.groups(pool).map(move |group| (group, redundancy));
    let pools = map.pools();
    let groups = pools.flat_map(|(id, pool)| of(id, pool.record.redundancy));
    for (group, redundancy) in groups {
        if given_up.without + given_up.rolled_back == STEPS_MAX {
            break;
        }
        let slots = match remains(group, redundancy, disk, keep) {
            Some(Remains::Others(slots)) => {
                given_up.without += 1;
                slots
            }
            Some(Remains::Kept(slots)) => {
                given_up.rolled_back += 1;
                slots
            }
            Some(Remains::Nobody) | None => continue,
        };
        transaction = with_group(transaction, group.pg, Revision(group.interval.0), slots)?;
    }
    if given_up == GivenUp::default() {
        return Ok(Decision::Unchanged(given_up));
    }
    // The disk's node may have come up meanwhile: then its owners' words are not to be trusted any more.
    if let Some(record) = map.disks().get(&disk) {
        let key = Key::Disk(disk).to_text();
        transaction = transaction.when(Compare::Modified(key, record.modified));
    }
    let mut message = format!(
        "{disk} was given up: {} placement groups go on without it",
        given_up.without
    );
    if let Some(keep) = keep.filter(|_| given_up.rolled_back > 0) {
        message = format!(
            "{message}, and {} as {keep} has them: what was written since it left is lost",
            given_up.rolled_back
        );
    }
    let mut told = event("disk_given_up", disk.to_string(), message);
    told.severity = Severity::Error;
    Ok(Plan::decide(transaction, told, given_up))
}

#[cfg(test)]
mod tests {
    //! What is lost must be said, and nothing more is lost than that.
    use super::*;
    use crate::membership::fixture;

    const C: DiskId = DiskId(3);
    const COPIES: Redundancy = Redundancy::Replicated { copies: 3 };

    fn states(slots: &[Slot]) -> Vec<SlotState> {
        slots.iter().map(|slot| slot.state).collect()
    }

    fn group(states: [SlotState; 3]) -> GroupView {
        let slot = |(disk, state)| Slot::of_copy(DiskId(disk), state);
        GroupView {
            pg: protocol::PgId {
                pool: fixture::POOL,
                number: 0,
            },
            interval: protocol::Interval(1),
            slots: (1..).zip(states).map(slot).collect(),
        }
    }

    #[test]
    fn a_group_with_others_in_sync_goes_on_without_it_below_its_least_size_too() {
        use SlotState::{Down, InSync};
        let left = remains(&group([Down, InSync, InSync]), COPIES, C, None);
        let Some(Remains::Others(slots)) = left else {
            panic!("{left:?}");
        };
        assert_eq!(states(&slots), [Down, InSync, Down]);
        assert_eq!(remains(&group([InSync, InSync, Down]), COPIES, C, None), None);
    }

    #[test]
    fn the_last_copy_is_not_given_up_unless_another_one_is_named() {
        use SlotState::{Down, InSync, Syncing};
        let last = group([Down, Syncing, InSync]);
        assert_eq!(remains(&last, COPIES, C, None), Some(Remains::Nobody));
        let left = remains(&last, COPIES, C, Some(DiskId(1)));
        let Some(Remains::Kept(slots)) = left else {
            panic!("{left:?}");
        };
        // Whoever was on his way had it from the lost one, in part.
        assert_eq!(states(&slots), [InSync, Down, Down]);
    }

    #[test]
    fn a_shard_is_given_up_only_while_k_others_are_in_sync_and_stays_that_shard() {
        use SlotState::{Down, InSync};
        let profile = protocol::profile::Profile::new(2, 1).unwrap();
        let rows = Redundancy::Encoded { profile };
        let of = |states| {
            let mut group = group(states);
            for (slot, shard) in group.slots.iter_mut().zip(0..) {
                slot.shard = shard;
            }
            group
        };
        let left = remains(&of([InSync, InSync, InSync]), rows, C, None);
        assert_eq!(left, Some(Remains::Others(of([InSync, InSync, Down]).slots)));
        // No older shard fits the one that would be left.
        let last = of([Down, InSync, InSync]);
        assert_eq!(remains(&last, rows, C, Some(DiskId(1))), Some(Remains::Nobody));
    }

    #[test]
    fn owners_lose_their_volumes_only_where_something_is_lost() {
        let map = fixture::map_of_nodes(3, &[1, 2, 3], SlotState::InSync);
        assert!(judge(&map, C, None).unwrap().is_empty());
        let pools = BTreeSet::from([fixture::POOL]);
        let Decision::Change(revocation) = plan_revocation(&map, &pools) else {
            panic!("the owner stays");
        };
        assert_eq!(revocation.transaction.changes.len(), 1);
        let Decision::Change(change) = plan(&map, C, None).unwrap() else {
            panic!("nothing is done");
        };
        assert_eq!(
            change.result,
            GivenUp {
                without: 8,
                rolled_back: 0
            }
        );
    }
}
