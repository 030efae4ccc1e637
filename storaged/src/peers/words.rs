//! What nodes ask of each other, and the answers: JSON, between programs of neighbouring versions. Whoever reads passes
//! over fields that he does not know, and new fields have defaults, so that an upgrade goes node by node.

use admin_api::disks::DiskState;
use admin_api::scrubs::ScrubReport;
use admin_api::tasks::TaskState;
use serde::{Deserialize, Serialize};

/// GET: how the disks of the node are: [`NodeDisks`].
pub const DISKS: &str = "/peers/v1/disks";
/// POST: begin to look after the copies of a volume that are on this node's disks: [`PartOrder`], [`PartBegun`].
pub const CHECKS: &str = "/peers/v1/checks";
/// GET: how far that is: [`PartOfCheck`].
pub const CHECK: &str = "/peers/v1/checks/{task}";

/// GET: what the layers of a family take on the disks of the node: [`NodeUsage`].
pub const USAGE: &str = "/peers/v1/usage/{family}";

/// What a family takes on a node's disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// Layers with their bytes, over all disks that answer. Those that take nothing are left out.
    pub layers: Vec<(u64, u64)>,
    /// Disks that do not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u32>,
}

/// A node's disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDisks {
    /// In ascending order of their numbers.
    pub disks: Vec<DiskReport>,
}

/// How a disk is, as its node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its number.
    pub disk: u32,
    /// How it is.
    pub state: DiskState,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is thought to be slower than its peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<String>,
    /// How much it may hold, in bytes, if that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// How full it is; nothing if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    /// What is not as it should be with a disk that serves, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
}

/// How full a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// What it holds, in bytes.
    pub used: u64,
    /// What new data may still take, in bytes.
    pub free: u64,
    /// How much of its log waits for a checkpoint, in bytes.
    pub log_used: u64,
    /// The length of its log, in bytes.
    pub log_size: u64,
    /// How requests reach the medium.
    pub medium: String,
}

/// Asks a node for its part of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOrder {
    /// The volume's name.
    pub volume: String,
    /// Which snapshot of it, if not what it shows now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Whether all blocks are read.
    pub deep: bool,
    /// The asker's map is at this revision: so far the node has to know the volume, too.
    pub revision: u64,
}

/// It was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartBegun {
    /// The node's number for it.
    pub task: u64,
}

/// How far a node's part of a check is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOfCheck {
    /// Whether it goes on.
    pub state: TaskState,
    /// Why it failed, if it did.
    pub message: String,
    /// Copies of objects that are to be looked at, as far as is known.
    pub total: u64,
    /// What was found so far.
    pub report: ScrubReport,
}
