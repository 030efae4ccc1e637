//! What the replica wants to be woken for, which knows no clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::VolumeId;

/// Alarms that were not due yet. A volume has one at most, and all take the same time, so the first is due first.
#[derive(Default)]
pub(super) struct Alarms(RefCell<VecDeque<(Instant, Option<VolumeId>)>>);

impl Alarms {
    /// One more.
    pub(super) fn set(&self, volume: Option<VolumeId>, after_ms: u64) {
        let at = Instant::now() + Duration::from_millis(after_ms);
        self.0.borrow_mut().push_back((at, volume));
    }

    /// Those that are due.
    pub(super) fn due(&self) -> Vec<Option<VolumeId>> {
        let (now, mut alarms) = (Instant::now(), self.0.borrow_mut());
        let mut due = Vec::new();
        while let Some((_, volume)) = alarms.pop_front_if(|(at, _)| *at <= now) {
            due.push(volume);
        }
        due
    }
}
