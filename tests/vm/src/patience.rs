//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition outside of this process is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until `look` gives something. `what` completes the sentence "waited in vain for ...".
pub fn wait_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited in vain for {what}, for {} seconds", patience.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
