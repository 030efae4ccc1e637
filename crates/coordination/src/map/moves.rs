//! Volumes on their way to another pool, and which nameless volumes have what is not moved yet.

use std::collections::BTreeMap;

use protocol::VolumeId;

use super::Versioned;
use crate::records::MoveRecord;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moves {
    moves: BTreeMap<VolumeId, Versioned<MoveRecord>>,
    /// The volume that moves, by the nameless one: every question for an owner asks that.
    sources: BTreeMap<VolumeId, VolumeId>,
}

impl Moves {
    pub(super) fn of(&self, volume: VolumeId) -> Option<&Versioned<MoveRecord>> {
        self.moves.get(&volume)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (VolumeId, &Versioned<MoveRecord>)> {
        self.moves.iter().map(|(volume, record)| (*volume, record))
    }

    pub(super) fn whole(&self, volume: VolumeId) -> VolumeId {
        self.sources.get(&volume).copied().unwrap_or(volume)
    }

    pub(super) fn put(&mut self, volume: VolumeId, record: Versioned<MoveRecord>) {
        self.delete(volume);
        self.sources.insert(record.record.source, volume);
        self.moves.insert(volume, record);
    }

    pub(super) fn delete(&mut self, volume: VolumeId) {
        if let Some(old) = self.moves.remove(&volume) {
            self.sources.remove(&old.record.source);
        }
    }
}
