//! The records of layers whose objects are gone from every disk: the last step of a reclaim.

use coordination::keys::Key;
use coordination::map::family::Reclaim;
use coordination::records::{LayerRecord, ReclaimedRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::{FamilyId, LayerId, NodeId};

use super::{Decision, OperationError, Plan, Volumes, event};
use crate::moment::wall_clock_ms;

/// What nodes have said of one layer goes in steps of so many, which one transaction takes with the rest.
const NOTES_MAX: usize = 100;

impl Volumes {
    /// Takes a layer out of the tree after every disk dropped it, or merged it into its child.
    /// Nothing happens if the tree does not say any more that this is to be done.
    pub async fn retire(&self, family: FamilyId, done: Reclaim) -> Result<(), OperationError> {
        // Cut short here, the nodes whose notes are gone look again, and find nothing left.
        while self
            .carry_out(|map| Ok(plan_forgetting(map, family, done.layer())))
            .await?
        {}
        self.carry_out(|map| plan(map, family, done)).await
    }

    /// Notes that a node's disks hold nothing of a layer any more.
    pub async fn note_reclaimed(
        &self,
        family: FamilyId,
        layer: LayerId,
        node: NodeId,
    ) -> Result<(), OperationError> {
        self.carry_out(|map| plan_note(map, family, layer, node)).await
    }
}

fn plan_note(
    map: &ClusterMap,
    id: FamilyId,
    layer: LayerId,
    node: NodeId,
) -> Result<Decision<()>, OperationError> {
    let gone = map
        .family(id)
        .is_none_or(|family| !family.layers().contains_key(&layer));
    if gone || map.wishes().reclaimed(id, layer).any(|done| done == node) {
        return Ok(Decision::Unchanged(()));
    }
    let record = ReclaimedRecord {
        done_ms: wall_clock_ms(),
    };
    let transaction = Transaction::new()
        .when(Compare::Present(Key::Layer(id, layer).to_text()))
        .put(Key::Reclaimed(id, layer, node).to_text(), encode(&record)?);
    Ok(Plan::decide_quietly(transaction, ()))
}

/// Deletes notes that the transaction which retires the layer has no room for; false if there are none.
fn plan_forgetting(map: &ClusterMap, id: FamilyId, layer: LayerId) -> Decision<bool> {
    let notes: Vec<NodeId> = map.wishes().reclaimed(id, layer).collect();
    if notes.len() <= NOTES_MAX {
        return Decision::Unchanged(false);
    }
    let transaction = without_notes(Transaction::new(), id, layer, &notes);
    Plan::decide_quietly(transaction, true)
}

fn without_notes(
    mut transaction: Transaction,
    id: FamilyId,
    layer: LayerId,
    nodes: &[NodeId],
) -> Transaction {
    for node in nodes.iter().take(NOTES_MAX) {
        transaction = transaction.delete(Key::Reclaimed(id, layer, *node).to_text());
    }
    transaction
}

fn plan(map: &ClusterMap, id: FamilyId, done: Reclaim) -> Result<Decision<()>, OperationError> {
    let Some(family) = map.family(id) else {
        return Ok(Decision::Unchanged(()));
    };
    // What could be reclaimed once can be reclaimed still, or else somebody retired it already.
    if !family.reclaimable().contains(&done) {
        return Ok(Decision::Unchanged(()));
    }
    let Some(record) = family.record() else {
        return Ok(Decision::Unchanged(()));
    };
    let family_key = Key::Family(id).to_text();
    let mut transaction = Transaction::new()
        .when(Compare::Modified(family_key.clone(), record.modified))
        .delete(Key::Layer(id, done.layer()).to_text());
    let notes: Vec<NodeId> = map.wishes().reclaimed(id, done.layer()).collect();
    transaction = without_notes(transaction, id, done.layer(), &notes);
    let message = match done {
        Reclaim::Drop(_) if family.layers().len() == 1 => {
            transaction = transaction.delete(family_key);
            format!("the last layer of {id} is gone")
        }
        Reclaim::Drop(layer) => format!("{layer} of {id} is gone"),
        Reclaim::Merge { parent, child } => {
            // All volumes that read through the child look through one layer less now.
            transaction = transaction
                .put(
                    Key::Layer(id, child).to_text(),
                    encode(&adopted(family.layers(), parent, child)?)?,
                )
                .put(family_key, encode(&record.record)?);
            format!("{parent} of {id} is merged into {child}")
        }
    };
    Ok(Plan::decide(
        transaction,
        event("space_reclaimed", id.to_string(), message),
        (),
    ))
}

/// The child's record when its parent is gone: it continues what that one continued.
fn adopted(
    layers: &std::collections::BTreeMap<LayerId, LayerRecord>,
    parent: LayerId,
    child: LayerId,
) -> Result<LayerRecord, OperationError> {
    let missing = |layer: LayerId| OperationError::Internal(format!("{layer} is not in the tree"));
    let grandparent = layers.get(&parent).ok_or_else(|| missing(parent))?.parent;
    let child = layers.get(&child).ok_or_else(|| missing(child))?;
    Ok(LayerRecord {
        parent: grandparent,
        ..*child
    })
}
