//! What operators ask for: a disk or a node is emptied, or not any more; an empty disk is removed.

use std::collections::BTreeSet;

use coordination::keys::Key;
use coordination::records::{DiskRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::{DiskId, NodeId};

use super::report::domain;
use super::wanted::Wanted;
use crate::volumes::{Decision, OperationError, Plan, Volumes, event};

/// Disks of one node that are changed in one transaction: below the coordination store's limit.
const DISKS_MAX: usize = 100;

impl Volumes {
    /// Empties a disk, or does so no more. Refused where its data has no other place.
    pub async fn drain_disk(&self, disk: DiskId, drain: bool) -> Result<(), OperationError> {
        self.carry_out(|map| plan_drain(map, &[known(map, disk)?], drain))
            .await
    }

    /// The same for all disks of a node.
    pub async fn drain_node(&self, node: NodeId, drain: bool) -> Result<(), OperationError> {
        let plan = |map: &ClusterMap| {
            if !map.nodes().contains_key(&node) {
                return Err(OperationError::NotFound(format!("there is no node {}", node.0)));
            }
            let disks: Vec<DiskId> = map.disks_on(node).map(|(id, _)| id).collect();
            if disks.len() > DISKS_MAX {
                let message = format!("{node} has more than {DISKS_MAX} disks: empty them one by one");
                return Err(OperationError::Invalid(message));
            }
            plan_drain(map, &disks, drain)
        };
        self.carry_out(plan).await
    }

    /// Takes a disk that holds nothing that counts out of the records, for good.
    pub async fn remove_disk(&self, disk: DiskId) -> Result<(), OperationError> {
        // First nobody may choose it any more, then it is seen whether somebody has.
        self.carry_out(|map| plan_emptying(map, disk)).await?;
        self.carry_out(|map| plan_removal(map, disk)).await
    }
}

fn known(map: &ClusterMap, disk: DiskId) -> Result<DiskId, OperationError> {
    let missing = || OperationError::NotFound(format!("there is no disk {}", disk.0));
    map.disks()
        .contains_key(&disk)
        .then_some(disk)
        .ok_or_else(missing)
}

fn plan_drain(map: &ClusterMap, disks: &[DiskId], drain: bool) -> Result<Decision<()>, OperationError> {
    let changed: Vec<DiskId> = disks
        .iter()
        .copied()
        .filter(|id| {
            map.disks()
                .get(id)
                .is_some_and(|disk| disk.record.draining != drain)
        })
        .collect();
    if changed.is_empty() {
        return Ok(Decision::Unchanged(()));
    }
    if drain {
        refuse_homeless(map, disks)?;
    }
    let mut transaction = Transaction::new();
    for id in &changed {
        transaction = with_draining(transaction, map, *id, drain)?;
    }
    let names: Vec<String> = changed.iter().map(DiskId::to_string).collect();
    let names = names.join(", ");
    let message = if drain {
        format!("{names}: what is there goes to other disks")
    } else {
        format!("{names}: takes data again")
    };
    Ok(Plan::decide(transaction, event("disk_drain", names, message), ()))
}

fn with_draining(
    transaction: Transaction,
    map: &ClusterMap,
    id: DiskId,
    draining: bool,
) -> Result<Transaction, OperationError> {
    let Some(disk) = map.disks().get(&id) else {
        return Ok(transaction);
    };
    let key = Key::Disk(id).to_text();
    let record = DiskRecord {
        draining,
        ..disk.record.clone()
    };
    Ok(transaction
        .when(Compare::Modified(key.clone(), disk.modified))
        .put(key, encode(&record)?))
}

/// Refuses if a pool with data on these disks could not keep all its copies or shards without them.
fn refuse_homeless(map: &ClusterMap, disks: &[DiskId]) -> Result<(), OperationError> {
    let without: BTreeSet<DiskId> = disks.iter().copied().collect();
    let mut wanted = Wanted::default();
    wanted.follow(map, &without);
    for (id, pool) in map.pools() {
        let width = usize::from(pool.record.redundancy.width());
        let held = |disk: &DiskId| map.groups_on(*disk).any(|(pg, _)| pg.pool == id);
        let mut groups = map.groups(id);
        let homeless = groups.find(|group| wanted.of(group.pg).len() < width);
        if let Some(group) = homeless.filter(|_| disks.iter().any(held)) {
            let places = domain(pool.record.failure_domain);
            let names: Vec<String> = disks.iter().map(DiskId::to_string).collect();
            return Err(OperationError::NotEnoughDisks(format!(
                "{} cannot be emptied: pool {} keeps {width} {} on distinct {places}, and without it there {} only \
                 {}; add another one first",
                names.join(", "),
                pool.record.name,
                pool.record.redundancy.parts(),
                if wanted.of(group.pg).len() == 1 {
                    "is"
                } else {
                    "are"
                },
                wanted.of(group.pg).len()
            )));
        }
    }
    Ok(())
}

fn plan_emptying(map: &ClusterMap, disk: DiskId) -> Result<Decision<()>, OperationError> {
    refuse_used(map, known(map, disk)?)?;
    let draining = map.disks().get(&disk).is_some_and(|disk| disk.record.draining);
    if draining {
        return Ok(Decision::Unchanged(()));
    }
    let transaction = with_draining(Transaction::new(), map, disk, true)?;
    Ok(Plan::decide_quietly(transaction, ()))
}

fn plan_removal(map: &ClusterMap, disk: DiskId) -> Result<Decision<()>, OperationError> {
    let Some(record) = map.disks().get(&disk) else {
        return Ok(Decision::Unchanged(()));
    };
    refuse_used(map, disk)?;
    let key = Key::Disk(disk).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), record.modified))
        .delete(key);
    let message = format!(
        "{disk} ({} on {}) was removed from the cluster",
        record.record.path, record.record.node
    );
    Ok(Plan::decide(
        transaction,
        event("disk_removed", disk.to_string(), message),
        (),
    ))
}

