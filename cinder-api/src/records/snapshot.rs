//! A snapshot as OpenStack sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::names::named;
use super::table::{Dated, Record};

named! {
    /// What a snapshot is at, or what has become of it.
    SnapshotStatus {
        /// Being made.
        Creating = "creating",
        /// There.
        Available = "available",
        /// Being deleted.
        Deleting = "deleting",
        /// It could not be made.
        Error = "error",
        /// It could not be deleted.
        ErrorDeleting = "error_deleting",
        /// Being given up to the storage.
        Unmanaging = "unmanaging",
        /// A backup of it is being made.
        BackingUp = "backing-up",
        /// Its volume is being put back to it.
        Restoring = "restoring",
        /// Was deleted. Only a reset makes it so.
        Deleted = "deleted",
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// A UUID.
    pub id: String,
    /// The project that it belongs to.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// For people; need not be unique.
    #[serde(default)]
    pub name: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// The volume that it is a snapshot of.
    pub volume_id: String,
    /// The volume's size when it was made, in GiB.
    pub size: u64,
    /// What it is at.
    pub status: SnapshotStatus,
    /// How far it is: "100%".
    pub progress: String,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its record changed last.
    #[serde(default)]
    pub updated_at: Option<Instant>,
    /// The user's.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The volume's type when it was made: its quota is counted there.
    pub type_id: String,
    /// The group snapshot that it is a part of.
    #[serde(default)]
    pub group_snapshot_id: Option<String>,
    /// Whether it counts against its project's quota.
    pub consumes_quota: bool,
    /// What it is called in the storage.
    pub storage_name: String,
}

impl Record for Snapshot {
    const KIND: &'static str = "snapshot";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }

    fn parent(&self) -> Option<&str> {
        Some(&self.volume_id)
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

impl Dated for Snapshot {
    fn set_updated(&mut self, at: Instant) {
        self.updated_at = Some(at);
    }
}
