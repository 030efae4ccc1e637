//! The cluster as one value: all records at one revision, ready to be asked.
//!
//! A [`ClusterMap`] never changes; [`ClusterMap::apply`] makes the next one and shares with it what
//! stayed the same, so that handing a map to every disk and session costs nothing. Whoever
//! wants to change something reads the map and makes a transaction on the condition that what it
//! read still stands. This module does not talk to the store: [`keeper`] does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use protocol::profile::Profile;
use protocol::session::{GroupView, Slot};
use protocol::{DiskId, FamilyId, Generation, Interval, NodeId, PgId, PoolId, TreeRevision, VolumeId};

use crate::keys::Key;
use crate::records::{
    self, AttachedRecord, DiskRecord, GroupRecord, MoveRecord, NodeRecord, NodeUpRecord, OwnerRecord,
    PoolRecord, RecordError, ReservationsRecord, SchemaRecord, SlowRecord, SnapshotRecord, VolumeRecord,
};
use crate::store::{Batch, Entry, Event, Range, Revision};

mod attachments;
pub mod family;
pub mod iscsi;
mod judging;
pub mod keeper;
mod memory;
mod moves;
mod places;

mod view;
pub mod wishes;

pub use family::Family;
pub use iscsi::Iscsi;
pub use keeper::{MapKeeper, MapWatch};
pub use memory::{Records, Remembered};
use moves::Moves;
pub use wishes::Wishes;

/// A record, and which transactions made and changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The record.
    pub record: T,
    /// The transaction that made its key.
    pub created: Revision,
    /// The transaction that changed it last.
    pub modified: Revision,
}

/// A pool with its placement groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its record; nothing while the transaction that deletes the pool is being read.
    record: Option<Versioned<PoolRecord>>,
    groups: BTreeMap<u32, GroupView>,
}

/// All records at one revision. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterMap {
    revision: Revision,
    schema: Option<Arc<SchemaRecord>>,
    nodes: Arc<BTreeMap<NodeId, Versioned<NodeRecord>>>,
    up: Arc<BTreeMap<NodeId, Versioned<NodeUpRecord>>>,
    disks: Arc<BTreeMap<DiskId, Versioned<DiskRecord>>>,
    slow: Arc<BTreeMap<DiskId, Versioned<SlowRecord>>>,
    pools: Arc<BTreeMap<PoolId, Pool>>,
    families: Arc<BTreeMap<FamilyId, Arc<Family>>>,
    volumes: Arc<HashMap<VolumeId, FamilyId>>,
    names: Arc<BTreeMap<Arc<str>, VolumeId>>,
    moves: Arc<Moves>,
    owners: Arc<BTreeMap<VolumeId, Versioned<OwnerRecord>>>,
    attached: Arc<BTreeMap<(VolumeId, u64), Versioned<AttachedRecord>>>,
    wishes: Arc<Wishes>,
    recalls: Arc<BTreeSet<NodeId>>,
    iscsi: Arc<Iscsi>,
    reservations: Arc<BTreeMap<VolumeId, Versioned<ReservationsRecord>>>,
}

impl ClusterMap {
    /// The map of everything that stands under [`crate::keys::ROOT`].
    pub fn build(range: &Range) -> Result<Self, RecordError> {
        let mut map = Self {
            revision: range.revision,
            ..Self::default()
        };
        for entry in &range.entries {
            map.put(entry)?;
        }
        Arc::make_mut(&mut map.iscsi).moved_on(range.revision);
        Ok(map)
    }

    /// The map after one more transaction.
    pub fn apply(&self, batch: &Batch) -> Result<Self, RecordError> {
        let mut map = self.clone();
        for event in &batch.events {
            match event {
                Event::Put(entry) => map.put(entry)?,
                Event::Deleted(key) => map.delete(key),
            }
        }
        map.revision = batch.revision;
        if map.serves_otherwise(self, batch) {
            Arc::make_mut(&mut map.iscsi).moved_on(batch.revision);
        }
        Ok(map)
    }

    /// What the map is at.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The cluster's identity; all zero before there is one.
    pub fn cluster(&self) -> [u8; 16] {
        self.schema.as_ref().map_or([0; 16], |schema| schema.cluster)
    }

