//! Virtual time: what will happen, and when. Events of the same instant come in the order in which
//! they were put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use replication::Moment;

/// Microseconds of virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) const fn milliseconds(value: u64) -> Self {
        Self(value * 1000)
    }

    pub(crate) fn after(self, microseconds: u64) -> Self {
        Self(self.0 + microseconds)
    }

    /// As the machines see it.
    pub(crate) fn moment(self) -> Moment {
        Moment(self.0 / 1000)
    }
}

/// What will happen.
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    pub(crate) now: Time,
    next: u64,
    /// When, in which order, and where in `events`: these are moved about, and events are not, which are large.
    order: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Schedule<T> {
    pub(crate) fn new() -> Self {
        Self {
            now: Time(0),
            next: 0,
            order: BinaryHeap::new(),
            events: Vec::new(),
            vacant: Vec::new(),
        }
    }

    /// Puts an event at an instant, or now if that is past.
    pub(crate) fn at(&mut self, time: Time, event: T) {
        self.next += 1;
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.order.push(Reverse((time.max(self.now), self.next, place)));
    }

    /// Puts an event some microseconds from now.
    pub(crate) fn after(&mut self, microseconds: u64, event: T) {
        self.at(self.now.after(microseconds), event);
    }

    /// Takes out the next event and goes to its instant.
    pub(crate) fn next(&mut self) -> Option<T> {
        let Reverse((time, _, place)) = self.order.pop()?;
        self.now = time;
        self.vacant.push(place);
        self.events[place].take()
    }
}
