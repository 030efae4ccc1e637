//! What disks judge requests by, looked up in the map.

use protocol::map::{LayerUse, MapView, VolumeHead};
use protocol::placement::placement_group;
use protocol::profile::Profile;
use protocol::session::GroupView;
use protocol::{DiskId, FamilyId, LayerChain, LayerId, PgId, TreeRevision, VolumeId};

use super::ClusterMap;

impl MapView for ClusterMap {
    fn group(&self, pg: PgId) -> Option<&GroupView> {
        self.group(pg)
    }

    fn groups_with(&self, disk: DiskId) -> Vec<PgId> {
        self.groups_on(disk).map(|(pg, _)| pg).collect()
    }

    fn placement(&self, family: FamilyId, index: u32) -> Option<PgId> {
        let pool = self.family(family)?.pool()?;
        let groups = self.pool(pool)?.record.groups;
        Some(placement_group(pool, groups, family, index))
    }

    fn profile(&self, pg: PgId) -> Option<Profile> {
        self.pool(pg.pool)?.record.redundancy.profile()
    }

    fn volume(&self, id: VolumeId) -> Option<VolumeHead> {
        let (_, volume) = self.volume(id)?;
        let revision = self.tree_revision(id)?;
        Some(VolumeHead {
            family: volume.record.family,
            head: volume.record.head,
            revision,
        })
    }

    fn revision(&self, family: FamilyId) -> Option<TreeRevision> {
        self.family(family).map(|family| family.merged())
    }

    fn layer_use(&self, family: FamilyId, layer: LayerId) -> LayerUse {
        let Some(family) = self.family(family) else {
            return LayerUse::Unknown;
        };
        match family.volume_with_head(layer) {
            Some(volume) => LayerUse::Head(volume),
            None if family.is_shown(layer) => LayerUse::Sealed,
            None if family.layers().contains_key(&layer) => LayerUse::Inner,
            None => LayerUse::Unknown,
        }
    }

    fn heir(&self, family: FamilyId, layer: LayerId) -> Option<LayerId> {
        self.family(family)?.heir(layer)
    }

    fn chain(&self, family: FamilyId, layer: LayerId) -> Option<LayerChain> {
        self.family(family)?.chain(layer)
    }
}
