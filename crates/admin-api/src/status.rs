//! The state of the whole, in one answer: is it well, and if not, what waits for what.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What runs, and which API it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The program's version.
    pub storaged: String,
    /// The versions of the API that it serves, newest first: `v1`.
    pub api: Vec<String>,
}

/// How well the whole is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All disks serve and all copies are in sync.
    Ok,
    /// I/O goes on, but something needs attention.
    Degraded,
    /// Some I/O waits.
    Waiting,
}

/// A disk that comes back to its placement groups, or is filled for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    /// Which disk.
    pub disk: u32,
    /// Placement groups that it lacked when it began.
    pub groups: u64,
    /// Those that it still lacks.
    pub groups_left: u64,
    /// What was copied to it so far, in bytes; known of disks of the node that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<u64>,
    /// How fast, in bytes a second, over the last half minute; known of disks of the node that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
    /// How long it will take, in seconds, if the rest goes as what was done so far; nothing before any of it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// The state of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// How well it is.
    pub health: Health,
    /// One sentence.
    pub summary: String,
    /// One sentence for everything that is not as it should be: what waits for what, and what to do.
    pub reasons: Vec<String>,
    /// Disks that come back to their placement groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<Recovery>,
    /// The program's version.
    pub version: String,
    /// The cluster's identity: 32 hexadecimal digits.
    pub cluster: String,
    /// The node that answers.
    pub node: u32,
    /// For how long this `storaged` runs, in seconds.
    pub uptime_s: u64,
    /// Disks that serve.
    pub disks_up: u32,
    /// All disks.
    pub disks: u32,
    /// Pools.
    pub pools: u32,
    /// Volumes.
    pub volumes: u64,
    /// Volumes that are open for writing.
    pub volumes_open: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Tasks that run.
    pub tasks_running: u32,
    /// Sum of the disks' capacities, in bytes, of those that tell; nothing if none does.
    pub capacity: Option<u64>,
    /// Sum of what the disks hold, in bytes, of those that tell; nothing if none does.
    pub used: Option<u64>,
    /// Disks that do not tell how full they are, and are in neither sum.
    #[serde(default)]
    pub disks_unknown: u32,
}
