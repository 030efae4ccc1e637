//! What requests of one kind amounted to.

use std::time::Duration;

use admin_api::figures::RequestFigures;

use crate::latency::Latencies;

/// Counts of one kind of requests. Plain memory of one thread.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes that those asked for which did not fail.
    pub bytes: u64,
    /// Answers that told of a failure.
    pub errors: u64,
    /// How long they took.
    pub latency: Latencies,
}

impl Figures {
    /// One more request was answered, after so long.
    pub fn count(&mut self, bytes: u64, failed: bool, time: Duration) {
        self.requests += 1;
        if failed {
            self.errors += 1;
        } else {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        self.latency.record(time);
    }

    /// The same in the words of the API.
    pub fn summary(&self, kind: &str) -> RequestFigures {
        RequestFigures {
            kind: kind.to_owned(),
            requests: self.requests,
            bytes: self.bytes,
            errors: self.errors,
            latency: self.latency.summary(),
        }
    }
}
