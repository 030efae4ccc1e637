//! A node leaves the cluster for good: only when it is down and nothing that counts lies on its disks.

use coordination::keys::Key;
use coordination::records::{DiskRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::NodeId;

use crate::volumes::{Decision, OperationError, Plan, Volumes, event};

impl Volumes {
    /// Takes a node and its disks out of the records. Refused while it is up, and while a placement group has
    /// a slot on one of its disks.
    pub async fn remove_node(&self, node: NodeId) -> Result<(), OperationError> {
        // First no pool that is being made may choose its disks any more, then it is seen whether one has.
        self.carry_out(|map| plan_emptying(map, node)).await?;
        self.carry_out(|map| plan_removal(map, node)).await
    }
}

fn plan_emptying(map: &ClusterMap, node: NodeId) -> Result<Decision<()>, OperationError> {
    refuse_in_use(map, node)?;
    let mut transaction = Transaction::new();
    for (id, disk) in map.disks_on(node).filter(|(_, disk)| disk.record.weight > 0) {
        let key = Key::Disk(id).to_text();
        let record = DiskRecord {
            weight: 0,
            ..disk.record.clone()
        };
        transaction = transaction
            .when(Compare::Modified(key.clone(), disk.modified))
            .put(key, encode(&record)?);
    }
    if transaction.changes.is_empty() {
        return Ok(Decision::Unchanged(()));
    }
    Ok(Plan::decide_quietly(transaction, ()))
}

fn plan_removal(map: &ClusterMap, node: NodeId) -> Result<Decision<()>, OperationError> {
    refuse_in_use(map, node)?;
    let Some(known) = map.nodes().get(&node) else {
        return Ok(Decision::Unchanged(()));
    };
    let key = Key::Node(node).to_text();
    let mut transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), known.modified))
        .when(Compare::Absent(Key::NodeUp(node).to_text()))
        .delete(key);
    for (id, disk) in map.disks_on(node) {
        let key = Key::Disk(id).to_text();
        transaction = transaction
            .when(Compare::Modified(key.clone(), disk.modified))
            .delete(key);
    }
    let message = format!("{node} ({}) was removed from the cluster", known.record.name);
    Ok(Plan::decide(
        transaction,
        event("node_removed", node.to_string(), message),
        (),
    ))
}

fn refuse_in_use(map: &ClusterMap, node: NodeId) -> Result<(), OperationError> {
    let known = map
        .nodes()
        .get(&node)
        .ok_or_else(|| OperationError::NotFound(format!("there is no node {}", node.0)))?;
    if map.up().contains_key(&node) {
        return Err(OperationError::InUse(format!(
            "{node} ({}) is up: stop its storaged first",
            known.record.name
        )));
    }
    let used: Vec<String> = map
        .disks_on(node)
        .filter_map(|(id, _)| match map.groups_on(id).count() {
            0 => None,
            1 => Some(format!("{id} (1 placement group)")),
            count => Some(format!("{id} ({count} placement groups)")),
        })
        .collect();
    if used.is_empty() {
        return Ok(());
    }
    Err(OperationError::InUse(format!(
        "{node} ({}) holds data of pools on {}: move it elsewhere first",
        known.record.name,
        used.join(", ")
    )))
}
