//! The one time that a package knows: when its sources were changed last. So of the same sources it is always the same.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Moment {
    /// `SOURCE_DATE_EPOCH`, or the time of the last commit.
    pub(super) fn of_sources() -> Result<Self> {
        let text = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => output(
                Command::new("git")
                    .args(["log", "-1", "--format=%ct"])
                    .current_dir(workspace::root()),
            )
            .context("when was the last commit? Say SOURCE_DATE_EPOCH=SECONDS where there is no git")?,
        };
        let seconds = text.trim().parse();
        Ok(Self(seconds.with_context(|| {
            format!("{text:?} is no number of seconds since 1970")
        })?))
    }

    pub(super) fn seconds(self) -> u64 {
        self.0
    }

    /// As a change log has it: `Sat, 28 Nov 2026 12:00:00 +0000`.
    pub(super) fn in_mails(self) -> Result<String> {
        self.formatted("-R")
    }

    /// As a manual has it: `2026-11-28`.
    pub(super) fn day(self) -> Result<String> {
        self.formatted("+%F")
    }

    fn formatted(self, form: &str) -> Result<String> {
        let mut date = Command::new("date");
        date.args(["-u", "-d", &format!("@{}", self.0), form])
            .env("LC_ALL", "C");
        Ok(output(&mut date)?.trim().to_owned())
    }
}

/// What a program prints, if its status is good.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{} ended with {}: {}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} prints what is no text", command.get_program().display()))
}
