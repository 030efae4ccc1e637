//! The cluster of a small world: one group, one volume, a chain of layers, and the map that shows them.

use std::sync::Arc;

use protocol::map::{LayerUse, MapView, VolumeHead};
use protocol::placement::placement_group;
use protocol::profile::Profile;
use protocol::session::{DiskView, GroupView, Slot, SlotState, VolumeView};
use protocol::{
    DiskId, FamilyId, Generation, Interval, LayerChain, LayerId, OBJECT_SIZE, PgId, PoolId, TreeRevision,
    VolumeId,
};
use replication::membership::advance;
use replication::replica::Map;

use super::OBJECTS;

pub(super) const FAMILY: FamilyId = FamilyId(1);
const VOLUME: VolumeId = VolumeId(1);
const POOL: PoolId = PoolId(1);
const LEASE_MS: u64 = 5_000;
/// Layers that a chain has at most, so that merges keep up.
const LAYERS_MAX: usize = 4;

/// One instant of it.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    profile: Profile,
    group: GroupView,
    /// From the oldest to the head.
    layers: Vec<LayerId>,
    next_layer: u64,
    revision: TreeRevision,
}

impl Cluster {
    pub(super) fn new(profile: Profile) -> Self {
        let slot = |shard| Slot {
            disk: DiskId(u32::from(shard) + 1),
            state: SlotState::InSync,
            shard,
            arrived: Interval::default(),
        };
        Self {
            profile,
            group: GroupView {
                pg: placement_group(POOL, 1, FAMILY, 0),
                interval: Interval(1),
                slots: (0..profile.width()).map(slot).collect(),
            },
            layers: vec![LayerId(1)],
            next_layer: 2,
            revision: TreeRevision(1),
        }
    }

    pub(super) fn disks(&self) -> impl Iterator<Item = DiskId> {
        self.group.slots.iter().map(|slot| slot.disk)
    }

    pub(super) fn in_sync(&self) -> Vec<DiskId> {
        let slots = self.group.slots.iter();
        slots
            .filter(|slot| slot.state == SlotState::InSync)
            .map(|slot| slot.disk)
            .collect()
    }

    pub(super) fn shard_of(&self, disk: DiskId) -> u8 {
        self.group.slot_of(disk).map_or(0, |slot| slot.shard)
    }

    pub(super) fn min_in_sync(&self) -> usize {
        usize::from(self.profile.data())
    }

    /// Whether a disk is on its way back to the group.
    pub(super) fn comes_back(&self) -> bool {
        self.group.slots.iter().any(|slot| slot.state.comes_back())
    }

    /// Whether all are in sync.
    pub(super) fn is_whole(&self) -> bool {
        self.in_sync().len() == self.group.slots.len()
    }

    /// A disk wishes another state for its slot; it gets it if nothing has changed meanwhile.
    pub(super) fn swap(&mut self, disk: DiskId, interval: Interval, from: SlotState, to: SlotState) -> bool {
        let slots = advance(&self.group.slots, disk, from, to).filter(|_| interval == self.group.interval);
        if let Some(slots) = slots {
            self.group.slots = slots;
            self.group.interval = Interval(self.group.interval.0 + 1);
            return true;
        }
        false
    }

    /// Another disk takes the place of one that is out.
    pub(super) fn replace(&mut self, old: DiskId, new: DiskId) {
        let now = self.group.interval;
        for slot in self.group.slots.iter_mut().filter(|slot| slot.disk == old) {
            (slot.disk, slot.arrived) = (new, now);
        }
        self.group.interval = Interval(self.group.interval.0 + 1);
    }

    /// A disk leaves the group.
    pub(super) fn leave(&mut self, disk: DiskId) {
        for slot in self.group.slots.iter_mut().filter(|slot| slot.disk == disk) {
            slot.state = SlotState::Down;
        }
        self.group.interval = Interval(self.group.interval.0 + 1);
    }

