//! What concerns iSCSI in the map: targets, the volumes that are LUNs, where gateways serve; and persistent
//! reservations, which change for themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{NodeId, VolumeId};

use super::{ClusterMap, Versioned, versioned};
use crate::keys::Key;
use crate::records::{LunOfRecord, PortalRecord, RecordError, ReservationsRecord, TargetRecord};
use crate::store::{Batch, Entry, Event, Revision};

/// What gateways serve, and where. Without reservations.
#[derive(Clone, Debug, Default)]
pub struct Iscsi {
    revision: Revision,
    targets: BTreeMap<String, Versioned<TargetRecord>>,
    luns: BTreeMap<VolumeId, Versioned<LunOfRecord>>,
    portals: BTreeMap<(NodeId, u32), Versioned<PortalRecord>>,
}

/// Two maps of the same records are equal, whether they were read at once or change by change: the revision depends on
/// that.
impl PartialEq for Iscsi {
    fn eq(&self, other: &Self) -> bool {
        self.targets == other.targets && self.luns == other.luns && self.portals == other.portals
    }
}

impl Iscsi {
    /// Grows when anything here changes, and when a volume that is a LUN gets another name or is deleted. May grow
    /// without a change, when the map is read anew.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The targets, by name.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Versioned<TargetRecord>)> {
        self.targets.iter().map(|(name, target)| (name.as_str(), target))
    }

    /// A target.
    pub fn target(&self, name: &str) -> Option<&Versioned<TargetRecord>> {
        self.targets.get(name)
    }

    /// The volumes that are LUNs.
    pub fn luns(&self) -> impl Iterator<Item = (VolumeId, &Versioned<LunOfRecord>)> {
        self.luns.iter().map(|(volume, lun)| (*volume, lun))
    }

    /// The LUN that a volume is.
    pub fn lun_of(&self, volume: VolumeId) -> Option<&Versioned<LunOfRecord>> {
        self.luns.get(&volume)
    }

    /// The gateways, by node and portal group.
    pub fn portals(&self) -> impl Iterator<Item = (NodeId, u32, &Versioned<PortalRecord>)> {
        let portals = self.portals.iter();
        portals.map(|((node, group), portal)| (*node, *group, portal))
    }

    pub(super) fn moved_on(&mut self, revision: Revision) {
        self.revision = revision;
    }
}

impl ClusterMap {
    /// What gateways serve, and where.
    pub fn iscsi(&self) -> &Iscsi {
        &self.iscsi
    }

    /// The persistent reservations of a volume, if there ever were some.
    pub fn reservations(&self, volume: VolumeId) -> Option<&Versioned<ReservationsRecord>> {
        self.reservations.get(&volume)
    }

    pub(super) fn put_iscsi(&mut self, key: Key, entry: &Entry) -> Result<(), RecordError> {
        match key {
            Key::IscsiTarget(name) => {
                let target = versioned(entry)?;
                Arc::make_mut(&mut self.iscsi).targets.insert(name, target);
            }
            Key::IscsiLun(volume) => {
                let lun = versioned(entry)?;
                Arc::make_mut(&mut self.iscsi).luns.insert(volume, lun);
            }
            Key::IscsiPortal(node, group) => {
                let portal = versioned(entry)?;
                Arc::make_mut(&mut self.iscsi)
                    .portals
                    .insert((node, group), portal);
            }
            Key::IscsiReservation(volume) => {
                let reservations = versioned(entry)?;
                Arc::make_mut(&mut self.reservations).insert(volume, reservations);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn delete_iscsi(&mut self, key: &Key) {
        match key {
            Key::IscsiTarget(name) => {
                Arc::make_mut(&mut self.iscsi).targets.remove(name);
            }
            Key::IscsiLun(volume) => {
                Arc::make_mut(&mut self.iscsi).luns.remove(volume);
            }
            Key::IscsiPortal(node, group) => {
                Arc::make_mut(&mut self.iscsi).portals.remove(&(*node, *group));
            }
            Key::IscsiReservation(volume) => {
                Arc::make_mut(&mut self.reservations).remove(volume);
            }
            _ => {}
        }
    }

    /// Whether gateways serve something else, or the same by another name, than before this transaction.
    pub(super) fn serves_otherwise(&self, before: &Self, batch: &Batch) -> bool {
        if !Arc::ptr_eq(&self.iscsi, &before.iscsi) {
            return true;
        }
        // A snapshot of a volume writes its record too, but no name.
        let is_lun = |event: &Event| {
            let key = match event {
                Event::Put(entry) => &entry.key,
                Event::Deleted(key) => key,
            };
            matches!(Key::parse(key), Some(Key::Volume(id)) if self.iscsi.luns.contains_key(&id))
        };
        !Arc::ptr_eq(&self.names, &before.names) && batch.events.iter().any(is_lun)
    }

    pub(super) fn iscsi_was_changed_since(&self, first: Revision) -> bool {
        let mut targets = self.iscsi.targets.values().map(|target| target.modified);
        let mut reservations = self.reservations.values().map(|record| record.modified);
        targets.any(|at| at > first) || reservations.any(|at| at > first)
    }
}

#[cfg(test)]
mod tests;
