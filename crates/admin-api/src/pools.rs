//! Requests and answers about pools: a redundancy policy over a set of disks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most copies that a pool keeps. More would slow every write for faults that do not happen.
pub const COPIES_MAX: u32 = 7;
/// The most placement groups of a pool. All of them go to a front end in one frame of 256 KiB when it
/// opens a volume, and into one transaction when the pool is made.
pub const GROUPS_MAX: u32 = 512;

/// How far apart the copies of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureDomain {
    /// On distinct disks.
    Disk,
    /// On distinct nodes.
    Node,
    /// In distinct zones.
    Zone,
}

/// Asks for a new pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePool {
    /// Its name.
    pub name: String,
    /// How many copies of each block, 1 to [`COPIES_MAX`], on as many disks. 3 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// Erasure coding in place of copies: how many shards of data and of parity, as in `4+2`. 2 to 16, and 1 to 4; a
    /// group lies on as many disks as both together, and as many as there is parity may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasure: Option<String>,
    /// With fewer copies in sync than this, writes wait: 1 to `copies`. If left out, one copy may be
    /// away of three and more, none of two. With erasure coding the same of shards: never fewer than those of data; if
    /// left out, one more than those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_in_sync: Option<u32>,
    /// Into how many groups the pool is split, 1 to [`GROUPS_MAX`]; chosen by the number of disks if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<u32>,
    /// The disks to use, by number; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<u32>>,
    /// How far apart copies are. On distinct nodes if left out, once more than one node has disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_domain: Option<FailureDomain>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Never given to another pool.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Copies of each block; with erasure coding, of what is not in rows yet.
    pub copies: u32,
    /// How many shards of data and of parity a row has, as in `4+2`; nothing where blocks are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasure: Option<String>,
    /// With fewer copies, or shards, in sync than this, writes wait.
    pub min_in_sync: u32,
    /// How far apart copies are.
    pub failure_domain: FailureDomain,
    /// How many placement groups it has.
    pub groups: u32,
    /// How many of them have all copies in sync.
    pub groups_healthy: u32,
    /// The disks that hold it, by number.
    pub disks: Vec<u32>,
    /// How many volumes lie in it.
    pub volumes: u64,
    /// The sum of the volumes' sizes, in bytes.
    pub provisioned: u64,
    /// What can still be written before the fullest disk is full, in bytes, after copies and parity; an estimate. Nothing if no
    /// disk tells; see [`Pool::unknown`].
    pub available: Option<u64>,
    /// What it could hold if its disks held nothing, in bytes, after copies; an estimate in the same way.
    #[serde(default)]
    pub total: Option<u64>,
    /// Which disks do not tell, in a sentence: with them, less may be available. Nothing if all do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// How old the oldest of the disks' figures is, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
}

/// Pools, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// In ascending order of their names.
    pub pools: Vec<Pool>,
}