    pub(super) fn group_id(&self) -> PgId {
        self.group.pg
    }

    pub(super) fn may_seal(&self) -> bool {
        self.layers.len() < LAYERS_MAX
    }

    pub(super) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The head is sealed, and another one begun. No snapshot shows what was sealed.
    pub(super) fn seal(&mut self) {
        self.layers.push(LayerId(self.next_layer));
        self.next_layer += 1;
        self.revision = TreeRevision(self.revision.0 + 1);
    }

    pub(super) fn head(&self) -> LayerId {
        self.layers.last().copied().unwrap_or_default()
    }

    /// The layer that is to be merged now, and into which: the oldest into the next.
    pub(super) fn merging(&self) -> Option<(LayerId, LayerId)> {
        match self.layers[..] {
            [parent, child, ..] => Some((parent, child)),
            _ => None,
        }
    }

    pub(super) fn is_merged(&self) -> bool {
        self.layers.len() == 1
    }

    /// The oldest layer is merged everywhere.
    pub(super) fn merged(&mut self) {
        self.layers.remove(0);
        self.revision = TreeRevision(self.revision.0 + 1);
    }

    pub(super) fn row_chunks(&self) -> u8 {
        self.profile.data()
    }

    pub(super) fn map(&self) -> Map {
        Arc::new(self.clone())
    }

    pub(super) fn view(&self, generation: Generation) -> VolumeView {
        let disk = |disk| DiskView {
            disk,
            addresses: Vec::new(),
            local: false,
        };
        VolumeView {
            volume: VOLUME,
            name: "rows".to_owned(),
            size: OBJECTS * u64::from(OBJECT_SIZE),
            family: FAMILY,
            head: self.head(),
            revision: self.revision,
            generation,
            lease_ms: LEASE_MS,
            read_only: false,
            pool: POOL,
            min_in_sync: self.profile.data(),
            groups: vec![self.group.clone()],
            disks: self.disks().map(disk).collect(),
            cluster: [0; 16],
            moving: None,
            limits: protocol::limits::VolumeLimits::default(),
            erasure: Some(self.profile),
        }
    }
}

impl MapView for Cluster {
    fn group(&self, pg: PgId) -> Option<&GroupView> {
        (pg == self.group.pg).then_some(&self.group)
    }

    fn groups_with(&self, _disk: DiskId) -> Vec<PgId> {
        vec![self.group.pg]
    }

    fn placement(&self, family: FamilyId, index: u32) -> Option<PgId> {
        (family == FAMILY).then(|| placement_group(POOL, 1, family, index))
    }

    fn profile(&self, pg: PgId) -> Option<Profile> {
        (pg == self.group.pg).then_some(self.profile)
    }

    fn volume(&self, volume: VolumeId) -> Option<VolumeHead> {
        (volume == VOLUME).then(|| VolumeHead {
            family: FAMILY,
            head: self.head(),
            revision: self.revision,
        })
    }

    fn revision(&self, family: FamilyId) -> Option<TreeRevision> {
        (family == FAMILY).then_some(self.revision)
    }

    fn layer_use(&self, family: FamilyId, layer: LayerId) -> LayerUse {
        if family != FAMILY || !self.layers.contains(&layer) {
            LayerUse::Unknown
        } else if layer == self.head() {
            LayerUse::Head(VOLUME)
        } else {
            LayerUse::Inner
        }
    }

    fn heir(&self, family: FamilyId, layer: LayerId) -> Option<LayerId> {
        let (parent, child) = self.merging().filter(|_| family == FAMILY)?;
        (parent == layer).then_some(child)
    }

    fn chain(&self, family: FamilyId, layer: LayerId) -> Option<LayerChain> {
        let position = self
            .layers
            .iter()
            .position(|other| *other == layer)
            .filter(|_| family == FAMILY)?;
        Some(LayerChain::new(
            self.layers[..=position].iter().rev().copied().collect(),
        ))
    }
}
