//! Time as the machines see it: a number that the driver hands in.

use std::fmt;
use std::ops::Add;

/// How long a slot's word that nothing has changed counts, in milliseconds, from when it was asked for. The protocol's
/// number: long enough for a slow network, short enough to be waited for.
pub(crate) const HEARTBEAT_AGE_MS: u64 = 1_000;
/// How often slots are asked: each answer is one of two that count at any time.
pub(crate) const HEARTBEAT_EVERY_MS: u64 = 400;
/// How long a replica that has vouched for an owner makes the next one wait: twice the age, for clocks that run at
/// different rates.
pub(crate) const VOUCHED_MS: u64 = 2 * HEARTBEAT_AGE_MS;

/// Milliseconds of a clock that never goes back and counts while the machine sleeps
/// (`CLOCK_BOOTTIME` in production, virtual time in the simulator). Its origin means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Moment {
    type Output = Self;

    fn add(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
