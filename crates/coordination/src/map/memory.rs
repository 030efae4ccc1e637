//! A map turned back into the records that it was made of: what a process remembers of the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{PoolId, VolumeId};

use super::{ClusterMap, Family, Pool, Versioned};
use crate::keys::Key;
use crate::records::{FORMAT_OF_MOVES, GroupRecord, NameRecord, encode, encode_as};
use crate::store::{CoordinationError, Revision};

/// A record as the store had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its bytes, as this program writes them.
    pub value: Arc<[u8]>,
    /// The transaction that changed it last, if the map keeps that.
    pub modified: Option<Revision>,
}

/// Records by key.
pub type Records = BTreeMap<String, Remembered>;

impl ClusterMap {
    /// All records that do not go away with a lease, but for the event log, counters and what is read only when it is
    /// asked for.
    pub fn records(&self) -> Result<Records, CoordinationError> {
        let mut records = Records::new();
        for (id, node) in self.nodes.iter() {
            add(&mut records, &Key::Node(*id), node)?;
        }
        for (id, disk) in self.disks.iter() {
            add(&mut records, &Key::Disk(*id), disk)?;
        }
        for (id, pool) in self.pools.iter() {
            add_pool(&mut records, *id, pool)?;
        }
        for (id, family) in self.families.iter() {
            if let Some(record) = family.record() {
                add(&mut records, &Key::Family(*id), record)?;
            }
            for (layer, record) in family.layers() {
                put(&mut records, &Key::Layer(*id, *layer), record, None)?;
            }
            add_family(&mut records, *id, family)?;
        }
        for (name, volume) in self.names.iter() {
            let record = NameRecord { id: volume.0 };
            put(&mut records, &Key::VolumeName(name.to_string()), &record, None)?;
        }
        for (volume, record) in self.moves() {
            add(&mut records, &Key::Move(volume), record)?;
            self.add_moving_head(&mut records, volume)?;
        }
        self.add_iscsi(&mut records)?;
        Ok(records)
    }

    fn add_iscsi(&self, records: &mut Records) -> Result<(), CoordinationError> {
        for (name, target) in self.iscsi.targets() {
            let key = Key::IscsiTarget(name.to_owned());
            remember(records, &key, target.record.encode()?, Some(target.modified));
        }
        for (volume, lun) in self.iscsi.luns() {
            add(records, &Key::IscsiLun(volume), lun)?;
        }
        for (volume, reservations) in self.reservations.iter() {
            add(records, &Key::IscsiReservation(*volume), reservations)?;
        }
        Ok(())
    }

    /// The record of a moving volume's head layer is in a format of its own.
    fn add_moving_head(&self, records: &mut Records, volume: VolumeId) -> Result<(), CoordinationError> {
        let Some((family, record)) = self.volume(volume) else {
            return Ok(());
        };
        let (id, head) = (record.record.family, record.record.head);
        if let Some(layer) = family.layers().get(&head) {
            remember(
                records,
                &Key::Layer(id, head),
                encode_as(FORMAT_OF_MOVES, layer)?,
                None,
            );
        }
        Ok(())
    }

    /// Whether this is a map of the past: the store's numbers were raised since a map at `before`, and nothing here was
    /// changed between the two. So a store looks that was put back to an older state (`docs/decisions/0023-etcd.md`).
    pub fn went_back(&self, before: Revision) -> Result<bool, CoordinationError> {
        /// Half of what numbers are raised by: whoever raised them may have seen less than we.
        const JUMP: u64 = crate::etcd::RAISE_MARGIN / 2;
        let (from, to) = (before.0, before.0.saturating_add(JUMP));
        if self.revision.0 < to {
            return Ok(false);
        }
        let between = |record: &Remembered| record.modified.is_some_and(|at| at.0 > from && at.0 < to);
        Ok(!self.records()?.values().any(between))
    }

    /// Whether two maps have the same records that [`ClusterMap::records`] tells of, and the same nodes up. Costs next to
    /// nothing: what a change leaves alone is shared. May say no of equal ones.
    pub fn remembers_the_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.nodes, &other.nodes)
            && Arc::ptr_eq(&self.disks, &other.disks)
            && Arc::ptr_eq(&self.pools, &other.pools)
            && Arc::ptr_eq(&self.families, &other.families)
            && Arc::ptr_eq(&self.names, &other.names)
            && Arc::ptr_eq(&self.moves, &other.moves)
            && Arc::ptr_eq(&self.iscsi, &other.iscsi)
            && Arc::ptr_eq(&self.reservations, &other.reservations)
            && self.up.keys().eq(other.up.keys())
    }

    /// Whether somebody has used volumes or changed anything but what nodes say of themselves since a map at `first`.
    pub fn was_used_since(&self, first: Revision) -> bool {
        let groups = self.pools.values().flat_map(|pool| pool.groups.values());
        let mut groups = groups.map(|group| group.interval.0);
        let volumes = |family: &Family| {
            let mut volumes = family.volumes().values();
            volumes.any(|volume| volume.modified > first)
        };
        self.owners().values().any(|owner| owner.created > first)
            || groups.any(|changed| changed > first.0)
            || self.families.values().any(|family| volumes(family))
            || self.iscsi_was_changed_since(first)
    }
}

fn add_pool(records: &mut Records, id: PoolId, pool: &Pool) -> Result<(), CoordinationError> {
    if let Some(record) = &pool.record {
        add(records, &Key::Pool(id), record)?;
        let pointer = NameRecord { id: u64::from(id.0) };
        put(
            records,
            &Key::PoolName(record.record.name.clone()),
            &pointer,
            None,
        )?;
    }
    for group in pool.groups.values() {
        let slots = group.slots.clone();
        let modified = Some(Revision(group.interval.0));
        put(records, &Key::Group(group.pg), &GroupRecord { slots }, modified)?;
    }
    Ok(())
}

fn add_family(
    records: &mut Records,
    id: protocol::FamilyId,
    family: &Family,
) -> Result<(), CoordinationError> {
    for (volume, record) in family.volumes() {
        add(records, &Key::Volume(*volume), record)?;
    }
    for ((volume, name), record) in family.snapshots() {
        add(records, &Key::Snapshot(id, *volume, name.to_string()), record)?;
    }
    Ok(())
}

fn add<T: serde::Serialize>(
    records: &mut Records,
    key: &Key,
    versioned: &Versioned<T>,
) -> Result<(), CoordinationError> {
    put(records, key, &versioned.record, Some(versioned.modified))
}

fn put<T: serde::Serialize>(
    records: &mut Records,
    key: &Key,
    record: &T,
    modified: Option<Revision>,
) -> Result<(), CoordinationError> {
    remember(records, key, encode(record)?, modified);
    Ok(())
}

fn remember(records: &mut Records, key: &Key, value: Arc<[u8]>, modified: Option<Revision>) {
    records.insert(key.to_text(), Remembered { value, modified });
}
