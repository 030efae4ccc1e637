//! The control socket: what an operator may ask of a running `vhost-blk`, over HTTP on a unix socket.
//!
//! Two ends. The *operator* thread ([`serve`]) speaks HTTP. The data thread ([`desk`]) answers what
//! comes over a bounded channel, between its other work. So whatever an operator does, the data thread
//! parses nothing, and never waits for him.

use std::time::Duration;

use admin_api::vhost::{Announced, DeviceStatus, Hold, Resumed};
use telemetry::Figures;
use telemetry::traffic::Kind;
use tokio::sync::oneshot;

pub mod desk;
mod holds;
mod metrics;
pub mod serve;

/// Orders that may wait for the data thread; those who ask further wait before the channel.
pub const ORDERS_MAX: usize = 8;

/// What the operator thread asks the data thread for. Each has an end of a channel for the answer.
pub enum Order {
    /// How things are.
    Describe(oneshot::Sender<Description>),
    /// Take no request until the limit is over; answer when none is under way.
    Hold {
        /// How long the guest may wait.
        limit: Duration,
        /// The answer.
        done: oneshot::Sender<Result<Hold, HoldError>>,
    },
    /// End a rest, or all.
    Release {
        /// Which.
        hold: Option<u64>,
        /// The answer.
        done: oneshot::Sender<Result<Resumed, HoldError>>,
    },
    /// Read the size anew and tell the guest.
    Announce(oneshot::Sender<Result<Announced, AnnounceError>>),
}

/// How things are, as the data thread tells it: figures as they were counted, for making sense of them takes a
/// while.
#[derive(Clone, Debug)]
pub struct Description {
    status: DeviceStatus,
    figures: Vec<(Kind, Figures)>,
}

impl Description {
    /// The same for people and programs.
    pub fn into_status(self) -> DeviceStatus {
        let figures = self.figures.iter();
        DeviceStatus {
            requests: figures
                .map(|(kind, figures)| figures.summary(kind.name()))
                .collect(),
            ..self.status
        }
    }
}

/// Why requests do not rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// Disks did not answer in time.
    #[error(
        "{in_flight} requests were still under way after {limit_ms} ms, so the guest's requests go on; \
         `waiting` in the answer of GET /v1/stats may say what they wait for"
    )]
    StillUnderWay {
        /// How many.
        in_flight: u64,
        /// For how long they were waited for.
        limit_ms: u128,
    },
    /// Too many want a rest at once.
    #[error("{0} rests are going on already: resume some, or wait until they end")]
    TooMany(usize),
    /// It has ended by itself, or never was.
    #[error(
        "there is no rest {0}: it has ended by itself, so the guest's requests went on before this; what was \
         done meanwhile does not hold one instant"
    )]
    Ended(u64),
}

/// Why the size could not be read anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// There is no connection.
    #[error("storaged is away, so the volume's size cannot be read anew; it is as soon as storaged is back")]
    Away,
    /// Somebody else has just asked the same.
    #[error("the size is being read anew already, for somebody else: ask again")]
    Busy,
    /// The front end does not take the news.
    #[error("the hypervisor cannot be told: {0}")]
    Untold(String),
}
