//! The records of layers whose objects are gone from every disk: the last step of a reclaim; and what nodes say
//! of each other's part in it.

use std::collections::BTreeSet;

use coordination::keys::Key;
use coordination::map::family::Reclaim;
use coordination::records::{LayerRecord, ReclaimedRecord, encode};
use coordination::{ClusterMap, Compare, Revision, Transaction};
use protocol::session::SlotState;
use protocol::{DiskId, FamilyId, LayerId, NodeId, PoolId};

use super::{Decision, OperationError, Plan, Volumes, event};
use crate::moment::wall_clock_ms;

/// What nodes have said of one layer goes in steps of so many, which one transaction takes with the rest.
const NOTES_MAX: usize = 100;

/// A node whose disks hold nothing of a layer any more, and the revision of the map by which they gave it back.
pub(crate) type Done = (NodeId, Revision);

/// A family's pool.
pub(crate) fn pool_of(map: &ClusterMap, family: FamilyId) -> Option<PoolId> {
    map.family(family).and_then(|family| family.pool())
}

/// The disks that may hold objects of a family. Those that are out of a group are not waited for: what they hold
/// goes when they come back.
pub(crate) fn disks_with(map: &ClusterMap, family: FamilyId) -> BTreeSet<DiskId> {
    let groups = pool_of(map, family).into_iter().flat_map(|pool| map.groups(pool));
    let slots = groups.flat_map(|group| group.slots.iter());
    let taking_part = slots.filter(|slot| slot.state != SlotState::Down);
    taking_part.map(|slot| slot.disk).collect()
}

/// The node of a disk.
pub(crate) fn node_of(map: &ClusterMap, id: DiskId) -> Option<NodeId> {
    map.disks().get(&id).map(|disk| disk.record.node)
}

/// Whether what was done by this revision of the map still counts: no group has changed since.
fn stands(map: &ClusterMap, family: FamilyId, since: Revision) -> bool {
    pool_of(map, family).is_none_or(|pool| map.groups_changed(pool) <= since)
}

/// The revision in a node's note of a layer, if the note still counts.
pub(crate) fn standing_note(
    map: &ClusterMap,
    family: FamilyId,
    layer: LayerId,
    node: NodeId,
) -> Option<Revision> {
    let mut notes = map.wishes().reclaimed(family, layer);
    let (_, since) = notes.find(|(noted, _)| *noted == node)?;
    stands(map, family, since).then_some(since)
}

/// A node that is not done with a layer, or has to begin again, apart from the one that says of itself that it is.
pub(crate) fn not_done(map: &ClusterMap, family: FamilyId, layer: LayerId, ours: Done) -> Option<NodeId> {
    if !stands(map, family, ours.1) {
        return Some(ours.0);
    }
    let disks = disks_with(map, family).into_iter();
    let nodes: BTreeSet<NodeId> = disks.filter_map(|id| node_of(map, id)).collect();
    let mut others = nodes.into_iter().filter(|node| *node != ours.0);
    others.find(|node| standing_note(map, family, layer, *node).is_none())
}

impl Volumes {
    /// Takes a layer out of the tree after every disk dropped it, or merged it into its child, the disks of this
    /// node too, as `ours` says. Nothing happens if the tree does not say any more that this is to be done, or if
    /// somebody has to begin again.
    pub async fn retire(&self, family: FamilyId, done: Reclaim, ours: Done) -> Result<(), OperationError> {
        let waits = |map: &ClusterMap| not_done(map, family, done.layer(), ours).is_some();
        if waits(self.fresh_map().await?.as_ref()) {
            return Ok(());
        }
        // Cut short here, the nodes whose notes are gone look again, and find nothing left.
        while self
            .carry_out(|map| Ok(plan_forgetting(map, family, done.layer())))
            .await?
        {}
        // Their notes may be gone now, and counted before: as long as no group has changed, they still would.
        self.carry_out(|map| {
            if !stands(map, family, ours.1) {
                return Ok(Decision::Unchanged(()));
            }
            plan(map, family, done)
        })
        .await
    }

    /// Notes that a node's disks hold nothing of a layer any more.
    pub async fn note_reclaimed(
        &self,
        family: FamilyId,
        layer: LayerId,
        done: Done,
    ) -> Result<(), OperationError> {
        self.carry_out(|map| plan_note(map, family, layer, done)).await
    }
}

fn plan_note(
    map: &ClusterMap,
    id: FamilyId,
    layer: LayerId,
    (node, since): Done,
) -> Result<Decision<()>, OperationError> {
    let gone = map
        .family(id)
        .is_none_or(|family| !family.layers().contains_key(&layer));
    let mut notes = map.wishes().reclaimed(id, layer);
    if gone || notes.any(|(noted, by)| noted == node && by >= since) {
        return Ok(Decision::Unchanged(()));
    }
    let record = ReclaimedRecord {
        done_ms: wall_clock_ms(),
        since: since.0,
    };
    let transaction = Transaction::new()
        .when(Compare::Present(Key::Layer(id, layer).to_text()))
        .put(Key::Reclaimed(id, layer, node).to_text(), encode(&record)?);
    Ok(Plan::decide_quietly(transaction, ()))
}

/// Deletes notes that the transaction which retires the layer has no room for; false if there are none.
fn plan_forgetting(map: &ClusterMap, id: FamilyId, layer: LayerId) -> Decision<bool> {
    let notes: Vec<NodeId> = map.wishes().reclaimed(id, layer).map(|(node, _)| node).collect();
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
    let notes: Vec<NodeId> = map
        .wishes()
        .reclaimed(id, done.layer())
        .map(|(node, _)| node)
        .collect();
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

#[cfg(test)]
mod tests {
    //! What a node has said counts until a group changes, and everybody who takes part has to say it.
    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture::{self, FAMILY};

    const LAYER: LayerId = LayerId(9);
    const OURS: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    #[test]
    fn whoever_has_disks_that_take_part_must_have_said_so() {
        let map = fixture::map_on_two_nodes(SlotState::InSync, None);
        let done = (OURS, map.revision());
        assert_eq!(not_done(&map, FAMILY, LAYER, done), Some(OTHER));
        let noted = fixture::map_on_two_nodes(SlotState::InSync, Some((LAYER, OTHER, map.revision())));
        assert_eq!(not_done(&noted, FAMILY, LAYER, done), None);
        let down = fixture::map_on_two_nodes(SlotState::Down, None);
        assert_eq!(not_done(&down, FAMILY, LAYER, done), None, "its disk is out");
    }

    #[test]
    fn what_was_done_before_a_group_changed_is_done_again() {
        // A disk that came back meanwhile may have brought back what was given back already.
        let before = Revision(fixture::GROUPS_AT - 1);
        let map = fixture::map_on_two_nodes(SlotState::InSync, Some((LAYER, OTHER, before)));
        assert_eq!(not_done(&map, FAMILY, LAYER, (OURS, before)), Some(OURS));
        assert_eq!(not_done(&map, FAMILY, LAYER, (OURS, map.revision())), Some(OTHER));
        assert_eq!(standing_note(&map, FAMILY, LAYER, OTHER), None);
    }
}
