//! `cargo xtask deny`: crates of others, judged by cargo-deny. What of it needs neither a program to compile nor a list that
//! changes daily is held to by `cargo xtask tidy` as well, by the same `deny.toml`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::run;
use crate::tally::Tally;
use crate::workspace;

/// The one whose words `deny.toml` is written in.
const VERSION: &str = "0.20.2";
/// What is judged with what is here alone.
const OFFLINE: [&str; 3] = ["licenses", "bans", "sources"];

/// Installs it if need be, and counts what it was asked for. Known holes count as skipped where their list cannot be fetched.
pub(crate) fn deny() -> Result<Tally> {
    let mut tally = without_holes()?;
    let program = program();
    if run(cargo_deny(&program).args(["fetch", "db"])).is_ok() {
        tally.record(run(cargo_deny(&program).args(["check", "--disable-fetch", "advisories"])).is_ok());
    } else {
        println!("The list of known holes cannot be fetched: nothing was looked up in it");
        tally.skipped += 1;
    }
    Ok(tally)
}

/// The same but for known holes: what it finds depends on nothing but the revision.
pub(crate) fn without_holes() -> Result<Tally> {
    let program = program();
    if !program.is_file() {
        run(&mut installing())?;
    }
    let mut tally = Tally::default();
    for what in OFFLINE {
        tally.record(run(cargo_deny(&program).args(["check", what])).is_ok());
    }
    Ok(tally)
}

/// Installs it; done at once if it is there. Not optimised: it is done in a fifth of the time, and has little to do.
pub(crate) fn installing() -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args(["install", "cargo-deny", "--quiet", "--locked", "--debug"])
        .args(["--version", VERSION, "--root"])
        .arg(folder())
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo
}

/// A folder of its own: what a person has installed stays as it is.
fn folder() -> PathBuf {
    workspace::target().join("tools/cargo-deny").join(VERSION)
}

fn program() -> PathBuf {
    folder().join("bin/cargo-deny")
}

fn cargo_deny(program: &Path) -> Command {
    let mut command = Command::new(program);
    workspace::forget_ourselves(&mut command);
    command.current_dir(workspace::root());
    command
}
