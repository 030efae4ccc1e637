//! How much of its weight a disk counts with for placement, by how full it is: a decision, from figures that are
//! handed in. One that is nearly full takes less and less, so that data moves away from it while it still can; one
//! that has room again takes more. Who moves data, and where to, is not known here.

use std::time::{Duration, Instant};

mod keeper;

pub use keeper::Keeper;

/// The whole of a weight, in permille.
pub const WHOLE: u16 = 1000;
/// No disk counts with less: one that takes nothing at all is drained, which is for people to ask.
pub const LEAST: u16 = 100;
/// Of its share, in percent, a disk gives up or gets back so much at once: less than what a disk of ten fills between
/// two steps, so that it does not swing.
const STEP_PERCENT: u16 = 10;
/// A disk takes more again only when it is so much less full, in percent of its room: else the data that it gets would
/// make it nearly full at once.
const HYSTERESIS_PERCENT: u64 = 15;

/// When a disk is nearly full, and how fast its share changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nearly full is a disk of whose room so much is taken, in percent.
    pub percent: u64,
    /// Between two steps, of which each moves data.
    pub every: Duration,
}

/// A disk as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What is taken, in bytes.
    pub used: u64,
    /// What new data may still take, in bytes.
    pub free: u64,
    /// The share that it counts with, in permille.
    pub share: u16,
    /// Whether data is on its way to it or away from it, so that how full it is says little.
    pub moving: bool,
}

impl Fill {
    /// How much of its room is taken, in percent.
    pub fn percent(&self) -> u64 {
        let room = self.used.saturating_add(self.free).max(1);
        u64::try_from(u128::from(self.used) * 100 / u128::from(room)).unwrap_or(100)
    }
}

/// The share that a disk is to have from now on, if it is another one. `last`: when it changed last.
pub fn next_share(fill: &Fill, limits: &Limits, last: Option<Instant>, now: Instant) -> Option<u16> {
    let due = last.is_none_or(|last| now.duration_since(last) >= limits.every);
    if fill.moving || !due {
        return None;
    }
    let step = (fill.share / (100 / STEP_PERCENT)).max(1);
    let next = if fill.percent() >= limits.percent {
        fill.share.saturating_sub(step).max(LEAST)
    } else if fill.percent() + HYSTERESIS_PERCENT <= limits.percent {
        fill.share.saturating_add(step).min(WHOLE)
    } else {
        return None;
    };
    // One that somebody has set below the least is left alone.
    let changes = next != fill.share && fill.share >= LEAST;
    changes.then_some(next)
}

#[cfg(test)]
mod tests {
    //! Slowly down, slowly up, and nothing in between.
    use super::*;

    const LIMITS: Limits = Limits {
        percent: 85,
        every: Duration::from_mins(10),
    };

    fn fill(used: u64, share: u16) -> Fill {
        Fill {
            used,
            free: 100 - used,
            share,
            moving: false,
        }
    }

    fn next(used: u64, share: u16) -> Option<u16> {
        next_share(&fill(used, share), &LIMITS, None, Instant::now())
    }

    #[test]
    fn a_disk_that_is_nearly_full_gives_up_a_tenth_of_its_share_and_never_the_last_tenth_of_the_whole() {
        assert_eq!(next(85, 1000), Some(900));
        assert_eq!(next(99, 900), Some(810));
        assert_eq!(next(99, 105), Some(100));
        assert_eq!(next(99, 100), None);
    }

    #[test]
    fn a_disk_with_room_again_gets_it_back_and_one_in_between_stays_as_it_is() {
        assert_eq!(next(70, 500), Some(550));
        assert_eq!(next(10, 990), Some(1000));
        assert_eq!(next(10, 1000), None);
        for used in [71, 80, 84] {
            assert_eq!(next(used, 500), None, "{used}");
        }
    }

    #[test]
    fn nothing_changes_while_data_moves_or_before_the_time_is_over() {
        let moving = Fill {
            moving: true,
            ..fill(99, 1000)
        };
        let now = Instant::now();
        assert_eq!(next_share(&moving, &LIMITS, None, now), None);
        let full = fill(99, 1000);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(next_share(&full, &LIMITS, Some(now), later(599)), None);
        assert_eq!(next_share(&full, &LIMITS, Some(now), later(600)), Some(900));
    }

    #[test]
    fn a_share_that_somebody_set_lower_is_left_alone() {
        assert_eq!(next(99, 0), None);
        assert_eq!(next(10, 50), None);
    }

    #[test]
    fn from_full_to_the_least_and_back_takes_a_bounded_number_of_steps() {
        for used in [99, 1] {
            let (mut share, mut steps) = (if used == 99 { WHOLE } else { LEAST }, 0);
            while let Some(next) = next(used, share) {
                share = next;
                steps += 1;
            }
            assert!(steps < 30, "{steps}");
            assert_eq!(share, if used == 99 { LEAST } else { WHOLE });
        }
    }
}
