//! A volume as OpenStack sees it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::names::named;
use super::table::{Dated, Record};

named! {
    /// What a volume is at, or what has become of it.
    VolumeStatus {
        /// Being made.
        Creating = "creating",
        /// There, and nobody uses it.
        Available = "available",
        /// Held for a server.
        Reserved = "reserved",
        /// On its way to a server.
        Attaching = "attaching",
        /// On its way from a server.
        Detaching = "detaching",
        /// A server uses it.
        InUse = "in-use",
        /// An operator keeps it for himself.
        Maintenance = "maintenance",
        /// Being deleted.
        Deleting = "deleting",
        /// Offered to another project.
        AwaitingTransfer = "awaiting-transfer",
        /// It could not be made.
        Error = "error",
        /// It could not be deleted.
        ErrorDeleting = "error_deleting",
        /// A backup of it is being made.
        BackingUp = "backing-up",
        /// A backup is being written to it.
        RestoringBackup = "restoring-backup",
        /// Its backup failed.
        ErrorBackingUp = "error_backing-up",
        /// A backup could not be written to it.
        ErrorRestoring = "error_restoring",
        /// It could not be made larger.
        ErrorExtending = "error_extending",
        /// An image is being written to it.
        Downloading = "downloading",
        /// It is being made an image.
        Uploading = "uploading",
        /// It is being given another type.
        Retyping = "retyping",
        /// It is being made larger.
        Extending = "extending",
        /// It is being put back to a snapshot.
        Reverting = "reverting",
        /// It could not be taken over from the storage.
        ErrorManaging = "error_managing",
        /// It is being taken over from the storage.
        Managing = "managing",
        /// It is being given up to the storage.
        Unmanaging = "unmanaging",
    }
}

impl VolumeStatus {
    /// Its name as the API shows it: two of them are nobody's business.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Managing => Self::Creating.as_str(),
            Self::ErrorManaging => Self::Error.as_str(),
            other => other.as_str(),
        }
    }
}

named! {
    /// Whether a volume, or an attachment, is attached.
    AttachStatus {
        /// A server uses it.
        Attached = "attached",
        /// No server uses it.
        Detached = "detached",
        /// Held for a server that does not use it yet.
        Reserved = "reserved",
        /// On its way to a server.
        Attaching = "attaching",
        /// It could not be attached.
        ErrorAttaching = "error_attaching",
        /// It could not be detached.
        ErrorDetaching = "error_detaching",
        /// Was deleted.
        Deleted = "deleted",
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
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
    /// In GiB.
    pub size: u64,
    /// What it is at.
    pub status: VolumeStatus,
    /// The status to return to after what it is at now.
    #[serde(default)]
    pub previous_status: Option<VolumeStatus>,
    /// Whether a server uses it.
    pub attach_status: AttachStatus,
    /// How far it is on its way to another pool.
    #[serde(default)]
    pub migration_status: Option<String>,
    /// The zone that it was asked to be in.
    pub availability_zone: String,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its record changed last, by a request or by what follows from one.
    #[serde(default)]
    pub updated_at: Option<Instant>,
    /// Its type.
    pub type_id: String,
    /// The snapshot that it was made from.
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// The volume that it was made from.
    #[serde(default)]
    pub source_id: Option<String>,
    /// The user's.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What is known of the image that it was made from.
    #[serde(default)]
    pub image_metadata: BTreeMap<String, String>,
    /// Whether servers are told not to write; nothing if nobody ever said.
    #[serde(default)]
    pub read_only: Option<bool>,
    /// Whether a server can boot from it.
    #[serde(default)]
    pub bootable: bool,
    /// Whether several servers may use it at once.
    #[serde(default)]
    pub multiattach: bool,
    /// The group that it is in.
    #[serde(default)]
    pub group_id: Option<String>,
    /// The key in the key store, of an encrypted one.
    #[serde(default)]
    pub encryption_key_id: Option<String>,
    /// Whether it counts against its project's quota.
    pub consumes_quota: bool,
    /// The pool of the storage that it lies in; nothing until one was chosen.
    #[serde(default)]
    pub pool: Option<String>,
    /// What it is called in the storage. Nothing if no pool was found for it, so that the storage was never asked for it.
    pub storage_name: String,
    /// With what hosts show a target of it who they are; nothing until one was to reach it. Always the same: a host that loses
    /// its connection logs in with what it knows.
    #[serde(default)]
    pub chap: Option<Chap>,
}

/// A name and a secret. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chap {
    /// The name.
    pub user: String,
    /// The secret.
    pub secret: String,
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chap")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Chap {
    /// New ones, from the system's random numbers: 122 bits of them.
    pub fn generate() -> Self {
        let text = || uuid::Uuid::new_v4().simple().to_string();
        Self {
            user: text().chars().take(20).collect(),
            secret: text(),
        }
    }
}

impl Record for Volume {
    const KIND: &'static str = "volume";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

impl Dated for Volume {
    fn set_updated(&mut self, at: Instant) {
        self.updated_at = Some(at);
    }
}
