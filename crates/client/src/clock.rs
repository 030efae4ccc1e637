//! The one clock of the data path.

pub use replication::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Now, by the clock that counts while the machine sleeps: a lease must not outlive a suspension.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is ever negative: the clock starts with the machine.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment(seconds * 1000 + nanoseconds / 1_000_000)
}
