//! Requests and answers of a `vhost-blk`'s control socket: one attached volume, as its front end sees it.
//!
//! | method | path | asks with | answers with |
//! | --- | --- | --- | --- |
//! | GET | `/v1/stats` | | [`DeviceStatus`] |
//! | GET | `/v1/figures` | | [`FrontEndFigures`](crate::figures::FrontEndFigures) |
//! | GET | `/v1/metrics` | | Prometheus text |
//! | POST | `/v1/drain` | [`Drain`] | [`Hold`] |
//! | POST | `/v1/resume` | [`Resume`] | [`Resumed`] |
//! | POST | `/v1/resize` | | [`Announced`] |
//! | GET | `/v1/openapi.json` | | the OpenAPI document |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::figures::RequestFigures;

/// Everything about the attached volume, in one answer.
pub const STATS: &str = "/v1/stats";
/// Prometheus text.
pub const METRICS: &str = "/v1/metrics";
/// Lets the guest's requests rest.
pub const DRAIN: &str = "/v1/drain";
/// Ends such a rest.
pub const RESUME: &str = "/v1/resume";
/// Tells the guest the volume's size anew.
pub const RESIZE: &str = "/v1/resize";
/// The OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";

/// The longest rest, in milliseconds: ten minutes. A guest waits that long without harm, its users hardly.
pub const HOLD_MS_MAX: u64 = 600_000;
/// The most rests at once, of as many askers.
pub const HOLDS_MAX: usize = 8;

/// An attached volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceStatus {
    /// The program's version.
    pub version: String,
    /// For how long it runs, in seconds.
    pub uptime_s: u64,
    /// The volume's name, or `volume@snapshot`.
    pub volume: String,
    /// Its size in bytes, as the guest is told.
    pub size: u64,
    /// The smallest request of the guest, in bytes.
    pub block_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The generation that the volume is owned with; 0 for a snapshot.
    pub generation: u64,
    /// Whether a hypervisor is connected.
    pub connected: bool,
    /// How many queues the guest may use.
    pub queues: u16,
    /// The queues that run.
    pub rings: Vec<RingStatus>,
    /// Requests that were taken and are not answered, over all queues.
    pub in_flight: u64,
    /// Rests that are going on. While there is one, no request is taken.
    pub holds: Vec<HoldStatus>,
    /// What requests wait for, in sentences; empty when nothing waits.
    pub waiting: Vec<String>,
    /// Reads of disks' files that this process did itself, since it began.
    pub direct_reads: u64,
    /// Writes to disks whose data was in shared memory, since it began.
    pub shared_writes: u64,
    /// Requests that waited for their turn by the volume's limits, and were begun.
    #[serde(default)]
    pub throttled_requests: u64,
    /// How long these waited, in milliseconds, all together.
    #[serde(default)]
    pub throttled_ms: u64,
    /// Which system calls are let through: `enforce`, `log` or `off`.
    pub seccomp: String,
    /// What was asked for, by kind: all kinds, also those that nothing was asked of.
    pub requests: Vec<RequestFigures>,
}

/// A queue that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RingStatus {
    /// Its number.
    pub index: u16,
    /// Requests that were taken from it and are not answered.
    pub in_flight: u64,
    /// The guest has put nonsense into it; it is left alone until it is set up anew.
    pub broken: bool,
}

/// A rest that is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldStatus {
    /// Its number.
    pub hold: u64,
    /// When it ends by itself, in milliseconds from now.
    pub left_ms: u64,
}

/// Asks that no request is taken, and for an answer when none is under way. What the guest asks for
/// meanwhile stays in its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The guest's requests wait at most so long, counted from the asking: then the rest ends by itself. From
    /// 1 to [`HOLD_MS_MAX`] milliseconds.
    pub limit_ms: u64,
}

/// No request is under way, and none will be taken until the rest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// The rest's number, for [`Resume`].
    pub hold: u64,
    /// How long it took until nothing was under way, in milliseconds.
    pub drained_ms: u64,
    /// When the rest ends by itself, in milliseconds from now.
    pub left_ms: u64,
}

/// Asks for the end of a rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Which. If it has ended by itself already the answer is an error: whatever was to happen while
    /// nothing changed was not covered to its end. Without a number all rests end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
}

/// Rests have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resumed {
    /// Which.
    pub ended: Vec<u64>,
    /// Rests of others that go on: while there are some, no request is taken.
    pub left: Vec<u64>,
}

/// The size was read anew, and the guest was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Announced {
    /// The size in bytes.
    pub size: u64,
    /// Whether there was a hypervisor to tell, which tells the guest.
    pub told: bool,
}
