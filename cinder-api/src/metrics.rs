//! What this process counts of itself, for all of it: requests, work, and what is asked of others. [`text`] has it as
//! Prometheus wants it, together with what the records say.
//!
//! It is one for the process, as in the protocol that it is shown in: whoever counts needs nothing handed down to it. A lock is
//! held for some additions; histograms take 28 KiB for each path and method that was asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Method;
use telemetry::Figures;

pub mod text;

/// What requests are counted under that go to no path that there is.
const NO_ROUTE: &str = "none";
/// What methods are counted under that no path has.
const OTHER_METHOD: &str = "OTHER";

/// Whom this process asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Keystone: tokens, and our own.
    Keystone,
    /// The `storaged` of this node.
    Storage,
    /// The coordination store that the records are in.
    Records,
}

impl Whom {
    const fn name(self) -> &'static str {
        match self {
            Self::Keystone => "keystone",
            Self::Storage => "storage",
            Self::Records => "records",
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It could not be, and what it was about says so.
    Failed,
    /// Something was away; it is begun anew.
    Again,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Again => "again",
        }
    }
}

/// A path as routes have it, and a method.
type Place = (String, &'static str);

#[derive(Default)]
struct Counted {
    connections: usize,
    running: usize,
    requests: HashMap<Place, Figures>,
    statuses: BTreeMap<(Place, u16), u64>,
    calls: BTreeMap<Whom, Figures>,
    jobs_running: BTreeMap<String, usize>,
    jobs: BTreeMap<(String, Outcome), u64>,
}

static COUNTED: LazyLock<Mutex<Counted>> = LazyLock::new(Mutex::default);
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn counted() -> MutexGuard<'static, Counted> {
    COUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process begins now.
pub fn begin() {
    LazyLock::force(&BEGAN);
}

/// Something that is under way as long as this value is there.
pub struct UnderWay(Box<dyn Fn(&mut Counted) + Send>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        (self.0)(&mut counted());
    }
}

/// A connection is open.
pub fn connection() -> UnderWay {
    counted().connections += 1;
    UnderWay(Box::new(|counted| counted.connections -= 1))
}

/// A request is worked at.
pub fn request() -> UnderWay {
    counted().running += 1;
    UnderWay(Box::new(|counted| counted.running -= 1))
}

/// A job of a kind is carried out.
pub fn job(kind: &str) -> UnderWay {
    let kind = kind.to_owned();
    *counted().jobs_running.entry(kind.clone()).or_default() += 1;
    UnderWay(Box::new(move |counted| {
        if let Some(running) = counted.jobs_running.get_mut(&kind) {
            *running -= 1;
        }
    }))
}

/// A request was answered. `route` is its path as routes have it, if it has one.
pub fn answered(route: Option<&str>, method: &Method, status: u16, time: Duration) {
    let place = (route.unwrap_or(NO_ROUTE).to_owned(), method_name(method));
    let mut counted = counted();
    let figures = counted.requests.entry(place.clone()).or_default();
    figures.count(0, status >= 500, time);
    *counted.statuses.entry((place, status)).or_default() += 1;
}

/// A method by its name, if it is one that any path has: others are as many as clients invent.
fn method_name(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE"];
    let found = known.into_iter().find(|known| *known == method.as_str());
    found.unwrap_or(OTHER_METHOD)
}

/// Somebody was asked, and it took so long.
pub fn asked(whom: Whom, failed: bool, time: Duration) {
    counted().calls.entry(whom).or_default().count(0, failed, time);
}

/// A job of a kind ended, or one attempt at it.
pub fn job_ended(kind: &str, outcome: Outcome) {
    *counted().jobs.entry((kind.to_owned(), outcome)).or_default() += 1;
}
