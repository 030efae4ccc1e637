//! When a disk asks to come back to groups that it was put out of: at once after a start, and later and later if
//! it is put out again and again. A disk that stalls now and then would else hold up guests' writes each time.

use std::time::{Duration, Instant};

/// After the first time.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// It doubles up to this.
const PAUSE_MAX: Duration = Duration::from_mins(10);
/// After so long in its groups a disk counts as one that was never put out.
const FORGIVEN_AFTER: Duration = Duration::from_hours(1);

/// Counts how often a disk was put out.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// Groups that it was out of when last looked at; nothing before the first look.
    out: Option<usize>,
    pause: Duration,
    /// Since when it may ask, or from when on.
    not_before: Option<Instant>,
}

impl Returns {
    /// The map says that the disk is out of so many groups. One that finds itself out of groups at the start
    /// was away, and asks at once.
    pub(super) fn out_of(&mut self, groups: usize, now: Instant) {
        let before = self.out.replace(groups);
        if before.is_none_or(|before| groups <= before) {
            return;
        }
        let forgiven = self.not_before.is_none_or(|asked| now > asked + FORGIVEN_AFTER);
        // Groups that leave one after the other are one event.
        let same = self.not_before.is_some_and(|asked| asked > now);
        if !same {
            self.pause = if forgiven {
                PAUSE_FIRST
            } else {
                PAUSE_MAX.min(self.pause * 2)
            };
        }
        self.not_before = Some(now + self.pause);
    }

    /// Whether it may ask now.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        self.out.is_some_and(|out| out > 0) && self.not_before.is_none_or(|asked| now >= asked)
    }
}

#[cfg(test)]
mod tests {
    //! Later and later, and forgiven in the end.
    use super::*;

    #[test]
    fn a_disk_that_was_away_asks_at_once() {
        let (mut returns, now) = (Returns::default(), Instant::now());
        assert!(!returns.may_ask(now));
        returns.out_of(4, now);
        assert!(returns.may_ask(now));
        returns.out_of(0, now);
        assert!(!returns.may_ask(now));
    }

    #[test]
    fn a_disk_that_is_put_out_again_and_again_asks_later_and_later() {
        let (mut returns, mut now) = (Returns::default(), Instant::now());
        returns.out_of(0, now);
        for pause in [5, 10, 20] {
            returns.out_of(3, now);
            returns.out_of(7, now);
            assert!(!returns.may_ask(now + Duration::from_secs(pause - 1)), "{pause}");
            now += Duration::from_secs(pause);
            assert!(returns.may_ask(now), "{pause}");
            returns.out_of(0, now);
        }
        now += FORGIVEN_AFTER + PAUSE_MAX;
        returns.out_of(1, now);
        assert!(returns.may_ask(now + PAUSE_FIRST));
    }
}