fn refuse_used(map: &ClusterMap, disk: DiskId) -> Result<(), OperationError> {
    match map.groups_on(disk).count() {
        0 => Ok(()),
        groups => Err(OperationError::InUse(format!(
            "{disk} holds {groups} placement groups: empty it first (disk drain)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    //! Nothing is emptied that has no other place, and nothing removed that is not empty.
    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture;

    fn message<T>(result: Result<Decision<T>, OperationError>) -> String {
        match result {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was not refused"),
        }
    }

    #[test]
    fn a_disk_whose_copies_have_no_other_place_is_not_emptied() {
        let three = fixture::map_of_nodes(3, &[1, 2, 3], SlotState::InSync);
        let refused = message(plan_drain(&three, &[DiskId(1)], true));
        assert!(
            refused.contains("3 copies on distinct nodes") && refused.contains("are only 2"),
            "{refused}"
        );
        let rows = message(plan_drain(&fixture::map_of_rows(3), &[DiskId(1)], true));
        assert!(rows.contains("3 shards on distinct nodes"), "{rows}");
        let four = fixture::map_of_nodes(4, &[1, 2, 3, 4], SlotState::InSync);
        let Ok(Decision::Change(plan)) = plan_drain(&four, &[DiskId(1)], true) else {
            panic!("it was refused");
        };
        assert_eq!(plan.transaction.changes.len(), 1);
        // The fourth has nothing, so nothing needs another place.
        assert!(matches!(
            plan_drain(&four, &[DiskId(4)], true),
            Ok(Decision::Change(_))
        ));
        assert!(matches!(
            plan_drain(&four, &[DiskId(4)], false),
            Ok(Decision::Unchanged(()))
        ));
    }

    #[test]
    fn only_an_empty_disk_is_removed_and_only_as_it_was_seen() {
        let map = fixture::map_of_nodes(4, &[1, 2, 3, 4], SlotState::InSync);
        let refused = message(plan_removal(&map, DiskId(1)));
        assert!(refused.contains("8 placement groups"), "{refused}");
        let Ok(Decision::Change(plan)) = plan_removal(&map, DiskId(4)) else {
            panic!("it was refused");
        };
        assert_eq!(plan.transaction.compares.len(), 1);
        assert!(matches!(plan_emptying(&map, DiskId(4)), Ok(Decision::Change(_))));
        assert!(message(plan_emptying(&map, DiskId(9))).contains("no disk 9"));
    }
}
