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

    /// One that is due, if there is any.
    pub(super) fn due(&self) -> Option<Option<VolumeId>> {
        let now = Instant::now();
        let due = self.0.borrow_mut().pop_front_if(|(at, _)| *at <= now);
        due.map(|(_, volume)| volume)
    }
}
