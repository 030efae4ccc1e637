//! How long a disk stays out that was put out because it is slow, and when that is forgotten. Wall clocks are
//! compared here: a clock that jumps makes it come back sooner or later, and nothing else.

use std::time::Duration;

use coordination::ClusterMap;
use coordination::records::SlowRecord;
use protocol::DiskId;
use protocol::session::SlotState;

/// After the first time: a rebuild or a firmware's housekeeping is often over by then.
const PAUSE_FIRST: Duration = Duration::from_mins(10);
/// It doubles up to this.
const PAUSE_MAX: Duration = Duration::from_hours(24);
/// So much longer than its pause after it was put out a disk that is in sync everywhere has a good name again.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

fn pause(record: &SlowRecord) -> Duration {
    let doublings = record.times.saturating_sub(1);
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    PAUSE_FIRST.saturating_mul(factor).min(PAUSE_MAX)
}

fn since(record: &SlowRecord, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(record.since_ms))
}

/// How long it still stays out; nothing if it may come back.
pub fn remaining(record: &SlowRecord, now_ms: u64) -> Option<Duration> {
    let left = pause(record).saturating_sub(since(record, now_ms));
    (!left.is_zero()).then_some(left)
}

/// Whether a disk was put out so long ago, and is in its groups again, that it counts as one that never was.
pub fn is_forgotten(map: &ClusterMap, disk: DiskId, now_ms: u64) -> bool {
    let Some(slow) = map.slow().get(&disk) else {
        return false;
    };
    let long = since(&slow.record, now_ms) > pause(&slow.record) + FORGOTTEN_AFTER;
    long && map
        .groups_on(disk)
        .all(|(_, slot)| slot.state == SlotState::InSync)
}

#[cfg(test)]
mod tests {
    //! Longer and longer, and never for ever.
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn put_out(times: u32) -> SlowRecord {
        SlowRecord {
            since_ms: MINUTE_MS,
            times,
            reason: String::new(),
        }
    }

    #[test]
    fn a_disk_that_is_put_out_again_and_again_stays_out_for_longer_and_longer() {
        for (times, minutes) in [(0, 10), (1, 10), (2, 20), (3, 40), (9, 1440), (u32::MAX, 1440)] {
            let record = put_out(times);
            let end = MINUTE_MS * (1 + minutes);
            assert!(remaining(&record, end - 1).is_some(), "{times}");
            assert_eq!(remaining(&record, end), None, "{times}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_it_out_for_no_longer_than_its_pause() {
        assert_eq!(remaining(&put_out(1), 0), Some(PAUSE_FIRST));
    }
}
