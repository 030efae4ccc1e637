//! What an owner or a reader on a node must know of the map, as it is sent to them. Who may have it is not
//! decided here.

use protocol::limits::VolumeLimits;
use protocol::session::{DiskView, GroupView, MovingView, VolumeView};
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
        view.limits = record.limits;
        view.head = record.head;
        view.generation = generation;
        view.lease_ms = lease_ms;
        view.moving = match self.moving(volume).map(|moving| moving.record) {
            Some(moving) => Some(MovingView {
                source: Box::new(self.source_view(moving.source, node, &view)?),
                moved: moving.moved,
                rate: moving.rate,
            }),
            None => None,
        };
        Some(view)
    }

    /// What a volume that moves has not moved yet: with the size and the owner of the whole.
    fn source_view(&self, source: VolumeId, node: NodeId, whole: &VolumeView) -> Option<VolumeView> {
        let mut view = self.bare_view(source, node)?;
        view.head = self.volume(source)?.1.record.head;
        view.name.clone_from(&whole.name);
        view.size = whole.size;
        view.generation = whole.generation;
        view.lease_ms = whole.lease_ms;
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
            erasure: record.redundancy.profile(),
            moving: None,
            limits: VolumeLimits::default(),
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

#[cfg(test)]
mod tests {
    //! An owner is told how its pool encodes rows, and so is whoever merges layers; of copies nothing is said.
    use std::num::NonZeroU64;

    use protocol::limits::Rate;
    use protocol::profile::Profile;
    use protocol::session::SlotState;
    use protocol::{FamilyId, PgId, PoolId};

    use super::*;
    use crate::keys::Key;
    use crate::layout::first_slots;
    use crate::placement::{Candidate, WHOLE};
    use crate::records::{
        FailureDomain, FamilyRecord, GroupRecord, NewerFields, PoolRecord, Redundancy, VolumeRecord, encode,
    };
    use crate::store::{Entry, Range, Revision};

    const POOL: PoolId = PoolId(1);
    const PG: PgId = PgId {
        pool: POOL,
        number: 0,
    };

    fn entry(key: &Key, record: &impl serde::Serialize) -> Entry {
        Entry {
            key: key.to_text(),
            value: encode(record).unwrap(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        }
    }

    /// A pool with one group on nodes of one disk each, and a volume in it.
    fn map(redundancy: Redundancy) -> ClusterMap {
        limited_map(redundancy, VolumeLimits::default())
    }

    /// The same with limits of the volume.
    fn limited_map(redundancy: Redundancy, limits: VolumeLimits) -> ClusterMap {
        let candidate = |disk| Candidate {
            disk: DiskId(disk),
            weight: 1,
            share: WHOLE,
            node: disk,
            zone: String::new(),
        };
        let candidates: Vec<Candidate> = (1..=8).map(candidate).collect();
        let pool = PoolRecord {
            name: "main".to_owned(),
            redundancy,
            min_in_sync: redundancy.min_in_sync_default(),
            groups: 1,
            failure_domain: FailureDomain::Node,
            disks: None,
            closing: false,
            created_ms: 1,
            newer: NewerFields::default(),
        };
        let group = GroupRecord {
            slots: first_slots(PG, redundancy, FailureDomain::Node, &candidates),
        };
        let volume = VolumeRecord {
            name: "v".to_owned(),
            family: FamilyId(1),
            head: LayerId(1),
            size: 4096,
            discard_to: None,
            origin: None,
            labels: std::collections::BTreeMap::new(),
            limits,
            created_ms: 1,
            newer: NewerFields::default(),
        };
        let entries = vec![
            entry(&Key::Pool(POOL), &pool),
            entry(&Key::Group(PG), &group),
            entry(&Key::Family(FamilyId(1)), &FamilyRecord { pool: POOL }),
            entry(&Key::Volume(VolumeId(1)), &volume),
        ];
        let revision = Revision(1);
        ClusterMap::build(&Range { entries, revision }).unwrap()
    }

    #[test]
    fn a_volume_in_a_pool_of_rows_says_how_they_are_encoded() {
        let profile = Profile::new(4, 2).unwrap();
        let map = map(Redundancy::Encoded { profile });
        let view = map.volume_view(VolumeId(1), NodeId(1), Generation(1), 1).unwrap();
        assert_eq!((view.erasure, view.min_in_sync), (Some(profile), 5));
        let slots = view.groups.iter().flat_map(|group| &group.slots);
        let shards: Vec<(u8, SlotState)> = slots.map(|slot| (slot.shard, slot.state)).collect();
        assert_eq!(shards, [0, 1, 2, 3, 4, 5].map(|shard| (shard, SlotState::InSync)));
        assert_eq!(map.row_chunks(FamilyId(1)), Some(4));
        assert_eq!(map.row_chunks(FamilyId(2)), None);
    }

    #[test]
    fn an_owner_is_told_the_limits_and_what_has_none_says_nothing_of_them() {
        let told = |limits| {
            let map = limited_map(Redundancy::Replicated { copies: 3 }, limits);
            map.volume_view(VolumeId(1), NodeId(1), Generation(1), 1).unwrap()
        };
        let said = serde_json::to_string(&told(VolumeLimits::default())).unwrap();
        assert!(!said.contains("limits"), "{said}");
        let mut limits = VolumeLimits::default();
        limits.operations.read = NonZeroU64::new(9).map(|per_second| Rate {
            per_second,
            burst: None,
        });
        let view = told(limits);
        assert_eq!(view.limits, limits);
        let said = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<VolumeView>(&said).unwrap(), view);
    }

    #[test]
    fn a_volume_in_a_pool_of_copies_says_nothing_of_rows() {
        let map = map(Redundancy::Replicated { copies: 3 });
        let view = map.volume_view(VolumeId(1), NodeId(1), Generation(1), 1).unwrap();
        assert_eq!(view.erasure, None);
        let said = serde_json::to_string(&view).unwrap();
        assert!(!said.contains("erasure") && !said.contains("shard"), "{said}");
        assert_eq!(map.row_chunks(FamilyId(1)), None);
    }
}
