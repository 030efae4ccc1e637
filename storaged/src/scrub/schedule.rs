//! When a disk is due for a scrub. What was done is known from the event log, also after a restart; a disk that was
//! never scrubbed has its first after some part of the interval, another part for each, so that the work is spread.

use std::collections::BTreeMap;

use admin_api::events::Event;
use protocol::DiskId;

use crate::config;

/// The kinds of the events that tell of a scrub's end.
pub(super) const LIGHT: &str = "disk_scrubbed";
pub(super) const DEEP: &str = "disk_scrubbed_deep";
/// Before one that did not come to its end is begun again, in milliseconds.
const AGAIN_AFTER: u64 = 10 * 60 * 1000;

/// What was done when, and how often it is to be done.
#[derive(Debug)]
pub(super) struct Schedule {
    settings: config::Scrub,
    /// When a disk's last deep or light one ended, in milliseconds since 1970.
    ended: BTreeMap<(DiskId, bool), u64>,
    /// When one was last begun.
    begun: BTreeMap<(DiskId, bool), u64>,
    /// The task of the one that was begun last.
    task: Option<u64>,
}

impl Schedule {
    pub(super) fn new(settings: config::Scrub, events: &[Event]) -> Self {
        let mut schedule = Self {
            settings,
            ended: BTreeMap::new(),
            begun: BTreeMap::new(),
            task: None,
        };
        for event in events {
            let number = event
                .subject
                .strip_prefix("disk-")
                .and_then(|text| text.parse().ok());
            let deep = match event.kind.as_str() {
                LIGHT => false,
                DEEP => true,
                _ => continue,
            };
            if let Some(number) = number {
                schedule.ended(DiskId(number), deep, event.time_ms);
            }
        }
        schedule
    }

    /// A disk's scrub came to its end. A deep one compares too.
    pub(super) fn ended(&mut self, disk: DiskId, deep: bool, now_ms: u64) {
        self.ended.insert((disk, false), now_ms);
        if deep {
            self.ended.insert((disk, true), now_ms);
        }
    }

    /// What is due was begun as this task.
    pub(super) fn begun(&mut self, task: u64) {
        self.task = Some(task);
    }

    /// The disk that is due, and whether deep, unless one that was begun before still runs: a node scrubs one disk
    /// at a time. Disks come with the moments at which they were added.
    pub(super) fn due(
        &mut self,
        disks: &[(DiskId, u64)],
        now_ms: u64,
        runs: impl Fn(u64) -> bool,
    ) -> Option<(DiskId, bool)> {
        if self.task.is_some_and(runs) {
            return None;
        }
        let intervals = [(true, self.settings.deep), (false, self.settings.light)];
        for (deep, interval) in intervals {
            let Some(interval) = interval else { continue };
            let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            for (disk, added_ms) in disks {
                let key = (*disk, deep);
                let ended = self.ended.get(&key).map(|ended| ended.saturating_add(interval));
                let first = added_ms.saturating_add(interval / 16 * part(*disk));
                let tried = self
                    .begun
                    .get(&key)
                    .map_or(0, |begun| begun.saturating_add(AGAIN_AFTER));
                if now_ms >= ended.unwrap_or(first).max(tried) {
                    self.begun.insert(key, now_ms);
                    return Some(key);
                }
            }
        }
        None
    }
}

/// A number from 1 to 16 that neighbours do not share.
fn part(disk: DiskId) -> u64 {
    u64::from(disk.0.wrapping_mul(7) % 16) + 1
}

#[cfg(test)]
mod tests {
    //! Every disk in its turn, also after restarts, and one at a time.
    use std::time::Duration;

    use admin_api::events::Severity;

    use super::*;

    const HOUR: u64 = 3_600_000;
    const A: DiskId = DiskId(1);
    const B: DiskId = DiskId(2);

    fn settings() -> config::Scrub {
        config::Scrub {
            rate: 1 << 20,
            light: Some(Duration::from_hours(24)),
            deep: Some(Duration::from_hours(168)),
        }
    }

    fn scrubbed(disk: DiskId, kind: &str, time_ms: u64) -> Event {
        Event {
            number: 1,
            time_ms,
            severity: Severity::Info,
            kind: kind.to_owned(),
            subject: disk.to_string(),
            message: String::new(),
        }
    }

    #[test]
    fn disks_that_were_never_scrubbed_have_their_first_at_different_times() {
        let mut schedule = Schedule::new(settings(), &[]);
        let disks = [(A, 0), (B, 0)];
        assert_eq!(schedule.due(&disks, HOUR, |_| false), None);
        // 8 and 15 sixteenths of a day.
        assert_eq!(schedule.due(&disks, 12 * HOUR, |_| false), Some((A, false)));
        assert_eq!(schedule.due(&disks, 12 * HOUR, |_| false), None);
        schedule.ended(A, false, 12 * HOUR);
        assert_eq!(schedule.due(&disks, 23 * HOUR, |_| false), Some((B, false)));
    }

    #[test]
    fn what_the_event_log_tells_counts_and_a_deep_one_is_a_light_one_too() {
        let events = [
            scrubbed(A, DEEP, 100 * HOUR),
            scrubbed(B, LIGHT, 90 * HOUR),
            scrubbed(A, "disk_up", 0),
        ];
        let mut schedule = Schedule::new(settings(), &events);
        let disks = [(A, 0), (B, 100 * HOUR)];
        assert_eq!(schedule.due(&disks, 113 * HOUR, |_| false), None);
        assert_eq!(schedule.due(&disks, 114 * HOUR, |_| false), Some((B, false)));
        schedule.ended(B, false, 300 * HOUR);
        schedule.ended(A, false, 300 * HOUR);
        assert_eq!(schedule.due(&disks, 268 * HOUR, |_| false), Some((A, true)));
    }

    #[test]
    fn one_at_a_time_and_one_that_failed_is_not_begun_again_at_once() {
        let mut schedule = Schedule::new(settings(), &[]);
        let disks = [(A, 0)];
        let now = 24 * HOUR;
        assert_eq!(schedule.due(&disks, now, |_| false), Some((A, false)));
        schedule.begun(5);
        assert_eq!(schedule.due(&disks, now + AGAIN_AFTER, |task| task == 5), None);
        assert_eq!(schedule.due(&disks, now + AGAIN_AFTER - 1, |_| false), None);
        assert_eq!(
            schedule.due(&disks, now + AGAIN_AFTER, |_| false),
            Some((A, false))
        );
    }

    #[test]
    fn nothing_is_due_where_scrubs_are_switched_off() {
        let off = config::Scrub {
            light: None,
            deep: None,
            ..settings()
        };
        assert_eq!(Schedule::new(off, &[]).due(&[(A, 0)], u64::MAX, |_| false), None);
    }
}
