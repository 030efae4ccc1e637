//! Which disk keeps writes waiting: how long each takes to answer them, compared with the others that get the same
//! ones. Where each node has one disk only owners can compare. What is done about it is not known here.
//!
//! A write goes to all disks of its group at the same moment, so their answers can be compared as they are. They
//! include the network; times are coarse, so a disk is accused later than its own node would accuse it.

use std::collections::BTreeMap;

use protocol::DiskId;

use super::event::Action;
use super::limits::{PACE_FACTOR, PACE_FLOOR_MS, PACE_WINDOW_MS, PACE_WINDOWS, PACE_WRITES_MIN};
use crate::moment::Moment;

/// Steps of time: step n is below 2^n milliseconds, and the last one has no end.
const STEPS: usize = 16;

/// How disks did in this window and before.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began: Option<Moment>,
    disks: BTreeMap<DiskId, Course>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Course {
    times: [u32; STEPS],
    /// Slow windows, one after the other.
    slow: u32,
}

impl Pace {
    /// A disk answered a write after so many milliseconds.
    pub(super) fn answered(&mut self, disk: DiskId, took: u64) {
        let step = (u64::BITS - took.leading_zeros()) as usize;
        let course = self.disks.entry(disk).or_default();
        if let Some(count) = course.times.get_mut(step.min(STEPS - 1)) {
            *count = count.saturating_add(1);
        }
    }

    /// Ends the window if it is time, and says which disks have been slow for long: again with each window while
    /// they are.
    pub(super) fn look(&mut self, now: Moment, out: &mut Vec<Action>) {
        let began = *self.began.get_or_insert(now);
        if now.since(began) < PACE_WINDOW_MS {
            return;
        }
        self.began = Some(now);
        let medians: BTreeMap<DiskId, u32> = self
            .disks
            .iter()
            .filter_map(|(disk, course)| Some((*disk, course.median()?)))
            .collect();
        // Who did little is thought of as before, unless nothing went to him at all: then he is out.
        self.disks
            .retain(|_, course| course.times.iter().any(|count| *count > 0));
        for (disk, course) in &mut self.disks {
            course.times = [0; STEPS];
            let Some(own) = medians.get(disk) else { continue };
            let others = medians.iter().filter(|(id, _)| *id != disk);
            let mut others: Vec<u32> = others.map(|(_, step)| *step).collect();
            others.sort_unstable();
            // The middle one; of two in the middle the slower, which accuses later.
            let Some(peers) = others.get(others.len() / 2).copied() else {
                course.slow = 0;
                continue;
            };
            let (own_ms, peers_ms) = (at_least(*own), 1_u64 << peers);
            if own_ms < PACE_FLOOR_MS || own_ms <= peers_ms * PACE_FACTOR {
                course.slow = 0;
                continue;
            }
            course.slow = course.slow.saturating_add(1);
            if course.slow >= PACE_WINDOWS {
                let seconds = PACE_WINDOW_MS * u64::from(PACE_WINDOWS) / 1000;
                let reason = format!(
                    "half of the writes to it take {own_ms} ms or longer, to the other disks below {peers_ms} ms, \
                     for {seconds} s or longer"
                );
                out.push(Action::Slow { disk: *disk, reason });
            }
        }
    }
}

impl Course {
    /// The step that half of the times are in or below, if there are enough.
    fn median(&self) -> Option<u32> {
        let all: u32 = self.times.iter().sum();
        let mut below = 0;
        let step = self.times.iter().position(|count| {
            below += count;
            below * 2 >= all
        });
        let enough = all >= PACE_WRITES_MIN;
        u32::try_from(step?).ok().filter(|_| enough)
    }
}

/// The shortest time of a step, in milliseconds.
fn at_least(step: u32) -> u64 {
    step.checked_sub(1).map_or(0, |bit| 1 << bit)
}

#[cfg(test)]
mod tests {
    //! Who lags far behind for long is accused, and nobody else ever.
    use super::*;

    const DISKS: [DiskId; 3] = [DiskId(1), DiskId(2), DiskId(3)];

    /// As many windows in which the disks took so many milliseconds; gives whom it accuses with the last one.
    fn after(pace: &mut Pace, now: &mut Moment, windows: u32, took: [u64; 3]) -> Vec<DiskId> {
        let mut accused = Vec::new();
        for _ in 0..windows {
            pace.look(*now, &mut Vec::new());
            for _ in 0..PACE_WRITES_MIN {
                for (disk, took) in DISKS.into_iter().zip(took) {
                    pace.answered(disk, took);
                }
            }
            *now = *now + PACE_WINDOW_MS;
            let mut out = Vec::new();
            pace.look(*now, &mut out);
            accused = out.iter().map(slow).collect();
        }
        accused
    }

    fn slow(action: &Action) -> DiskId {
        match action {
            Action::Slow { disk, .. } => *disk,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_that_lags_far_behind_the_others_is_accused_after_some_windows_and_again_while_it_does() {
        let (mut pace, mut now) = (Pace::default(), Moment(5));
        assert_eq!(after(&mut pace, &mut now, PACE_WINDOWS - 1, [0, 70, 0]), []);
        assert_eq!(after(&mut pace, &mut now, 1, [0, 70, 0]), [DiskId(2)]);
        assert_eq!(after(&mut pace, &mut now, 1, [0, 70, 0]), [DiskId(2)]);
        assert_eq!(after(&mut pace, &mut now, 1, [0, 9, 0]), []);
        assert_eq!(after(&mut pace, &mut now, PACE_WINDOWS - 1, [0, 70, 0]), []);
    }

    #[test]
    fn disks_that_are_all_slow_or_a_little_slower_are_not_accused() {
        for took in [[70, 70, 70], [0, 15, 0], [5, 70, 5], [0, 0, 0]] {
            let (mut pace, mut now) = (Pace::default(), Moment(0));
            assert_eq!(after(&mut pace, &mut now, 20, took), [], "{took:?}");
        }
    }

    #[test]
    fn a_disk_that_gets_nothing_any_more_is_forgotten() {
        let (mut pace, mut now) = (Pace::default(), Moment(0));
        after(&mut pace, &mut now, PACE_WINDOWS, [0, 70, 0]);
        for _ in 0..2 {
            now = now + PACE_WINDOW_MS;
            let mut out = Vec::new();
            pace.look(now, &mut out);
            assert!(out.is_empty(), "{out:?}");
        }
        assert!(pace.disks.is_empty());
    }
}
