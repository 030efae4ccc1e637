//! Who shares volumes. What sharing means is not known here.

use protocol::VolumeId;

use super::{ClusterMap, Versioned};
use crate::records::AttachedRecord;

impl ClusterMap {
    /// All front ends that share a volume, by their volumes and numbers.
    pub fn all_attached(&self) -> impl Iterator<Item = (VolumeId, u64, &Versioned<AttachedRecord>)> {
        let all = self.attached.iter();
        all.map(|((volume, number), attached)| (*volume, *number, attached))
    }

    /// The front ends that share a volume, by their numbers.
    pub fn attached(&self, volume: VolumeId) -> impl Iterator<Item = (u64, &Versioned<AttachedRecord>)> {
        let all = self.attached.range((volume, 0)..=(volume, u64::MAX));
        all.map(|((_, number), attached)| (*number, attached))
    }
}
