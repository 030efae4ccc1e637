//! A family in the map: its tree of layers, and who refers to which.
//!
//! What is to be done about layers that nobody needs is decided here too, because it follows from
//! the tree alone; who does it is `storaged`'s business.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::{LayerChain, LayerId, PoolId, TreeRevision, VolumeId};

use super::Versioned;
use crate::records::{FamilyRecord, LayerRecord, SnapshotRecord, VolumeRecord};

/// Volumes that share layers.
#[derive(Debug, Default)]
pub struct Family {
    record: Option<Versioned<FamilyRecord>>,
    layers: BTreeMap<LayerId, LayerRecord>,
    volumes: BTreeMap<VolumeId, Arc<Versioned<VolumeRecord>>>,
    /// Which volume's head a layer is, for every request asks that.
    heads: HashMap<LayerId, VolumeId>,
    snapshots: BTreeMap<(VolumeId, Arc<str>), Arc<Versioned<SnapshotRecord>>>,
    /// How many snapshots show a layer, for every request of a reader asks that.
    shown: HashMap<LayerId, usize>,
    /// Chains that were asked for, made once a revision of the tree and shared by all disks.
    chains: Mutex<HashMap<LayerId, LayerChain>>,
}

impl Clone for Family {
    fn clone(&self) -> Self {
        Self {
            record: self.record.clone(),
            layers: self.layers.clone(),
            volumes: self.volumes.clone(),
            heads: self.heads.clone(),
            snapshots: self.snapshots.clone(),
            shown: self.shown.clone(),
            // A family is cloned to be changed: its chains may be others then.
            chains: Mutex::default(),
        }
    }
}

impl PartialEq for Family {
    /// The chains follow from the rest.
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
            && self.layers == other.layers
            && self.volumes == other.volumes
            && self.heads == other.heads
            && self.snapshots == other.snapshots
    }
}

/// What is to be done about one layer that nobody refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reclaim {
    /// Nobody continues it: drop its objects.
    Drop(LayerId),
    /// One layer continues it: merge its objects into that one's.
    Merge {
        /// The layer that goes.
        parent: LayerId,
        /// The layer that continues it.
        child: LayerId,
    },
}

impl Reclaim {
    /// The layer that goes.
    pub fn layer(self) -> LayerId {
        match self {
            Self::Drop(layer) | Self::Merge { parent: layer, .. } => layer,
        }
    }
}

impl Family {
    /// Where its objects are.
    pub fn pool(&self) -> Option<PoolId> {
        self.record.as_ref().map(|record| record.record.pool)
    }

    /// The family's own record.
    pub fn record(&self) -> Option<&Versioned<FamilyRecord>> {
        self.record.as_ref()
    }

    /// The transaction that merged layers last, or made the family: it concerns all its volumes.
    pub fn merged(&self) -> TreeRevision {
        TreeRevision(self.record.as_ref().map_or(0, |record| record.modified.0))
    }

    /// The layers with their parents.
    pub fn layers(&self) -> &BTreeMap<LayerId, LayerRecord> {
        &self.layers
    }

    /// The volumes.
    pub fn volumes(&self) -> &BTreeMap<VolumeId, Arc<Versioned<VolumeRecord>>> {
        &self.volumes
    }

    /// All snapshots, by volume and name.
    pub fn snapshots(&self) -> &BTreeMap<(VolumeId, Arc<str>), Arc<Versioned<SnapshotRecord>>> {
        &self.snapshots
    }

    /// A volume's snapshots, by name.
    pub fn snapshots_of(&self, volume: VolumeId) -> impl Iterator<Item = (&str, &Versioned<SnapshotRecord>)> {
        self.snapshots
            .range((volume, Arc::from(""))..)
            .take_while(move |((owner, _), _)| *owner == volume)
            .map(|((_, name), record)| (name.as_ref(), record.as_ref()))
    }

    /// One snapshot.
    pub fn snapshot(&self, volume: VolumeId, name: &str) -> Option<&Versioned<SnapshotRecord>> {
        self.snapshots.get(&(volume, Arc::from(name))).map(Arc::as_ref)
    }

    /// The volume whose head a layer is.
    pub fn volume_with_head(&self, layer: LayerId) -> Option<VolumeId> {
        self.volumes
            .iter()
            .find(|(_, volume)| volume.record.head == layer)
            .map(|(id, _)| *id)
    }

