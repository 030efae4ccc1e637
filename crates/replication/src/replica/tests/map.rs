//! The cluster map of these tests: one group, one volume, as the test sets it.

use protocol::map::{LayerUse, MapView, VolumeHead};
use protocol::profile::Profile;
use protocol::session::{GroupView, Slot, SlotState};
use protocol::{DiskId, FamilyId, Interval, LayerChain, LayerId, PgId, TreeRevision, VolumeId};

use super::{FAMILY, PG, VOLUME};

/// One volume in one group, on disk 1 among others.
#[derive(Clone)]
pub(super) struct Map {
    pub(super) group: GroupView,
    /// Groups besides, in which the volume has nothing.
    pub(super) others: Vec<GroupView>,
    pub(super) head: LayerId,
    pub(super) revision: TreeRevision,
    pub(super) old: LayerUse,
    pub(super) profile: Option<Profile>,
}

impl Map {
    pub(super) fn new() -> Self {
        let slots = [1, 2].map(|disk| Slot::of_copy(DiskId(disk), SlotState::InSync));
        let group = GroupView {
            pg: PG,
            interval: Interval(1),
            slots: slots.to_vec(),
        };
        Self {
            group,
            others: Vec::new(),
            head: LayerId(1),
            revision: TreeRevision(1),
            old: LayerUse::Unknown,
            profile: None,
        }
    }

    /// A group of 2+1: disk 1 keeps shard 0, and so on.
    pub(super) fn encoded() -> Self {
        let mut map = Self::new();
        map.profile = Profile::new(2, 1).ok();
        let slots = (0..3).map(|shard| Slot {
            disk: DiskId(u32::from(shard) + 1),
            state: SlotState::InSync,
            shard,
            arrived: Interval::default(),
        });
        map.group.slots = slots.collect();
        map
    }

    /// The head is sealed, and a new one continues it.
    pub(super) fn sealed(&self, old: LayerUse) -> Self {
        Self {
            head: LayerId(2),
            revision: TreeRevision(2),
            old,
            ..self.clone()
        }
    }
}

impl MapView for Map {
    fn group(&self, pg: PgId) -> Option<&GroupView> {
        std::iter::once(&self.group)
            .chain(&self.others)
            .find(|group| group.pg == pg)
    }

    fn groups_with(&self, disk: DiskId) -> Vec<PgId> {
        let here = self.group.slots.iter().any(|slot| slot.disk == disk);
        here.then_some(PG).into_iter().collect()
    }

    fn placement(&self, family: FamilyId, _index: u32) -> Option<PgId> {
        (family == FAMILY).then_some(PG)
    }

    fn profile(&self, _pg: PgId) -> Option<Profile> {
        self.profile
    }

    fn volume(&self, id: VolumeId) -> Option<VolumeHead> {
        (id == VOLUME).then_some(VolumeHead {
            family: FAMILY,
            head: self.head,
            revision: self.revision,
        })
    }

    fn revision(&self, _family: FamilyId) -> Option<TreeRevision> {
        Some(self.revision)
    }

    fn layer_use(&self, _family: FamilyId, layer: LayerId) -> LayerUse {
        if layer == self.head {
            LayerUse::Head(VOLUME)
        } else {
            self.old
        }
    }

    fn heir(&self, _family: FamilyId, layer: LayerId) -> Option<LayerId> {
        (layer < self.head && self.old == LayerUse::Inner).then_some(self.head)
    }

    fn chain(&self, _family: FamilyId, layer: LayerId) -> Option<LayerChain> {
        Some(LayerChain::new((1..=layer.0).rev().map(LayerId).collect()))
    }
}
