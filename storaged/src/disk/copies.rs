//! How much is copied to a disk that comes back: no more than a rate, so that guests come first; and how far it
//! has come.

use std::time::{Duration, Instant};

/// Copies to one disk.
#[derive(Debug)]
pub(super) struct Copies {
    /// In bytes a second.
    rate: u64,
    /// When what was copied so far is paid for.
    paid: Option<Instant>,
    bytes: u64,
}

impl Copies {
    /// None yet, at most so many bytes a second from now on.
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1),
            paid: None,
            bytes: 0,
        }
    }

    /// So many bytes came.
    pub(super) fn copied(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.paid = Some(self.paid.map_or(now, |paid| paid.max(now)) + cost);
    }

    /// How long the next ones are to wait.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.paid
            .map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now))
    }

    /// How much came since the disk was started, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    //! The rate holds over any stretch, and an idle time is not saved up.
    use super::*;

    #[test]
    fn what_was_copied_is_waited_for() {
        let (mut copies, start) = (Copies::new(1000), Instant::now());
        assert_eq!(copies.pause(start), Duration::ZERO);
        copies.copied(500, start);
        copies.copied(1500, start);
        assert_eq!(copies.pause(start), Duration::from_secs(2));
        let later = start + Duration::from_mins(1);
        assert_eq!(copies.pause(later), Duration::ZERO);
        copies.copied(1000, later);
        assert_eq!(copies.pause(later), Duration::from_secs(1));
        assert_eq!(copies.bytes(), 3000);
    }
}
