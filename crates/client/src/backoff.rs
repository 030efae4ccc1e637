//! The pauses between attempts to connect again.

use std::time::Duration;

/// The first pause: a process that was just restarted listens again within a few of these.
const FIRST: Duration = Duration::from_millis(10);
/// The longest pause: an attempt costs next to nothing, and a guest waits for it.
const LONGEST: Duration = Duration::from_millis(500);

/// Pauses that grow. A new one begins anew.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// Pauses, each time for twice as long.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = LONGEST.min(self.0 * 2);
    }
}
