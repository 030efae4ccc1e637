//! What the guest's requests amount to: how many, how large, how long they took; and whether more may
//! be taken.
//!
//! All of it lives on the data thread, in plain cells: counting takes no lock and no atomic. The clock is
//! read once when a ring is looked into and once when answers are published, not for every request.
//! It knows nothing of rings or devices.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::request::Request;

/// The shortest time that is told apart from none, in nanoseconds: a ring answers nothing faster.
const LATENCY_MIN_NS: u64 = 1 << 10;
/// The longest time that is told apart, in nanoseconds: two minutes and a bit. What waits longer waits
/// for a disk or a daemon that is away, and the exact figure does not matter.
const LATENCY_MAX_NS: u64 = 1 << 37;
/// Times are kept to two digits: within one in a hundred.
const LATENCY_DIGITS: u8 = 2;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data out of the volume.
    Read,
    /// Data into the volume.
    Write,
    /// Earlier writes to be durable.
    Flush,
    /// Space to be given back.
    Discard,
    /// A range to read as zeros.
    WriteZeroes,
    /// The serial number.
    Identify,
    /// Nothing that is offered, or nothing that makes sense.
    Refused,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::WriteZeroes,
        Self::Identify,
        Self::Refused,
    ];

    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write_zeroes",
            Self::Identify => "identify",
            Self::Refused => "refused",
        }
    }
}

/// A request that was taken and not published yet: what will be counted when it is.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    taken: Instant,
    kind: Kind,
    bytes: u64,
    failed: bool,
}

impl Ticket {
    /// The guest asks for this.
    pub fn is_for(&mut self, request: &Request) {
        let (kind, bytes) = match request {
            Request::Read(run) => (Kind::Read, run.length),
            Request::Write(run) => (Kind::Write, run.length),
            Request::Flush => (Kind::Flush, 0),
            Request::Identify => (Kind::Identify, 0),
            Request::Discard(runs) => (Kind::Discard, runs.iter().map(|run| run.length).sum()),
            Request::WriteZeroes(runs) => (Kind::WriteZeroes, runs.iter().map(|run| run.length).sum()),
        };
        self.kind = kind;
        self.bytes = bytes;
    }

    /// The guest is told that it failed.
    pub fn has_failed(&mut self) {
        self.failed = true;
    }
}

/// What requests of one kind amounted to.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Published answers.
    pub requests: u64,
    /// Bytes that those asked for which did not fail.
    pub bytes: u64,
    /// Answers that told of a failure.
    pub errors: u64,
    /// From being taken to being published, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Figures {
    fn new() -> Option<Self> {
        let latency = Histogram::new_with_bounds(LATENCY_MIN_NS, LATENCY_MAX_NS, LATENCY_DIGITS).ok()?;
        Some(Self {
            requests: 0,
            bytes: 0,
            errors: 0,
            latency,
        })
    }
}

/// All that the rings of a process count together, and the flag that keeps them from taking more.
#[derive(Debug)]
pub struct Traffic {
    figures: RefCell<Vec<Figures>>,
    /// Taken, not published.
    in_flight: Cell<u64>,
    /// How many want no request to be taken.
    holds: Cell<usize>,
    /// Nothing is in flight any more.
    rest: Notify,
}