    /// A layer and its ancestors, newest first; nothing if there is no such layer.
    pub fn chain(&self, layer: LayerId) -> Option<LayerChain> {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chain) = chains.get(&layer) {
            return Some(chain.clone());
        }
        let mut layers = Vec::new();
        let mut next = Some(layer);
        // A tree that a transaction made has no circle; should a record be damaged, the number of
        // layers bounds the walk.
        while let Some(layer) = next
            && layers.len() < self.layers.len()
        {
            next = self.layers.get(&layer)?.parent;
            layers.push(layer);
        }
        let chain = LayerChain::new(layers);
        chains.insert(layer, chain.clone());
        Some(chain)
    }

    /// The layers that continue each layer.
    pub fn children(&self) -> BTreeMap<LayerId, Vec<LayerId>> {
        let mut children: BTreeMap<LayerId, Vec<LayerId>> = BTreeMap::new();
        for (layer, record) in &self.layers {
            if let Some(parent) = record.parent {
                children.entry(parent).or_default().push(*layer);
            }
        }
        children
    }

    /// Whether a snapshot shows a layer.
    pub fn is_shown(&self, layer: LayerId) -> bool {
        self.shown.contains_key(&layer)
    }

    /// Layers that a volume writes to or a snapshot shows.
    pub fn referred(&self) -> HashSet<LayerId> {
        let sealed = self.snapshots.values().map(|snapshot| snapshot.record.layer);
        self.heads.keys().copied().chain(sealed).collect()
    }

    /// What can be reclaimed now: of layers that nobody refers to, those without children are to be
    /// dropped, those with one child that somebody needs are to be merged into it. What is
    /// left becomes reclaimable when these are done.
    ///
    /// A layer is merged only into one that stays, so that data is moved once, however many
    /// layers of a row go. Nobody can come to refer to such a layer again: snapshots and clones are
    /// made of layers that are referred to.
    pub fn reclaimable(&self) -> Vec<Reclaim> {
        let children = self.children();
        let referred = self.referred();
        let needed = |layer: &LayerId| {
            referred.contains(layer) || children.get(layer).is_some_and(|heirs| heirs.len() > 1)
        };
        self.layers
            .keys()
            .filter(|layer| !referred.contains(layer))
            .filter_map(|layer| match children.get(layer).map_or(&[][..], Vec::as_slice) {
                [] => Some(Reclaim::Drop(*layer)),
                [child] if needed(child) => Some(Reclaim::Merge {
                    parent: *layer,
                    child: *child,
                }),
                _ => None,
            })
            .collect()
    }

    /// The layer into which this one is to be merged now, as [`Self::reclaimable`] says. It is asked for each object
    /// that is merged, so it lists nothing.
    pub(super) fn heir(&self, layer: LayerId) -> Option<LayerId> {
        let referred = |layer: &LayerId| self.heads.contains_key(layer) || self.is_shown(*layer);
        let children = |of: LayerId| {
            let all = self.layers.iter();
            all.filter(move |(_, record)| record.parent == Some(of))
                .map(|(child, _)| *child)
        };
        let child = children(layer).next()?;
        let alone = children(layer).nth(1).is_none();
        let needed = referred(&child) || children(child).nth(1).is_some();
        (!referred(&layer) && alone && needed).then_some(child)
    }

    /// Whether nothing of it is left.
    pub(super) fn is_empty(&self) -> bool {
        self.record.is_none()
            && self.layers.is_empty()
            && self.volumes.is_empty()
            && self.snapshots.is_empty()
    }

    pub(super) fn put_record(&mut self, record: Versioned<FamilyRecord>) {
        self.record = Some(record);
    }

    pub(super) fn remove_record(&mut self) {
        self.record = None;
    }

    pub(super) fn put_layer(&mut self, layer: LayerId, record: LayerRecord) {
        self.layers.insert(layer, record);
        self.chains = Mutex::default();
    }

    pub(super) fn remove_layer(&mut self, layer: LayerId) {
        self.layers.remove(&layer);
        self.chains = Mutex::default();
    }

    pub(super) fn put_volume(&mut self, volume: VolumeId, record: Versioned<VolumeRecord>) {
        self.remove_volume(volume);
        self.heads.insert(record.record.head, volume);
        self.volumes.insert(volume, Arc::new(record));
    }

    pub(super) fn remove_volume(&mut self, volume: VolumeId) {
        let old = self.volumes.remove(&volume).map(|old| old.record.head);
        // It may be another volume's head by now, in the same transaction.
        if let Some(head) = old.filter(|head| self.heads.get(head) == Some(&volume)) {
            self.heads.remove(&head);
        }
    }

    pub(super) fn put_snapshot(&mut self, volume: VolumeId, name: &str, record: Versioned<SnapshotRecord>) {
        self.remove_snapshot(volume, name);
        *self.shown.entry(record.record.layer).or_default() += 1;
        self.snapshots.insert((volume, Arc::from(name)), Arc::new(record));
    }

    pub(super) fn remove_snapshot(&mut self, volume: VolumeId, name: &str) {
        let Some(old) = self.snapshots.remove(&(volume, Arc::from(name))) else {
            return;
        };
        let layer = old.record.layer;
        if let Some(count) = self.shown.get_mut(&layer) {
            *count -= 1;
            if *count == 0 {
                self.shown.remove(&layer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Which layers can go, by the shape of the tree.
    use super::*;
    use crate::store::Revision;
    use protocol::FamilyId;

    fn family(layers: &[(u64, u64)], heads: &[u64], sealed: &[u64]) -> Family {
        let mut family = Family::default();
        for (layer, parent) in layers {
            let parent = (*parent != 0).then_some(LayerId(*parent));
            family.put_layer(
                LayerId(*layer),
                LayerRecord {
                    parent,
                    created_ms: 0,
                },
            );
        }
        for (head, id) in heads.iter().zip(1..) {
            let record = VolumeRecord {
                name: format!("v{id}"),
                family: FamilyId(1),
                head: LayerId(*head),
                size: 4096,
                discard_to: None,
                origin: None,
                labels: std::collections::BTreeMap::new(),
                limits: protocol::limits::VolumeLimits::default(),
                created_ms: 0,
                newer: crate::records::NewerFields::default(),
            };
            let revision = Revision(1);
            family.put_volume(
                VolumeId(id),
                Versioned {
                    record,
                    created: revision,
                    modified: revision,
                },
            );
        }
        for layer in sealed {
            let record = SnapshotRecord {
                layer: LayerId(*layer),
                size: 4096,
                group: None,
                created_ms: 0,
            };
            let revision = Revision(1);
            let record = Versioned {
                record,
                created: revision,
                modified: revision,
            };
            family.put_snapshot(VolumeId(1), &format!("s{layer}"), record);
        }
        family
    }

    #[test]
    fn the_heir_of_a_layer_is_the_one_that_it_is_to_be_merged_into() {
        // A row of which two go, a fork, a layer without children, and all layers referred to.
        let trees = [
            family(&[(1, 0), (2, 1), (3, 2), (4, 3)], &[4], &[1]),
            family(&[(1, 0), (2, 1), (3, 2), (4, 2)], &[3, 4], &[]),
            family(&[(1, 0), (2, 1), (3, 1)], &[3], &[]),
            family(&[(1, 0), (2, 1)], &[2], &[1]),
        ];
        for tree in trees {
            let merges = tree.reclaimable().into_iter().filter_map(|what| match what {
                Reclaim::Merge { parent, child } => Some((parent, child)),
                Reclaim::Drop(_) => None,
            });
            let heirs = tree
                .layers()
                .keys()
                .filter_map(|layer| Some((*layer, tree.heir(*layer)?)));
            assert_eq!(
                heirs.collect::<Vec<_>>(),
                merges.collect::<Vec<_>>(),
                "{:?}",
                tree.layers()
            );
        }
    }

    #[test]
    fn a_head_that_became_another_volumes_stays_one_when_the_first_leaves() {
        // Defect guarded: when a volume began to move, what it had looked sealed, and its owner was refused by all disks.
        let mut family = family(&[(1, 0)], &[1], &[]);
        let (first, record) = family.volumes().iter().next().unwrap();
        let (first, record) = (*first, record.as_ref().clone());
        let heir = VolumeId(9);
        family.put_volume(heir, record);
        family.remove_volume(first);
        assert_eq!(family.volume_with_head(LayerId(1)), Some(heir));
        assert!(family.referred().contains(&LayerId(1)));
    }

    #[test]
    fn a_layer_between_snapshots_is_merged_into_the_one_that_continues_it() {
        let family = family(&[(1, 0), (2, 1), (3, 2)], &[3], &[1]);
        let merge = Reclaim::Merge {
            parent: LayerId(2),
            child: LayerId(3),
        };
        assert_eq!(family.reclaimable(), [merge]);
    }

    #[test]
    fn a_row_of_layers_that_go_is_merged_from_its_young_end_so_that_data_moves_once() {
        let family = family(&[(1, 0), (2, 1), (3, 2), (4, 3)], &[4], &[]);
        let merge = Reclaim::Merge {
            parent: LayerId(3),
            child: LayerId(4),
        };
        assert_eq!(family.reclaimable(), [merge]);
    }

    #[test]
    fn a_layer_with_two_children_stays_and_its_parent_can_be_merged_into_it() {
        let family = family(&[(1, 0), (2, 1), (3, 2), (4, 2)], &[3, 4], &[]);
        let merge = Reclaim::Merge {
            parent: LayerId(1),
            child: LayerId(2),
        };
        assert_eq!(family.reclaimable(), [merge]);
    }

    #[test]
    fn a_layer_that_nobody_continues_is_dropped() {
        let family = family(&[(1, 0), (2, 1), (3, 1)], &[3], &[]);
        assert_eq!(family.reclaimable(), [Reclaim::Drop(LayerId(2))]);
    }

    #[test]
    fn a_chain_goes_from_the_head_to_the_first_layer_and_a_circle_does_not_hang() {
        let sound = family(&[(1, 0), (2, 1), (3, 2)], &[3], &[]);
        let chain = sound.chain(LayerId(3)).unwrap();
        assert_eq!(chain.layers(), [LayerId(3), LayerId(2), LayerId(1)]);
        assert!(sound.chain(LayerId(9)).is_none());
        let circle = family(&[(1, 2), (2, 1)], &[2], &[]);
        assert_eq!(circle.chain(LayerId(2)).unwrap().layers().len(), 2);
    }
}
