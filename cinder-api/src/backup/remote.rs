//! What stores that are asked over HTTP have in common: which answers are worth another attempt, how long that goes on, what
//! people are told in the end, and how all that lies below an object is removed. How a question is asked, each store knows
//! ([`Remote`]).

use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use md5::{Digest as _, Md5};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{ObjectStore, StoreError};
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
const REMOVALS_AT_ONCE: usize = 8;
/// Names in a page of a listing: what both kinds of store give at most.
pub(super) const PAGE_NAMES: usize = 1000;
/// Pages of a listing: sixteen million chunks and their manifest.
const PAGES_MAX: usize = 17_000;

/// What a request without a body sends.
pub(super) const NOTHING: Bytes = Bytes::new();

/// The MD5 of an object's bytes, with which a store checks what has arrived.
pub(super) type Fingerprint = [u8; 16];

/// Part of a listing.
pub(super) struct Page {
    /// What the store calls the objects in it.
    pub(super) keys: Vec<String>,
    /// What the part after it is asked for with, if there is one.
    pub(super) next: Option<String>,
}

/// A store that is asked over HTTP: each question once, and each may be asked twice.
#[async_trait]
pub(super) trait Remote: Send + Sync + std::fmt::Debug {
    /// How long it is asked again when it does not answer.
    fn patience(&self) -> Duration;

    /// What the store calls an object.
    fn key(&self, name: &str) -> String;

    /// Writes an object whole.
    async fn put_once(&self, deed: Deed<'_>, bytes: Bytes, digest: &Fingerprint) -> Result<(), Attempt>;

    /// Reads an object whole.
    async fn get_once(&self, deed: Deed<'_>, bytes_max: u64) -> Result<Bytes, Attempt>;

    /// Removes the object that the deed names by its key; one that is gone is removed.
    async fn remove_once(&self, deed: Deed<'_>) -> Result<(), Attempt>;

    /// Lists keys that begin with something.
    async fn page_once(&self, deed: Deed<'_>, prefix: &str, next: Option<&str>) -> Result<Page, Attempt>;

    /// Removes an object by its key, as often as it takes.
    async fn remove_key(&self, key: &str) -> Result<(), StoreError> {
        let deed = Deed {
            name: key,
            verb: "removed",
        };
        let mut attempts = deed.attempts(self.patience());
        loop {
            match self.remove_once(deed).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.another(error).await?,
            }
        }
    }

    /// Lists keys that begin with something, asked for as often as it takes.
    async fn page(&self, deed: Deed<'_>, prefix: &str, next: Option<&str>) -> Result<Page, StoreError> {
        let mut attempts = deed.attempts(self.patience());
        loop {
            match self.page_once(deed, prefix, next).await {
                Ok(page) => return Ok(page),
                Err(error) => attempts.another(error).await?,
            }
        }
    }
}

#[async_trait]
impl<R: Remote> ObjectStore for R {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let deed = Deed {
            name,
            verb: "written",
        };
        let digest = Md5::digest(&bytes).into();
        let mut attempts = deed.attempts(self.patience());
        loop {
            match self.put_once(deed, bytes.clone(), &digest).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.another(error).await?,
            }
        }
    }

    async fn get(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let deed = Deed { name, verb: "read" };
        let mut attempts = deed.attempts(self.patience());
        loop {
            match self.get_once(deed, bytes_max).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => attempts.another(error).await?,
            }
        }
    }

    /// What such a store has confirmed, it has.
    async fn settle(&self, _below: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let key = self.key(name);
        self.remove_key(&key).await?;
        let deed = Deed {
            name,
            verb: "removed",
        };
        let prefix = format!("{key}/");
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let page = self.page(deed, &prefix, next.as_deref()).await?;
            let removals = page
                .keys
                .into_iter()
                .map(|key| async move { self.remove_key(&key).await });
            stream::iter(removals)
                .buffer_unordered(REMOVALS_AT_ONCE)
                .try_collect::<()>()
                .await?;
            if page.next.is_none() {
                return Ok(());
            }
            next = page.next;
        }
        Err(deed.failed("its listing has no end"))
    }
}

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
