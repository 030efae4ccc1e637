//! Virtual time: what will happen, and when. Events of the same instant come in the order in which
//! they were put in.

use std::collections::BTreeMap;

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
    events: BTreeMap<(Time, u64), T>,
}

impl<T> Schedule<T> {
    pub(crate) fn new() -> Self {
        Self {
            now: Time(0),
            next: 0,
            events: BTreeMap::new(),
        }
    }

    /// Puts an event at an instant, or now if that is past.
    pub(crate) fn at(&mut self, time: Time, event: T) {
        self.next += 1;
        self.events.insert((time.max(self.now), self.next), event);
    }

    /// Puts an event some microseconds from now.
    pub(crate) fn after(&mut self, microseconds: u64, event: T) {
        self.at(self.now.after(microseconds), event);
    }

    /// Takes out the next event and goes to its instant.
    pub(crate) fn next(&mut self) -> Option<T> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}
