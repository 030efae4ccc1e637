//! What a guest does beside the commands that its console waits for: begun, looked at, and waited for by its name. It
//! knows nothing of what is done.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::patience::wait_for;

/// Lines of what was said that an error tells, from the end.
const LAST_LINES: u32 = 20;

impl Guest {
    /// Begins with a command line beside all others. What it says goes to the file `/tmp/NAME`.
    pub fn start(&mut self, name: &str, command: &str) -> Result<()> {
        // The status is there as a whole or not at all.
        self.run(&format!(
            "(({command}) > /tmp/{name} 2>&1; echo $? > /tmp/{name}.new; mv /tmp/{name}.new /tmp/{name}.status) \
             > /dev/null 2>&1 &"
        ))
        .map(drop)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self, name: &str) -> Result<Option<i32>> {
        let output = self.try_run(&format!("cat /tmp/{name}.status"))?;
        let read = || {
            let text = output.text.trim();
            text.parse()
                .with_context(|| format!("{name} ended with {text:?}"))
        };
        (output.status == 0).then(read).transpose()
    }

    /// Waits until it has ended, and well.
    pub fn wait_for_end(&mut self, name: &str, patience: Duration) -> Result<()> {
        let status = wait_for(&format!("{name} to end"), patience, || self.ended(name))?;
        self.went_well(name, status)
    }

    /// An error with what was said, if this is how it ended.
    pub fn went_well(&mut self, name: &str, status: i32) -> Result<()> {
        if status != 0 {
            let said = self.run(&format!("tail -n {LAST_LINES} /tmp/{name}"))?;
            ensure!(status == 0, "{name} ended with {status}: {said}");
        }
        Ok(())
    }
}