impl Traffic {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self {
            // The bounds are constants that the histogram accepts (see the test below).
            figures: RefCell::new(Kind::ALL.iter().filter_map(|_| Figures::new()).collect()),
            in_flight: Cell::new(0),
            holds: Cell::new(0),
            rest: Notify::new(),
        }
    }

    /// A request was taken; `now` is when its ring was looked into.
    pub fn take(&self, now: Instant) -> Ticket {
        self.in_flight.set(self.in_flight.get() + 1);
        Ticket {
            taken: now,
            kind: Kind::Refused,
            bytes: 0,
            failed: false,
        }
    }

    /// These requests are published, or given up with their ring.
    pub fn publish(&self, tickets: impl Iterator<Item = Ticket>) {
        let now = Instant::now();
        let mut figures = self.figures.borrow_mut();
        let mut count = 0;
        for ticket in tickets {
            count += 1;
            let Some(figures) = figures.get_mut(ticket.kind as usize) else {
                continue;
            };
            figures.requests += 1;
            if ticket.failed {
                figures.errors += 1;
            } else {
                figures.bytes = figures.bytes.saturating_add(ticket.bytes);
            }
            figures
                .latency
                .saturating_record(nanoseconds(now.saturating_duration_since(ticket.taken)));
        }
        let in_flight = self.in_flight.get().saturating_sub(count);
        self.in_flight.set(in_flight);
        if in_flight == 0 {
            self.rest.notify_waiters();
        }
    }

    /// Requests that were taken and are not published.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// What was counted, by kind.
    pub fn figures(&self) -> Vec<(Kind, Figures)> {
        Kind::ALL
            .into_iter()
            .zip(self.figures.borrow().iter().cloned())
            .collect()
    }

    /// Whether no request may be taken.
    pub fn is_held(&self) -> bool {
        self.holds.get() > 0
    }

    /// One more wants no request to be taken.
    pub fn hold(&self) {
        self.holds.set(self.holds.get() + 1);
    }

    /// One less does. True if it was the last: rings are to be looked into again.
    pub fn release(&self) -> bool {
        let left = self.holds.get().saturating_sub(1);
        self.holds.set(left);
        left == 0
    }

    /// Waits until nothing is in flight.
    pub async fn rested(&self) {
        while self.in_flight.get() > 0 {
            self.rest.notified().await;
        }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    //! Each request is counted once, under its kind, and a rest is seen by whoever waits for it.
    use super::*;
    use crate::request::Run;

    fn read(length: u64) -> Request {
        Request::Read(Run { offset: 0, length })
    }

    #[test]
    fn every_kind_has_its_place_and_every_published_request_is_counted_there() {
        let traffic = Traffic::new();
        let before = Instant::now().checked_sub(Duration::from_millis(5)).unwrap();
        let (mut one, mut failed) = (traffic.take(before), traffic.take(before));
        one.is_for(&read(4096));
        failed.is_for(&read(8192));
        failed.has_failed();
        let nonsense = traffic.take(before);
        assert_eq!(traffic.in_flight(), 3);
        traffic.publish([one, failed, nonsense].into_iter());
        assert_eq!(traffic.in_flight(), 0);
        let figures = traffic.figures();
        assert_eq!(figures.len(), Kind::ALL.len());
        for (place, (kind, figures)) in figures.iter().enumerate() {
            assert_eq!(place, *kind as usize);
            let counted = (figures.requests, figures.bytes, figures.errors);
            match kind {
                Kind::Read => {
                    assert_eq!(counted, (2, 4096, 1));
                    assert!(figures.latency.min() >= 4_900_000, "the time since it was taken");
                }
                Kind::Refused => assert_eq!(counted, (1, 0, 0)),
                _ => assert_eq!(counted, (0, 0, 0)),
            }
        }
    }

    #[test]
    fn a_time_beyond_all_bounds_is_counted_too() {
        let traffic = Traffic::new();
        let mut figures = traffic.figures().swap_remove(0).1;
        figures.latency.saturating_record(u64::MAX);
        figures.latency.saturating_record(0);
        assert_eq!(figures.latency.len(), 2);
    }

    #[test]
    fn two_holds_end_with_the_second_release() {
        let traffic = Traffic::new();
        traffic.hold();
        traffic.hold();
        assert!(!traffic.release());
        assert!(traffic.is_held());
        assert!(traffic.release());
        assert!(!traffic.is_held());
    }

    #[tokio::test]
    async fn who_waits_for_a_rest_is_woken_by_the_last_answer() {
        let traffic = Traffic::new();
        let (one, other) = (traffic.take(Instant::now()), traffic.take(Instant::now()));
        let answers = async {
            traffic.publish(std::iter::once(one));
            tokio::task::yield_now().await;
            traffic.publish(std::iter::once(other));
        };
        tokio::join!(traffic.rested(), answers);
        assert_eq!(traffic.in_flight(), 0);
    }
}
