//! Runs programs: found by name, bounded in time, with all that they said at hand when they fail.

use std::ffi::OsStr;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// No program here takes longer than this, in seconds, unless it hangs or is known for it.
const SECONDS_MAX: u32 = 120;

/// Whether a program is in one of the folders of `PATH`.
pub fn is_installed(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// A program with its arguments, to be ended if it takes too long.
pub fn bounded(program: impl AsRef<OsStr>) -> Command {
    bounded_by(SECONDS_MAX, program)
}

/// The same with a bound of its own, in seconds.
pub fn bounded_by(seconds: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", &seconds.to_string()])
        .arg(program);
    command
}

/// Runs a program that must succeed; gives what it printed.
pub fn succeed<I, A>(program: impl AsRef<OsStr>, arguments: I) -> Result<String>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let (command, output) = finish(program, arguments)?;
    ensure!(
        output.status.success(),
        "{command}: {}\n{}",
        output.status,
        said(&output)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program that must fail by itself, not hang and not crash; gives all that it said.
pub fn fail<I, A>(program: impl AsRef<OsStr>, arguments: I) -> Result<String>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let (command, output) = finish(program, arguments)?;
    // 124 is what `timeout` says of a program that it ended.
    let failed = output.status.code().is_some_and(|code| code != 0 && code != 124);
    ensure!(
        failed,
        "{command} should fail: {}\n{}",
        output.status,
        said(&output)
    );
    Ok(said(&output))
}

fn finish<I, A>(program: impl AsRef<OsStr>, arguments: I) -> Result<(String, Output)>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let mut command = bounded(program);
    command.args(arguments);
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    Ok((format!("{command:?}"), output))
}

fn said(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .join("\n")
}
