//! What the requests of a volume's clients amount to: how many, how large, how long they took; and whether
//! more may be taken.
//!
//! All of it lives on the thread of the data path, in plain cells: counting takes no lock and no atomic. The
//! clock is read once for requests that are taken together and once for answers that go out together.
//! It knows nothing of rings, sockets or devices.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use tokio::sync::Notify;

use crate::figures::Figures;

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
    /// Which parts of a range hold data.
    Map,
    /// Nothing that has to be done: an empty range, or a hint.
    Nothing,
    /// Nothing that is offered, or nothing that makes sense.
    Refused,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::WriteZeroes,
        Self::Identify,
        Self::Map,
        Self::Nothing,
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
            Self::Map => "map",
            Self::Nothing => "nothing",
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
    /// This is asked for.
    pub fn is_for(&mut self, kind: Kind, bytes: u64) {
        self.kind = kind;
        self.bytes = bytes;
    }

    /// The answer tells of a failure.
    pub fn has_failed(&mut self) {
        self.failed = true;
    }
}

/// All that is counted of one volume, and the flag that keeps its front end from taking more.
#[derive(Debug)]
pub struct Traffic {
    /// By kind; nothing for kinds that the front end does not know.
    figures: RefCell<[Option<Figures>; Kind::ALL.len()]>,
    /// Taken, not published.
    in_flight: Cell<u64>,
    /// How many want no request to be taken.
    holds: Cell<usize>,
    /// Nothing is in flight any more.
    rest: Notify,
}

impl Traffic {
    /// Nothing has happened yet. Only these kinds are counted.
    pub fn new(kinds: &[Kind]) -> Self {
        Self {
            figures: RefCell::new(Kind::ALL.map(|kind| kinds.contains(&kind).then(Figures::default))),
            in_flight: Cell::new(0),
            holds: Cell::new(0),
            rest: Notify::new(),
        }
    }

    /// A request was taken; `now` is when its client was looked after.
    pub fn take(&self, now: Instant) -> Ticket {
        self.in_flight.set(self.in_flight.get() + 1);
        Ticket {
            taken: now,
            kind: Kind::Refused,
            bytes: 0,
            failed: false,
        }
    }

    /// These requests are answered, or given up with their client.
    pub fn publish(&self, tickets: impl Iterator<Item = Ticket>) {
        let now = Instant::now();
        let mut figures = self.figures.borrow_mut();
        let mut count = 0;
        for ticket in tickets {
            count += 1;
            if let Some(Some(figures)) = figures.get_mut(ticket.kind as usize) {
                let time = now.saturating_duration_since(ticket.taken);
                figures.count(ticket.bytes, ticket.failed, time);
            }
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
        let figures = self.figures.borrow();
        let all = Kind::ALL.into_iter().zip(figures.iter().cloned());
        all.filter_map(|(kind, figures)| Some((kind, figures?))).collect()
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

#[cfg(test)]
mod tests {
    //! Each request is counted once, under its kind, and a rest is seen by whoever waits for it.
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_has_its_place_and_every_published_request_is_counted_there() {
        let traffic = Traffic::new(&[Kind::Read, Kind::Write, Kind::Refused]);
        let before = Instant::now().checked_sub(Duration::from_millis(5)).unwrap();
        let (mut one, mut failed) = (traffic.take(before), traffic.take(before));
        one.is_for(Kind::Read, 4096);
        failed.is_for(Kind::Read, 8192);
        failed.has_failed();
        let nonsense = traffic.take(before);
        assert_eq!(traffic.in_flight(), 3);
        traffic.publish([one, failed, nonsense].into_iter());
        assert_eq!(traffic.in_flight(), 0);
        let figures = traffic.figures();
        assert_eq!(figures.len(), 3);
        for (kind, figures) in &figures {
            let counted = (figures.requests, figures.bytes, figures.errors);
            match kind {
                Kind::Read => {
                    assert_eq!(counted, (2, 4096, 1));
                    let least = figures.latency.quantile(0.0);
                    assert!(
                        least >= Duration::from_micros(4_900),
                        "the time since it was taken"
                    );
                }
                Kind::Refused => assert_eq!(counted, (1, 0, 0)),
                _ => assert_eq!(counted, (0, 0, 0)),
            }
        }
    }

    #[test]
    fn each_kind_has_its_own_place() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(place, kind as usize);
        }
    }

    #[test]
    fn two_holds_end_with_the_second_release() {
        let traffic = Traffic::new(&[Kind::Read, Kind::Write, Kind::Refused]);
        traffic.hold();
        traffic.hold();
        assert!(!traffic.release());
        assert!(traffic.is_held());
        assert!(traffic.release());
        assert!(!traffic.is_held());
    }

    #[tokio::test]
    async fn who_waits_for_a_rest_is_woken_by_the_last_answer() {
        let traffic = Traffic::new(&[Kind::Read, Kind::Write, Kind::Refused]);
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
