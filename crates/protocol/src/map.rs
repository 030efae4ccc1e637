//! What a replica must know of the cluster map to judge a request, at once and without I/O.
//!
//! The coordination crate's map implements this in production, and the simulator's in tests. Nothing
//! here knows how the map is stored or how its changes arrive.

use crate::id::{DiskId, FamilyId, LayerId, PgId, TreeRevision, VolumeId};
use crate::layer::LayerChain;
use crate::profile::Profile;
use crate::session::GroupView;

/// What the map says of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeHead {
    /// Whose layers it has.
    pub family: FamilyId,
    /// The only layer that takes its writes.
    pub head: LayerId,
    /// The revision of the volume's chain of layers: what its owner's and its readers' requests name.
    pub revision: TreeRevision,
}

/// Who may write to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerUse {
    /// It is the head of this volume.
    Head(VolumeId),
    /// Nobody: it is sealed, and a snapshot shows it.
    Sealed,
    /// Nobody, and no snapshot shows it: only younger layers read through it. It never becomes
    /// anything else again, and may be merged or dropped.
    Inner,
    /// The map does not have it: it is gone, or so new that the map is behind.
    Unknown,
}

/// One instant of the cluster map. Cheap lookups: each is made for every request.
pub trait MapView {
    /// A placement group's record, or nothing if there is no such group.
    fn group(&self, pg: PgId) -> Option<&GroupView>;

    /// The placement groups that have a slot on a disk.
    fn groups_with(&self, disk: DiskId) -> Vec<PgId>;

    /// The placement group of one 4 MiB range of a family, or nothing if there is no such family.
    fn placement(&self, family: FamilyId, index: u32) -> Option<PgId>;

    /// How a group's pool encodes rows; nothing if it keeps copies, or there is no such group.
    fn profile(&self, pg: PgId) -> Option<Profile>;

    /// A volume, or nothing if there is none of this identity.
    fn volume(&self, volume: VolumeId) -> Option<VolumeHead>;

    /// The revision of a family's layer tree, or nothing if there is no such family.
    fn revision(&self, family: FamilyId) -> Option<TreeRevision>;

    /// Who may write to a layer.
    fn layer_use(&self, family: FamilyId, layer: LayerId) -> LayerUse;

    /// The layer into which this one is to be merged now; nothing if it is not to be, or not yet, or the map does
    /// not have it.
    fn heir(&self, family: FamilyId, layer: LayerId) -> Option<LayerId>;

    /// A layer and its ancestors, newest first, with those that are being merged or dropped still
    /// in their places; or nothing if there is no such layer.
    fn chain(&self, family: FamilyId, layer: LayerId) -> Option<LayerChain>;
}
