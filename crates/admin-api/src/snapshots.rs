//! Requests and answers about snapshots: named, frozen states of volumes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for a snapshot of a volume, live and atomic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// The snapshot's name: unique among the volume's.
    pub name: String,
}

/// Asks for one snapshot each of several volumes, all at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGroupSnapshot {
    /// The volumes' names: 1 to [`GROUP_VOLUMES_MAX`], all different.
    pub volumes: Vec<String>,
    /// The name that each of the snapshots gets.
    pub name: String,
}

/// The most volumes in one group snapshot. All of them wait while the slowest comes to rest, and one
/// transaction of the coordination store holds them all (etcd's default limit is 128 operations).
pub const GROUP_VOLUMES_MAX: usize = 32;

/// Asks for a new volume that begins with a snapshot's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneSnapshot {
    /// The new volume's name.
    pub name: String,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// The layer that it froze: never given to anything else.
    pub id: u64,
    /// The volume's name.
    pub volume: String,
    /// Its own name.
    pub name: String,
    /// The volume's size when it was made, in bytes.
    pub size: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// By volume's name, then oldest first.
    pub snapshots: Vec<Snapshot>,
}
