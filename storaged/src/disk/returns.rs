//! When a disk asks to come back to groups that it was put out of: at once after a start, and later and later if
//! it is put out again and again. A disk that stalls now and then would else hold up guests' writes each time. Where
//! one more loss would make guests wait, it asks sooner.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::PgId;
use protocol::session::SlotState;

/// After the first time.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// It doubles up to this.
const PAUSE_MAX: Duration = Duration::from_mins(10);
/// It is no longer than this while a group that it is out of has no disk to spare: if another one dies meanwhile, guests
/// wait for this one.
const PAUSE_MAX_NEEDED: Duration = Duration::from_secs(20);
/// After so long in its groups a disk counts as one that was never put out.
const FORGIVEN_AFTER: Duration = Duration::from_hours(1);

/// Counts how often a disk was put out.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// How it stood in its groups when last looked at; nothing before the first look.
    states: Option<BTreeMap<PgId, SlotState>>,
    pause: Duration,
    /// When it was put out last.
    put_out: Option<Instant>,
    /// Whether a group that it is out of has no disk to spare.
    needed: bool,
}

impl Returns {
    /// The map says that the disk stands so in its groups. One that finds itself out of groups at the start
    /// was away, and asks at once; so does one that gets a group that it never had.
    pub(super) fn stands(&mut self, states: BTreeMap<PgId, SlotState>, needed: bool, now: Instant) {
        self.needed = needed;
        let before = self.states.replace(states).unwrap_or_default();
        let was_in = |pg: &PgId| before.get(pg).is_some_and(|state| *state != SlotState::Down);
        if !self.out().any(was_in) {
            return;
        }
        let over = self.put_out.map(|since| since + self.pause);
        let forgiven = over.is_none_or(|over| now > over + FORGIVEN_AFTER);
        // Groups that leave one after the other are one event.
        if over.is_some_and(|over| over > now) {
            return;
        }
        self.pause = if forgiven {
            PAUSE_FIRST
        } else {
            PAUSE_MAX.min(self.pause * 2)
        };
        self.put_out = Some(now);
    }

    /// The groups that it is out of.
    fn out(&self) -> impl Iterator<Item = &PgId> {
        let states = self.states.iter().flatten();
        states
            .filter(|(_, state)| **state == SlotState::Down)
            .map(|(pg, _)| pg)
    }

    /// Whether it may ask now.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let pause = if self.needed {
            self.pause.min(PAUSE_MAX_NEEDED)
        } else {
            self.pause
        };
        self.out().next().is_some() && self.put_out.is_none_or(|since| now >= since + pause)
    }
}

#[cfg(test)]
mod tests {
    //! Later and later, and forgiven in the end.
    use super::*;
    use protocol::PoolId;

    const GROUPS: u32 = 8;

    /// It is out of the first groups of all.
    fn out_of(groups: u32) -> BTreeMap<PgId, SlotState> {
        let pool = PoolId(1);
        let state = |number| {
            if number < groups {
                SlotState::Down
            } else {
                SlotState::InSync
            }
        };
        (0..GROUPS)
            .map(|number| (PgId { pool, number }, state(number)))
            .collect()
    }

    #[test]
    fn a_disk_that_was_away_asks_at_once() {
        let (mut returns, now) = (Returns::default(), Instant::now());
        assert!(!returns.may_ask(now));
        returns.stands(out_of(4), false, now);
        assert!(returns.may_ask(now));
        returns.stands(out_of(0), false, now);
        assert!(!returns.may_ask(now));
    }

    #[test]
    fn a_disk_that_is_put_out_again_and_again_asks_later_and_later() {
        let (mut returns, mut now) = (Returns::default(), Instant::now());
        returns.stands(out_of(0), false, now);
        for pause in [5, 10, 20] {
            returns.stands(out_of(3), false, now);
            returns.stands(out_of(7), false, now);
            assert!(!returns.may_ask(now + Duration::from_secs(pause - 1)), "{pause}");
            now += Duration::from_secs(pause);
            assert!(returns.may_ask(now), "{pause}");
            returns.stands(out_of(0), false, now);
        }
        now += FORGIVEN_AFTER + PAUSE_MAX;
        returns.stands(out_of(1), false, now);
        assert!(returns.may_ask(now + PAUSE_FIRST));
    }

    #[test]
    fn a_group_that_moves_here_is_asked_for_at_once() {
        let (mut returns, now) = (Returns::default(), Instant::now());
        returns.stands(out_of(0), false, now);
        let mut states = out_of(0);
        let pg = PgId {
            pool: PoolId(2),
            number: 0,
        };
        states.insert(pg, SlotState::Down);
        returns.stands(states, false, now);
        assert!(returns.may_ask(now));
    }

    #[test]
    fn a_disk_without_which_guests_would_wait_for_the_next_one_that_dies_asks_soon() {
        // Found by the storm `one-way-to-writer`: guests waited for a disk that had been put out some times.
        let (mut returns, mut now) = (Returns::default(), Instant::now());
        returns.stands(out_of(0), true, now);
        for pause in [5, 10, 20, 20, 20] {
            returns.stands(out_of(3), true, now);
            assert!(!returns.may_ask(now + Duration::from_secs(pause - 1)), "{pause}");
            assert!(returns.may_ask(now + Duration::from_secs(pause)), "{pause}");
            now += PAUSE_MAX;
            returns.stands(out_of(0), true, now);
        }
        // It becomes needed while it waits.
        returns.stands(out_of(3), false, now);
        let later = now + PAUSE_MAX_NEEDED;
        assert!(!returns.may_ask(later));
        returns.stands(out_of(3), true, later);
        assert!(returns.may_ask(later));
    }
}
