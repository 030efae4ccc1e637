//! What stores that are asked over HTTP have in common: which answers are worth another attempt, how long that goes on, and
//! what people are told in the end. Which questions there are, each store knows.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::StoreError;
use crate::http::{Download, NoAnswer};

/// How often a question is asked, however patient the operator is. With [`PAUSE_MAX`] between, this is more than an hour.
const ATTEMPTS_MAX: u32 = 512;
/// Between the first attempts; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest time between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// How much of a refusal's body is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 4096;
/// How long sending takes at most, whatever is sent, with the answer.
const SEND_TIME_BASE: Duration = Duration::from_mins(1);
/// What each MiB adds to that: a store that takes less than this is one that stands still.
const SEND_TIME_PER_MIB: Duration = Duration::from_secs(1);
/// Objects that are removed at once.
pub(super) const REMOVALS_AT_ONCE: usize = 8;
/// Names in a page of a listing: what both kinds of store give at most.
pub(super) const PAGE_NAMES: usize = 1000;
/// Pages of a listing: sixteen million chunks and their manifest.
pub(super) const PAGES_MAX: usize = 17_000;

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The next one may do better.
    Again(String),
    /// No other one would.
    No(StoreError),
}

impl From<NoAnswer> for Attempt {
    fn from(error: NoAnswer) -> Self {
        Self::Again(error.to_string())
    }
}

/// What is asked for, as people are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed<'a> {
    /// The object.
    pub(super) name: &'a str,
    /// What is done to it: `written`, `read`, `removed`.
    pub(super) verb: &'static str,
}

/// Attempts at a deed.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    deed: Deed<'a>,
    deadline: Instant,
    pause: Duration,
    left: u32,
}

impl Attempts<'_> {
    /// Waits after an attempt that came to nothing; an error if there is to be no other one.
    pub(super) async fn another(&mut self, after: Attempt) -> Result<(), StoreError> {
        let pause = self.pause_after(after, Instant::now())?;
        sleep(pause).await;
        Ok(())
    }

    fn pause_after(&mut self, attempt: Attempt, now: Instant) -> Result<Duration, StoreError> {
        let why = match attempt {
            Attempt::No(error) => return Err(error),
            Attempt::Again(why) => why,
        };
        let pause = self.pause;
        self.left -= 1;
        if self.left == 0 || now + pause > self.deadline {
            return Err(self.deed.failed(&why));
        }
        warn!(name = self.deed.name, why, "the store of backups is asked again");
        self.pause = PAUSE_MAX.min(pause * 2);
        Ok(pause)
    }
}

impl<'a> Deed<'a> {
    /// What a status means that is not the wanted one.
    pub(super) fn refused(self, status: StatusCode, why: &str) -> Attempt {
        let is_passing = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED
            );
        let said = if why.is_empty() {
            format!("it answers with status {status}")
        } else {
            format!("it answers with status {status}, {why}")
        };
        if is_passing {
            return Attempt::Again(said);
        }
        Attempt::No(self.failed(&said))
    }

    /// That it cannot be done, and why.
    pub(super) fn failed(self, why: &str) -> StoreError {
        StoreError::Remote {
            name: self.name.to_owned(),
            verb: self.verb,
            why: why.to_owned(),
        }
    }

    /// Attempts at it, until patience is at its end. All that is attempted here can be done twice: objects are written whole,
    /// and what is gone stays gone.
    pub(super) fn attempts(self, patience: Duration) -> Attempts<'a> {
        Attempts {
            deed: self,
            deadline: Instant::now() + patience,
            pause: PAUSE_MIN,
            left: ATTEMPTS_MAX,
        }
    }

    /// Reads a body to its end; more than so many bytes are refused.
    pub(super) async fn collect(self, mut body: Download, bytes_max: u64) -> Result<Bytes, Attempt> {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await? {
            if bytes.len() as u64 + piece.len() as u64 > bytes_max {
                let name = self.name.to_owned();
                return Err(Attempt::No(StoreError::TooLong { name, bytes_max }));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }
}

/// How a refusal's body begins.
pub(super) async fn beginning(mut body: Download) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < REFUSAL_BYTES_MAX
        && let Ok(Some(piece)) = body.next().await
    {
        let room = REFUSAL_BYTES_MAX - bytes.len();
        bytes.extend(piece.iter().take(room));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How long so many bytes may be on their way.
pub(super) fn send_time(bytes: usize) -> Duration {
    let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    SEND_TIME_BASE + SEND_TIME_PER_MIB.saturating_mul(mebibytes)
}

#[cfg(test)]
mod tests {
    //! Patience ends, and is not spent on what is certain.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use super::*;

    const DEED: Deed<'_> = Deed {
        name: "a/manifest",
        verb: "written",
    };

    #[test]
    fn a_store_that_is_away_is_asked_until_patience_ends_and_the_reason_is_told() {
        let mut attempts = DEED.attempts(Duration::from_mins(1));
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        let error = loop {
            let away = DEED.refused(StatusCode::SERVICE_UNAVAILABLE, "");
            match attempts.pause_after(away, now) {
                Ok(pause) => {
                    now += pause;
                    pauses.push(pause.as_millis());
                }
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("a/manifest cannot be written"), "{error}");
        assert!(error.contains("503"), "{error}");
        assert_eq!(
            pauses,
            [250, 500, 1000, 2000, 4000, 8000, 8000, 8000, 8000, 8000, 8000]
        );
    }

    #[test]
    fn a_weak_moment_may_pass_and_a_refusal_is_final() {
        let mut attempts = DEED.attempts(Duration::from_mins(1));
        let now = Instant::now();
        let weak = DEED.refused(StatusCode::UNAUTHORIZED, "");
        assert!(attempts.pause_after(weak, now).is_ok());
        let refusal = DEED.refused(StatusCode::FORBIDDEN, "AccessDenied");
        let error = attempts.pause_after(refusal, now).unwrap_err().to_string();
        assert!(error.contains("AccessDenied"), "{error}");
        let mut attempts = DEED.attempts(Duration::ZERO);
        let away = Attempt::Again("no answer".to_owned());
        assert!(
            attempts.pause_after(away, now).is_err(),
            "no patience, no second attempt"
        );
    }
}
