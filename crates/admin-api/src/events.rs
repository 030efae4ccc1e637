//! The event log: what changed, in order, for people and programs that follow along.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The most events in one answer.
pub const EVENTS_PER_PAGE_MAX: u32 = 1000;
/// The longest that an answer is held back for the next event, in milliseconds.
pub const EVENT_WAIT_MS_MAX: u64 = 60_000;

/// Which events to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events after the one with this number. Without it, the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most this many, 1 to [`EVENTS_PER_PAGE_MAX`]; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// If there is none, wait for one, at most this long, up to [`EVENT_WAIT_MS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody asked for it, or it is as it should be.
    Info,
    /// Worth a look.
    Warning,
    /// Something is broken.
    Error,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows by at least one with each event.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// How much it matters.
    pub severity: Severity,
    /// What kind of thing happened, for programs: `volume_created`, `disk_down` and the like.
    pub kind: String,
    /// What it happened to: a volume's name, `volume@snapshot`, `disk-1`, a pool's name.
    pub subject: String,
    /// One sentence.
    pub message: String,
}

/// Some events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// In ascending order.
    pub events: Vec<Event>,
    /// Give this as `after` to get what comes next.
    pub next_after: u64,
    /// Whether events between `after` and the first of these were already forgotten.
    #[serde(default)]
    pub gap: bool,
}
