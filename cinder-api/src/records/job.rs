//! What was accepted and is still to be done: written in the same transaction as the state that promises it, so that
//! another process finishes it if this one dies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::table::Record;

/// What is to be done. Every step of it can be done twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Task {
    /// Make a volume that is `creating`.
    CreateVolume {
        /// The volume.
        volume: String,
    },
    /// Delete a volume that is `deleting`, and its snapshots.
    DeleteVolume {
        /// The volume.
        volume: String,
    },
    /// Take over a volume of the storage that is `managing`.
    ManageVolume {
        /// The volume.
        volume: String,
    },
    /// Make a volume larger that is `extending`.
    ExtendVolume {
        /// The volume.
        volume: String,
        /// The new size, in GiB.
        size: u64,
    },
    /// Put a volume back to a snapshot.
    RevertVolume {
        /// The volume.
        volume: String,
        /// The snapshot.
        snapshot: String,
    },
    /// Give a volume another type.
    RetypeVolume {
        /// The volume.
        volume: String,
        /// The type.
        type_id: String,
    },
    /// Have the storage keep to what a volume's type says.
    LimitVolume {
        /// The volume.
        volume: String,
    },
    /// Do so for all volumes of a type, which has other specifications of quality of service, or none any more.
    LimitVolumesOfType {
        /// The type.
        type_id: String,
    },
    /// Do so for all volumes of all types that have certain specifications, for these have changed.
    LimitVolumesOfQos {
        /// The specifications.
        qos: String,
    },
    /// Make a snapshot that is `creating`.
    CreateSnapshot {
        /// The snapshot.
        snapshot: String,
    },
    /// Make the volumes of a group that is made from another one, or from a group's snapshot.
    CreateGroup {
        /// The group.
        group: String,
    },
    /// Delete a group that is `deleting`, when its volumes are gone.
    DeleteGroup {
        /// The group.
        group: String,
    },
    /// Take the snapshots of a group snapshot, at one instant.
    CreateGroupSnapshot {
        /// The group snapshot.
        group_snapshot: String,
    },
    /// Delete a group snapshot with its snapshots.
    DeleteGroupSnapshot {
        /// The group snapshot.
        group_snapshot: String,
    },
    /// Delete a snapshot that is `deleting`.
    DeleteSnapshot {
        /// The snapshot.
        snapshot: String,
    },
    /// Make a volume from an image.
    CreateFromImage {
        /// The volume.
        volume: String,
        /// The image.
        image: ImageOrigin,
    },
    /// Overwrite a volume that is `downloading` with an image.
    ReimageVolume {
        /// The volume.
        volume: String,
        /// The image.
        image: ImageOrigin,
    },
    /// Give an image the bytes of a volume that is `uploading`.
    UploadImage {
        /// The volume.
        volume: String,
        /// The image.
        image: String,
        /// Where Glance is.
        endpoint: String,
        /// How the disk is to lie in the image's bytes, as Glance calls it.
        disk_format: String,
    },
    /// Make a backup that is `creating`.
    CreateBackup {
        /// The backup.
        backup: String,
    },
    /// Write a backup to a volume that is `restoring-backup`, or to a new one.
    RestoreBackup {
        /// The backup.
        backup: String,
        /// The volume.
        volume: String,
    },
    /// Delete a backup that is `deleting`.
    DeleteBackup {
        /// The backup.
        backup: String,
    },
    /// Take over a backup that is stored already, and is `creating`.
    ImportBackup {
        /// The backup.
        backup: String,
    },
}

/// An image that a volume is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOrigin {
    /// A UUID.
    pub id: String,
    /// Where Glance is, as whoever asked finds it.
    pub endpoint: String,
    /// What the volume remembers of it.
    pub metadata: BTreeMap<String, String>,
}

/// What a kind of jobs is called in records and figures.
pub fn kind(task: &Task) -> String {
    let written = serde_json::to_value(task).unwrap_or_default();
    let kind = written.get("kind").and_then(serde_json::Value::as_str);
    kind.unwrap_or_default().to_owned()
}

impl Task {
    /// What it is about.
    pub fn subject(&self) -> &str {
        match self {
            Self::CreateVolume { volume }
            | Self::DeleteVolume { volume }
            | Self::ManageVolume { volume }
            | Self::ExtendVolume { volume, .. }
            | Self::RevertVolume { volume, .. }
            | Self::RetypeVolume { volume, .. }
            | Self::LimitVolume { volume }
            | Self::CreateFromImage { volume, .. }
            | Self::ReimageVolume { volume, .. }
            | Self::UploadImage { volume, .. } => volume,
            Self::CreateGroup { group } | Self::DeleteGroup { group } => group,
            Self::CreateGroupSnapshot { group_snapshot } | Self::DeleteGroupSnapshot { group_snapshot } => {
                group_snapshot
            }
            Self::LimitVolumesOfType { type_id } => type_id,
            Self::LimitVolumesOfQos { qos } => qos,
            Self::CreateSnapshot { snapshot } | Self::DeleteSnapshot { snapshot } => snapshot,
            Self::CreateBackup { backup }
            | Self::RestoreBackup { backup, .. }
            | Self::DeleteBackup { backup }
            | Self::ImportBackup { backup } => backup,
        }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// A UUID.
    pub id: String,
    /// What is to be done.
    pub task: Task,
    /// The project for which it is done.
    pub project_id: String,
    /// The request that it follows from, for logs and messages.
    pub request_id: String,
    /// When it was accepted.
    pub created_at: Instant,
}

impl Record for Job {
    const KIND: &'static str = "job";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> Option<&str> {
        Some(self.task.subject())
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}
