//! What a service manager is told: that the service is ready, what it is doing, that it ends, and that it is alive.
//!
//! All of it by systemd's convention, which others speak too (`NOTIFY_SOCKET`, `WATCHDOG_USEC`); without them nothing is
//! done. A manager that does not listen is no reason to stop serving, so nothing here fails.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;

/// So often is the manager told within the time after which it takes a silent process for hung: two may come late.
const BEATS: u32 = 3;
/// More often is of no use to anybody.
const BEAT_MIN: Duration = Duration::from_millis(10);

/// The service is ready: whoever needs it may use it from now on. `status` is for people.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What the service does just now, for people.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The service ends because it was told to.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Says that the process is alive, for as long as this is polled: it belongs into the event loop that does the work, so that
/// a loop that hangs falls silent. Does nothing, for ever, if nobody wants to know.
pub async fn heartbeat() -> Infallible {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut beats = tokio::time::interval((patience / BEATS).max(BEAT_MIN));
    loop {
        beats.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
