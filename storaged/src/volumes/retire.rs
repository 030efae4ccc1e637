//! The records of layers whose objects are gone from every disk: the last step of a reclaim.

use coordination::keys::Key;
use coordination::map::family::Reclaim;
use coordination::records::{LayerRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::{FamilyId, LayerId};

use super::{Decision, OperationError, Plan, Volumes, event};

impl Volumes {
    /// Takes a layer out of the tree after every disk dropped it, or merged it into its child.
    /// Nothing happens if the tree does not say any more that this is to be done.
    pub async fn retire(&self, family: FamilyId, done: Reclaim) -> Result<(), OperationError> {
        self.carry_out(|map| plan(map, family, done)).await
    }
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