    /// The nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Versioned<NodeRecord>> {
        &self.nodes
    }

    /// What a node is called, for people; its number if it has no name.
    pub fn node_name(&self, id: NodeId) -> String {
        let known = self.nodes.get(&id).map(|node| node.record.name.clone());
        known
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| id.to_string())
    }

    /// The nodes that are up.
    pub fn up(&self) -> &BTreeMap<NodeId, Versioned<NodeUpRecord>> {
        &self.up
    }

    /// Whether somebody remembers records that the store has lost: what is here is not to be believed.
    pub fn recalls(&self) -> bool {
        !self.recalls.is_empty()
    }

    /// What nodes ask of each other.
    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// The disks.
    pub fn disks(&self) -> &BTreeMap<DiskId, Versioned<DiskRecord>> {
        &self.disks
    }

    /// The disks that were put out of their groups because they are slow.
    pub fn slow(&self) -> &BTreeMap<DiskId, Versioned<SlowRecord>> {
        &self.slow
    }

    /// The pools, in the order of their identities.
    pub fn pools(&self) -> impl Iterator<Item = (PoolId, &Versioned<PoolRecord>)> {
        self.pools
            .iter()
            .filter_map(|(id, pool)| Some((*id, pool.record.as_ref()?)))
    }

    /// A pool.
    pub fn pool(&self, id: PoolId) -> Option<&Versioned<PoolRecord>> {
        self.pools.get(&id)?.record.as_ref()
    }

    /// A pool by its name.
    pub fn pool_named(&self, name: &str) -> Option<(PoolId, &Versioned<PoolRecord>)> {
        self.pools().find(|(_, pool)| pool.record.name == name)
    }

    /// A placement group. Its interval is the revision that changed its record last.
    pub fn group(&self, pg: PgId) -> Option<&GroupView> {
        self.pools.get(&pg.pool)?.groups.get(&pg.number)
    }

    /// The placement groups of a pool, ascending.
    pub fn groups(&self, pool: PoolId) -> impl Iterator<Item = &GroupView> {
        self.pools
            .get(&pool)
            .into_iter()
            .flat_map(|pool| pool.groups.values())
    }

    /// A disk that comes back to a group of a pool, if there is one.
    pub fn comes_back(&self, pool: PoolId) -> Option<DiskId> {
        let slots = self.groups(pool).flat_map(|group| &group.slots);
        let mut coming = slots.filter(|slot| slot.state.comes_back());
        coming.next().map(|slot| slot.disk)
    }

    /// When one of a pool's groups changed last.
    pub fn groups_changed(&self, pool: PoolId) -> Revision {
        let intervals = self.groups(pool).map(|group| group.interval.0);
        Revision(intervals.max().unwrap_or(0))
    }

    /// The disks of a node.
    pub fn disks_on(&self, node: NodeId) -> impl Iterator<Item = (DiskId, &Versioned<DiskRecord>)> {
        let disks = self.disks.iter().map(|(id, disk)| (*id, disk));
        disks.filter(move |(_, disk)| disk.record.node == node)
    }

    /// All placement groups that have a slot on a disk, with that slot.
    pub fn groups_on(&self, disk: DiskId) -> impl Iterator<Item = (PgId, Slot)> {
        self.pools
            .keys()
            .flat_map(|pool| self.groups(*pool))
            .filter_map(move |group| {
                let slot = group.slot_of(disk)?;
                Some((group.pg, *slot))
            })
    }

    /// The families.
    pub fn families(&self) -> impl Iterator<Item = (FamilyId, &Arc<Family>)> {
        self.families.iter().map(|(id, family)| (*id, family))
    }

    /// A family.
    pub fn family(&self, id: FamilyId) -> Option<&Arc<Family>> {
        self.families.get(&id)
    }

    /// How many chunks of data a row of a family has, if its pool encodes rows: k.
    pub fn row_chunks(&self, id: FamilyId) -> Option<u8> {
        let pool = self.family(id)?.pool()?;
        self.pool(pool)?.record.redundancy.profile().map(Profile::data)
    }

    /// A volume, with its family.
    pub fn volume(&self, id: VolumeId) -> Option<(&Arc<Family>, &Versioned<VolumeRecord>)> {
        let family = self.families.get(self.volumes.get(&id)?)?;
        Some((family, family.volumes().get(&id)?.as_ref()))
    }

    /// The revision of a volume's chain of layers: what its requests name. It grows when the volume's
    /// own record changes and when layers of its family are merged; what other volumes of the
    /// family do, many clones of one image for example, does not disturb it.
    pub fn tree_revision(&self, id: VolumeId) -> Option<TreeRevision> {
        let (family, volume) = self.volume(id)?;
        Some(TreeRevision(volume.modified.0).max(family.merged()))
    }

    /// A volume's identity by its name.
    pub fn volume_named(&self, name: &str) -> Option<VolumeId> {
        self.names.get(name).copied()
    }

    /// The names of all volumes, in order.
    pub fn volume_names(&self) -> impl Iterator<Item = (&str, VolumeId)> {
        self.names.iter().map(|(name, id)| (name.as_ref(), *id))
    }

    /// A volume's snapshot.
    pub fn snapshot(&self, volume: VolumeId, name: &str) -> Option<&Versioned<SnapshotRecord>> {
        self.volume(volume)?.0.snapshot(volume, name)
    }

    /// How a volume moves to another pool, if it does.
    pub fn moving(&self, volume: VolumeId) -> Option<&Versioned<MoveRecord>> {
        self.moves.of(volume)
    }

    /// All volumes that move to another pool.
    pub fn moves(&self) -> impl Iterator<Item = (VolumeId, &Versioned<MoveRecord>)> {
        self.moves.all()
    }

    /// The volume that people know: of the nameless one that has what is not moved yet, the one that moves.
    pub fn whole(&self, volume: VolumeId) -> VolumeId {
        self.moves.whole(volume)
    }

    /// Who has a volume open.
    pub fn owner(&self, volume: VolumeId) -> Option<&Versioned<OwnerRecord>> {
        self.owners.get(&self.whole(volume))
    }

    /// All owners.
    pub fn owners(&self) -> &BTreeMap<VolumeId, Versioned<OwnerRecord>> {
        &self.owners
    }

    /// The generation of the present owner.
    pub fn generation(&self, volume: VolumeId) -> Option<Generation> {
        self.owner(volume).map(|owner| Generation(owner.created.0))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), RecordError> {
        match Key::parse(&entry.key) {
            Some(Key::Schema) => self.schema = Some(Arc::new(records::decode(entry)?)),
            Some(Key::Node(id)) => {
                Arc::make_mut(&mut self.nodes).insert(id, versioned(entry)?);
            }
            Some(Key::NodeUp(id)) => {
                Arc::make_mut(&mut self.up).insert(id, versioned(entry)?);
            }
            Some(Key::Disk(id)) => {
                Arc::make_mut(&mut self.disks).insert(id, versioned(entry)?);
            }
            Some(Key::Slow(id)) => {
                Arc::make_mut(&mut self.slow).insert(id, versioned(entry)?);
            }
            Some(Key::Pool(id)) => self.pool_entry(id).record = Some(versioned(entry)?),
            Some(Key::Group(pg)) => {
                let GroupRecord { slots } = records::decode(entry)?;
                let group = GroupView {
                    pg,
                    interval: Interval(entry.modified.0),
                    slots,
                };
                self.pool_entry(pg.pool).groups.insert(pg.number, group);
            }
            Some(Key::Family(id)) => self.family_entry(id).put_record(versioned(entry)?),
            Some(Key::Layer(family, layer)) => {
                self.family_entry(family)
                    .put_layer(layer, records::decode(entry)?);
            }
            Some(Key::Snapshot(family, volume, name)) => {
                self.family_entry(family)
                    .put_snapshot(volume, &name, versioned(entry)?);
            }
            Some(Key::Volume(id)) => {
                let record: Versioned<VolumeRecord> = versioned(entry)?;
                let family = record.record.family;
                let before = Arc::make_mut(&mut self.volumes).insert(id, family);
                // One that begins to move to another pool leaves its family.
                if let Some(before) = before.filter(|before| *before != family) {
                    self.family_entry(before).remove_volume(id);
                    self.forget_empty_family(before);
                }
                self.family_entry(family).put_volume(id, record);
            }
            Some(Key::VolumeName(name)) => {
                let pointer: records::NameRecord = records::decode(entry)?;
                Arc::make_mut(&mut self.names).insert(name.into(), VolumeId(pointer.id));
            }
            Some(Key::Move(volume)) => Arc::make_mut(&mut self.moves).put(volume, versioned(entry)?),
            Some(Key::Owner(volume)) => {
                Arc::make_mut(&mut self.owners).insert(volume, versioned(entry)?);
            }
            Some(Key::Attached(volume, number)) => {
                Arc::make_mut(&mut self.attached).insert((volume, number), versioned(entry)?);
            }
            Some(key @ (Key::Want(_) | Key::Rest(_) | Key::Rested(_) | Key::Reclaimed(..))) => {
                Arc::make_mut(&mut self.wishes).put(&key, entry)?;
            }
            Some(Key::Recall(node)) => {
                Arc::make_mut(&mut self.recalls).insert(node);
            }
            Some(
                key @ (Key::IscsiTarget(_)
                | Key::IscsiLun(_)
                | Key::IscsiPortal(..)
                | Key::IscsiReservation(_)),
            ) => self.put_iscsi(key, entry)?,
            // Read from the store when they are asked for; and what a later version may add.
            Some(
                Key::Authority
                | Key::JoinToken(_)
                | Key::AccessToken(_)
                | Key::Counter(_)
                | Key::PoolName(_)
                | Key::LastOwner(_)
                | Key::Event(_),
            )
            | None => {}
        }
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        match Key::parse(key) {
            Some(Key::Schema) => self.schema = None,
            Some(Key::Node(id)) => {
                Arc::make_mut(&mut self.nodes).remove(&id);
            }
            Some(Key::NodeUp(id)) => {
                Arc::make_mut(&mut self.up).remove(&id);
            }
            Some(Key::Disk(id)) => {
                Arc::make_mut(&mut self.disks).remove(&id);
            }
            Some(Key::Slow(id)) => {
                Arc::make_mut(&mut self.slow).remove(&id);
            }
            Some(Key::Pool(id)) => {
                self.pool_entry(id).record = None;
                self.forget_empty_pool(id);
            }
            Some(Key::Group(pg)) => {
                self.pool_entry(pg.pool).groups.remove(&pg.number);
                self.forget_empty_pool(pg.pool);
            }
            Some(Key::Family(id)) => {
                self.family_entry(id).remove_record();
                self.forget_empty_family(id);
            }
            Some(Key::Layer(family, layer)) => {
                self.family_entry(family).remove_layer(layer);
                self.forget_empty_family(family);
            }
            Some(Key::Snapshot(family, volume, name)) => {
                self.family_entry(family).remove_snapshot(volume, &name);
                self.forget_empty_family(family);
            }
            Some(Key::Volume(id)) => {
                if let Some(family) = Arc::make_mut(&mut self.volumes).remove(&id) {
                    self.family_entry(family).remove_volume(id);
                    self.forget_empty_family(family);
                }
            }
            Some(Key::VolumeName(name)) => {
                Arc::make_mut(&mut self.names).remove(name.as_str());
            }
            Some(Key::Move(volume)) => Arc::make_mut(&mut self.moves).delete(volume),
            Some(Key::Owner(volume)) => {
                Arc::make_mut(&mut self.owners).remove(&volume);
            }
            Some(Key::Attached(volume, number)) => {
                Arc::make_mut(&mut self.attached).remove(&(volume, number));
            }
            Some(key @ (Key::Want(_) | Key::Rest(_) | Key::Rested(_) | Key::Reclaimed(..))) => {
                Arc::make_mut(&mut self.wishes).delete(&key);
            }
            Some(Key::Recall(node)) => {
                Arc::make_mut(&mut self.recalls).remove(&node);
            }
            Some(
                key @ (Key::IscsiTarget(_)
                | Key::IscsiLun(_)
                | Key::IscsiPortal(..)
                | Key::IscsiReservation(_)),
            ) => self.delete_iscsi(&key),
            Some(
                Key::Authority
                | Key::JoinToken(_)
                | Key::AccessToken(_)
                | Key::Counter(_)
                | Key::PoolName(_)
                | Key::LastOwner(_)
                | Key::Event(_),
            )
            | None => {}
        }
    }

    fn pool_entry(&mut self, id: PoolId) -> &mut Pool {
        let empty = || Pool {
            record: None,
            groups: BTreeMap::new(),
        };
        Arc::make_mut(&mut self.pools).entry(id).or_insert_with(empty)
    }

    fn forget_empty_pool(&mut self, id: PoolId) {
        let pools = Arc::make_mut(&mut self.pools);
        if pools
            .get(&id)
            .is_some_and(|pool| pool.record.is_none() && pool.groups.is_empty())
        {
            pools.remove(&id);
        }
    }

    fn family_entry(&mut self, id: FamilyId) -> &mut Family {
        Arc::make_mut(Arc::make_mut(&mut self.families).entry(id).or_default())
    }

    fn forget_empty_family(&mut self, id: FamilyId) {
        let families = Arc::make_mut(&mut self.families);
        if families.get(&id).is_some_and(|family| family.is_empty()) {
            families.remove(&id);
        }
    }
}

fn versioned<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<Versioned<T>, RecordError> {
    Ok(Versioned {
        record: records::decode(entry)?,
        created: entry.created,
        modified: entry.modified,
    })
}
