//! What an owner or a reader on a node must know of the map, as it is sent to them. Who may have it is not
//! decided here.

use protocol::session::{DiskView, GroupView, VolumeView};
use protocol::{DiskId, Generation, LayerId, NodeId, VolumeId};

use super::ClusterMap;

impl ClusterMap {
    /// All that an owner on `node` must know of a volume.
    pub fn volume_view(
        &self,
        volume: VolumeId,
        node: NodeId,
        generation: Generation,
        lease_ms: u64,
    ) -> Option<VolumeView> {
        let record = &self.volume(volume)?.1.record;
        let mut view = self.bare_view(volume, node)?;
        view.name.clone_from(&record.name);
        view.size = record.size;
        view.head = record.head;
        view.generation = generation;
        view.lease_ms = lease_ms;
        Some(view)
    }

    /// All that a reader on `node` must know of a snapshot.
    pub fn snapshot_view(&self, volume: VolumeId, snapshot: &str, node: NodeId) -> Option<VolumeView> {
        let (family, record) = self.volume(volume)?;
        let sealed = &family.snapshot(volume, snapshot)?.record;
        let mut view = self.bare_view(volume, node)?;
        view.name = format!("{}@{snapshot}", record.record.name);
        view.size = sealed.size;
        view.head = sealed.layer;
        view.read_only = true;
        Some(view)
    }

    fn bare_view(&self, volume: VolumeId, node: NodeId) -> Option<VolumeView> {
        let (family, volume_record) = self.volume(volume)?;
        let pool = family.pool()?;
        let record = &self.pool(pool)?.record;
        let groups: Vec<GroupView> = self.groups(pool).cloned().collect();
        let mut disks: Vec<DiskId> = groups
            .iter()
            .flat_map(|g| g.slots.iter().map(|s| s.disk))
            .collect();
        disks.sort_unstable();
        disks.dedup();
        Some(VolumeView {
            volume,
            name: String::new(),
            size: 0,
            family: volume_record.record.family,
            head: LayerId(0),
            revision: self.tree_revision(volume)?,
            generation: Generation(0),
            lease_ms: 0,
            read_only: false,
            pool,
            min_in_sync: record.min_in_sync,
            disks: disks
                .into_iter()
                .filter_map(|disk| self.disk_view(disk, node))
                .collect(),
            groups,
            cluster: self.cluster(),
            erasure: None,
        })
    }

    /// How a disk is reached from `node`.
    pub fn disk_view(&self, disk: DiskId, node: NodeId) -> Option<DiskView> {
        let record = &self.disks.get(&disk)?.record;
        let local = record.node == node;
        // A path means something on the disk's own node only; on another one somebody else may listen there.
        let reachable = |address: &&String| local || !address.starts_with("unix:");
        Some(DiskView {
            disk,
            addresses: record.addresses.iter().filter(reachable).cloned().collect(),
            local,
        })
    }
}
