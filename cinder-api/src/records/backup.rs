//! A backup of a volume as OpenStack sees it. Where its bytes are, [`crate::backup`] knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::names::named;
use super::table::{Dated, Record};

named! {
    /// What a backup is at, or what has become of it.
    BackupStatus {
        /// Being made.
        Creating = "creating",
        /// There.
        Available = "available",
        /// Being deleted.
        Deleting = "deleting",
        /// Was deleted. Only a reset makes it so.
        Deleted = "deleted",
        /// A volume is being made of it.
        Restoring = "restoring",
        /// It could not be made.
        Error = "error",
        /// It could not be deleted.
        ErrorDeleting = "error_deleting",
    }
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
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
    /// The volume that it is of. It may be gone.
    pub volume_id: String,
    /// The snapshot that it is of, if one was named.
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// The backup that it is the difference to.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// The volume's size in GiB.
    pub size: u64,
    /// What it is at.
    pub status: BackupStatus,
    /// Why it is in an error.
    #[serde(default)]
    pub fail_reason: Option<String>,
    /// The container that it lies in. In a directory it is a label, and no more.
    #[serde(default)]
    pub container: Option<String>,
    /// The zone that was asked for.
    pub availability_zone: String,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its record changed last.
    #[serde(default)]
    pub updated_at: Option<Instant>,
    /// The moment whose bytes it holds.
    pub data_timestamp: Instant,
    /// The user's.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// How many objects were stored for it.
    #[serde(default)]
    pub object_count: u64,
    /// Under which UUID it is stored: another one than its own if it was imported under a new one.
    pub stored_as: String,
    /// Under which UUIDs others are stored whose objects it needs.
    #[serde(default)]
    pub rests_on: Vec<String>,
    /// What a volume that is made of it is to be like.
    pub source: Source,
    /// Its own copy of the volume's key, if its bytes are encrypted.
    #[serde(default)]
    pub encryption_key_id: Option<String>,
}

/// What is kept of a volume besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its type.
    #[serde(default)]
    pub type_id: Option<String>,
    /// Whether a server could boot from it.
    #[serde(default)]
    pub bootable: bool,
    /// The user's.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What was known of the image that it was made from.
    #[serde(default)]
    pub image_metadata: BTreeMap<String, String>,
}

impl Record for Backup {
    const KIND: &'static str = "backup";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }

    fn parent(&self) -> Option<&str> {
        self.parent_id.as_deref()
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

impl Dated for Backup {
    fn set_updated(&mut self, at: Instant) {
        self.updated_at = Some(at);
    }
}
