//! Figures: what was asked for and how long it took, by volume in a front end and by disk in a `storaged`.
//!
//! All counts grow from the start of their process. Who wants rates asks twice and divides by the time between.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::disks::DiskState;

/// What a front end serves, on its control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FrontEndFigures {
    /// Which kind: `vhost-blk` or `nbd`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// For how long it runs, in seconds.
    pub uptime_s: u64,
    /// The volumes that it has open, by name.
    pub volumes: Vec<VolumeFigures>,
}

/// A volume that a front end has open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VolumeFigures {
    /// The volume's name, or `volume@snapshot`.
    pub volume: String,
    /// Its size in bytes.
    pub size: u64,
    /// The generation that the volume is owned with; 0 for a snapshot.
    pub generation: u64,
    /// Hypervisors or clients that are connected.
    pub clients: u64,
    /// Requests that were taken and are not answered.
    pub in_flight: u64,
    /// What requests wait for, in sentences; empty when nothing waits.
    pub waiting: Vec<String>,
    /// Reads of disks' files that the front end did itself.
    pub direct_reads: u64,
    /// Writes to disks whose data was in shared memory.
    pub shared_writes: u64,
    /// Requests that waited for their turn by the volume's limits, and were begun.
    #[serde(default)]
    pub throttled_requests: u64,
    /// How long these waited, in milliseconds, all together.
    #[serde(default)]
    pub throttled_ms: u64,
    /// What was asked for, by kind.
    pub requests: Vec<RequestFigures>,
}

/// The disks of the node that answers, by number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeFigures {
    /// The node.
    pub node: u32,
    /// Its disks.
    pub disks: Vec<DiskFigures>,
}

/// What a disk does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiskFigures {
    /// Its number in the cluster.
    pub disk: u32,
    /// How it is.
    pub state: DiskState,
    /// Why it is thought to be slower than its peers, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<String>,
    /// How much it holds, in bytes.
    pub used: u64,
    /// How much it may still take, in bytes.
    pub free: u64,
    /// Requests that wait for its answer.
    pub in_flight: u64,
    /// What owners asked for, by kind: `read`, `write`, `recovery`, `other`. From being given to the store to its
    /// answer; of a write, until it is durable.
    pub requests: Vec<RequestFigures>,
    /// What its medium was asked for: `log` (written and flushed), `read`, `write`, `flush`, `other`.
    pub medium: Vec<RequestFigures>,
}

/// What requests of one kind amounted to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestFigures {
    /// What was asked for, in a word: docs/operations/metrics.md has them all.
    pub kind: String,
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes of those that did not fail.
    pub bytes: u64,
    /// Answers that told of a failure.
    pub errors: u64,
    /// How long they took, from being taken to being answered.
    pub latency: Latency,
}

/// How long requests took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// Sum over all requests, in microseconds, to two digits.
    pub sum_us: f64,
    /// The mean, in microseconds.
    pub mean_us: f64,
    /// Half of the requests took no longer, in microseconds.
    pub p50_us: f64,
    /// Nine of ten.
    pub p90_us: f64,
    /// All but one in a hundred.
    pub p99_us: f64,
    /// All but one in a thousand.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// How many took at most so long; cumulative, ascending.
    pub buckets: Vec<Bucket>,
}

/// One step of a cumulative histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// At most so long, in microseconds.
    pub up_to_us: u64,
    /// So many requests.
    pub count: u64,
}
