//! Rests that are going on: each has a number and an end that it keeps without anybody's help.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use admin_api::vhost::{HOLDS_MAX, HoldStatus};
use tokio::sync::Notify;
use tokio::time::Instant;

use std::rc::Rc;

/// A rest.
struct Entry {
    deadline: Instant,
    /// Fires when it was ended by somebody.
    ended: Rc<Notify>,
}

/// All of a process.
#[derive(Default)]
pub(super) struct Holds {
    last: Cell<u64>,
    entries: RefCell<BTreeMap<u64, Entry>>,
}

impl Holds {
    /// A new one, until `deadline`. Nothing if there are too many.
    pub(super) fn begin(&self, deadline: Instant) -> Option<(u64, Rc<Notify>)> {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= HOLDS_MAX {
            return None;
        }
        let number = self.last.get() + 1;
        self.last.set(number);
        let ended = Rc::new(Notify::new());
        let entry = Entry {
            deadline,
            ended: Rc::clone(&ended),
        };
        entries.insert(number, entry);
        Some((number, ended))
    }

    /// Ends one. False if it is over.
    pub(super) fn end(&self, number: u64) -> bool {
        let entry = self.entries.borrow_mut().remove(&number);
        entry.inspect(|entry| entry.ended.notify_one()).is_some()
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.entries.borrow().keys().copied().collect()
    }

    /// How long each may go on.
    pub(super) fn status(&self) -> Vec<HoldStatus> {
        let now = Instant::now();
        let entries = self.entries.borrow();
        let status = |(hold, entry): (&u64, &Entry)| HoldStatus {
            hold: *hold,
            left_ms: milliseconds(entry.deadline.saturating_duration_since(now)),
        };
        entries.iter().map(status).collect()
    }
}

/// Whole milliseconds.
pub(super) fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    //! A number is never given twice, so a late resume cannot end another's rest.
    use super::*;

    #[test]
    fn a_rest_ends_once_and_its_number_is_not_used_again() {
        let holds = Holds::default();
        let deadline = Instant::now();
        let (one, _) = holds.begin(deadline).unwrap();
        assert!(holds.end(one));
        assert!(!holds.end(one));
        let (other, _) = holds.begin(deadline).unwrap();
        assert_ne!(one, other);
        assert_eq!(holds.numbers(), [other]);
    }

    #[test]
    fn there_are_never_more_than_the_limit() {
        let holds = Holds::default();
        for _ in 0..HOLDS_MAX {
            assert!(holds.begin(Instant::now()).is_some());
        }
        assert!(holds.begin(Instant::now()).is_none());
    }
}
