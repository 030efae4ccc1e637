//! That a volume of the storage was taken over by a name that is not its own: no two records stand for one volume.

use serde::{Deserialize, Serialize};

use super::table::Record;

/// A volume of the storage that is one of OpenStack's, though the storage had it first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// See [`Managed::key`].
    pub id: String,
    /// OpenStack's volume.
    pub volume_id: String,
}

impl Managed {
    /// The record of a volume that the storage calls so.
    pub fn new(storage_name: &str, volume_id: &str) -> Self {
        Self {
            id: Self::key(storage_name),
            volume_id: volume_id.to_owned(),
        }
    }

    /// The identity of the record.
    pub fn key(storage_name: &str) -> String {
        super::names::key(storage_name)
    }
}

impl Record for Managed {
    const KIND: &'static str = "managed";

    fn id(&self) -> &str {
        &self.id
    }
}
