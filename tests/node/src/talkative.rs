//! Tests that look into logs want them at their most talkative. What a program logs is said by its environment, which a test
//! cannot change for itself; so it runs once more as a process that inherits another one.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What says how much is logged, and what it says when nothing is left out.
const LOG: (&str, &str) = ("RUST_LOG", "trace");

/// Whether everything that is started here logs all that it can. If not, the test of this name (as `--exact` takes it) is run
/// in a process where it does, and has passed there.
pub fn talkative(test: &str) -> Result<bool> {
    let (variable, everything) = LOG;
    if std::env::var(variable).as_deref() == Ok(everything) {
        return Ok(true);
    }
    let mut again = Command::new(std::env::current_exe().context("find this program")?);
    again
        .args(["--exact", test, "--nocapture"])
        .env(variable, everything);
    let output = again.output().context("run a test once more")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(false)
}
