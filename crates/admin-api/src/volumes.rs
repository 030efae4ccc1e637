//! Requests and answers about volumes: thin virtual disks with a name and a size.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::limits::VolumeLimits;
use crate::sizes::SizeInput;

/// Asks for a new, empty, thin volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// Its name: see [`crate::names`].
    pub name: String,
    /// Its size, rounded up to 4 KiB.
    pub size: SizeInput,
    /// The pool to put it in; may be left out while there is one pool only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// How much may be asked for in a second; as much as can be done if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<VolumeLimits>,
}

/// Asks for another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameVolume {
    /// The new name.
    pub name: String,
}

/// Asks for another size. A volume that is in use grows live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The new size, rounded up to 4 KiB.
    pub size: SizeInput,
    /// Whether data beyond a smaller size may be lost. Without it a smaller size is refused.
    #[serde(default)]
    pub allow_shrink: bool,
}

/// Asks to put a volume back to one of its snapshots. What was written since is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackVolume {
    /// The snapshot's name.
    pub snapshot: String,
}

/// Asks to move a volume to another pool, also while a guest uses it; or how fast one goes on that is being moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetypeVolume {
    /// The pool to move it to.
    pub pool: String,
    /// The most bytes that are copied a second, at least 1 MiB; 100 MiB unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// Asks to take a volume from whoever has it open. What its guest has not had acknowledged may be lost to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeOverVolume {
    /// Only if the owner still has this generation: the one that the operator has looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// How to delete a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteVolumeQuery {
    /// Whether the volume's snapshots go too. Without it a volume that has some is not deleted.
    /// Clones of the snapshots stay as they are in any case.
    #[serde(default)]
    pub with_snapshots: bool,
}

/// Which volumes to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VolumeQuery {
    /// Only those of this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// What to tell of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VolumeInfoQuery {
    /// Whether to tell what it takes on disks, too. All nodes are asked for that, and one that is silent is waited for.
    #[serde(default)]
    pub space: bool,
}

/// Who has a volume open for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Owner {
    /// What the process calls itself, for people.
    pub client: String,
    /// The generation of its ownership: grows with every change of owner.
    pub generation: u64,
}

/// The snapshot that a clone was made from. It may have been deleted since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Origin {
    /// The volume's name at that time.
    pub volume: String,
    /// The snapshot's name at that time.
    pub snapshot: String,
}

/// A volume's way from one pool to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moving {
    /// The pool that it comes from.
    pub from: String,
    /// How many bytes of it, from its start, are moved. All, when it is done.
    pub moved: u64,
    /// The most bytes that are copied a second.
    pub rate: u64,
    /// When it was begun, in milliseconds since 1970.
    pub started_ms: u64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Never given to another volume.
    pub id: u64,
    /// May change by a rename.
    pub name: String,
    /// The pool that it lies in; while it moves, the one that it goes to.
    pub pool: String,
    /// How far it is on its way to its pool, if it is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
    /// Size in bytes, as the guest sees it.
    pub size: u64,
    /// How much may be asked for in a second, if it is limited.
    #[serde(
        default,
        skip_serializing_if = "VolumeLimits::is_empty",
        deserialize_with = "crate::limits::of_answer"
    )]
    pub limits: VolumeLimits,
    /// What is written on it: see [`crate::labels`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The volumes and snapshots that share data have the same number.
    pub family: u64,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// What it was cloned from, if it is a clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Who has it open for writing, if anybody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The serial number that guests see.
    pub serial: String,
    /// What it takes on disks. Only told to who asks for it: see [`VolumeInfoQuery`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
}

/// What a volume takes on all disks, in bytes: every copy, or data and parity, is counted, in steps of 64 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Space {
    /// What was written since the newest snapshot, or since the volume was made: its alone.
    pub own: u64,
    /// What it has in common with snapshots and clones.
    pub shared: u64,
    /// Which disks are left out, and why, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// The answer to a change of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeAnswer {
    /// The volume after the change.
    pub volume: Volume,
    /// What the asker should know, in sentences: for example that the size was rounded up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The number of the task that gives space back in the background, if there is anything to give back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
}

/// Volumes, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// In ascending order of their names.
    pub volumes: Vec<Volume>,
}

/// All that shares data with a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tree {
    /// The family's number.
    pub family: u64,
    /// Every node after its parent, oldest first among brothers.
    pub nodes: Vec<TreeNode>,
    /// Which disks are left out of the bytes, and why, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// A snapshot or the present state of a volume, in a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeNode {
    /// Unique in the tree.
    pub id: u64,
    /// The node that this one continues; nothing for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// What it is.
    pub kind: TreeNodeKind,
    /// The volume's name, if the node is a volume or a volume's snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The snapshot's name, if the node is a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub created_ms: u64,
    /// What of it differs from its parent, in bytes that it takes on all disks.
    #[serde(default)]
    pub bytes: u64,
}

/// What a [`TreeNode`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TreeNodeKind {
    /// The present state of a volume.
    Volume,
    /// A snapshot.
    Snapshot,
    /// Was deleted, and is still needed by those that continue it, or not reclaimed yet.
    Deleted,
}
