//! Requests and answers about disks: the units of storage that a `storaged` runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sizes::SizeInput;

/// The largest weight. The smallest, 0, puts nothing new on a disk.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Asks the `storaged` that answers to run one more disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDisk {
    /// An absolute path of a directory: made if it does not exist; a disk's old directory is taken
    /// up again; one with other things in it is refused.
    pub path: String,
    /// The most that the disk may use; all of the file system, less a reserve, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<SizeInput>,
    /// Its share of the data against other disks', 0 to [`WEIGHT_MAX`]; by its capacity if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Asks for other properties of a disk. What is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeDisk {
    /// Its share of the data against other disks', 0 to [`WEIGHT_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Whether it is to be emptied: its data goes to other disks, and it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
    /// That it was put out of its groups because it is slow counts no more: it comes back at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trust: bool,
}

/// Gives a disk up for lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// The disk that goes on where the lost one had the last copy in sync. What was written since it left is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

/// What that came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenUp {
    /// Placement groups that go on with others that were in sync.
    pub without: u64,
    /// Placement groups that go on with the disk that was kept, and lost something.
    pub rolled_back: u64,
}

/// How a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Serves.
    Up,
    /// Is being opened: its log is read.
    Starting,
    /// Does not serve: see the reason.
    Down,
    /// A write or a flush failed, so nothing more is written to it until it is opened again.
    Poisoned,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Its number in the cluster.
    pub id: u32,
    /// The node that runs it.
    pub node: u32,
    /// Its directory on the node.
    pub path: String,
    /// How it is.
    pub state: DiskState,
    /// Why it is not up, and what to do; nothing if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its share of the data.
    pub weight: u32,
    /// Whether it is being emptied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// How many placement groups lie on it.
    #[serde(default)]
    pub groups: u32,
    /// How much it may hold, in bytes; nothing if nobody knows.
    pub capacity: Option<u64>,
    /// How much it holds, in bytes, after snapshots' sharing; nothing if nobody knows.
    pub used: Option<u64>,
    /// What new data may still take, in bytes; nothing if nobody knows.
    #[serde(default)]
    pub free: Option<u64>,
    /// How much of its log waits for a checkpoint, in bytes; nothing if nobody knows.
    pub log_used: Option<u64>,
    /// The size of its log in bytes; nothing if nobody knows.
    pub log_size: Option<u64>,
    /// How requests reach the medium: `io_uring` or `pread`; nothing if nobody knows.
    pub medium: Option<String>,
    /// Why its figures are not known, in a sentence; nothing if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// How old its figures are, in milliseconds: other nodes are not asked anew for each question.
    #[serde(default)]
    pub age_ms: u64,
}

/// Disks, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskList {
    /// In ascending order of their numbers.
    pub disks: Vec<Disk>,
}
