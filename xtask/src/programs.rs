//! Builds programs of the workspace and runs those that test: each ends with a line that counts.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::process::{run, run_and_read};
use crate::tally::Tally;
use crate::workspace;

/// How a program is compiled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Profile {
    /// With debug assertions and overflow checks: what the tests run.
    Checked,
    /// As it is shipped: what long runs, the demo and benchmarks use.
    Release,
}

/// A binary of the workspace, in which no two have the same name.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    pub(crate) binary: &'static str,
}

/// The daemon.
pub(crate) const STORAGED: Program = Program { binary: "storaged" };
/// The vhost-user-blk backend.
pub(crate) const VHOST_BLK: Program = Program { binary: "vhost-blk" };
/// The NBD server.
pub(crate) const NBD: Program = Program {
    binary: "storaged-nbd",
};
/// Volumes as block devices of a host's kernel.
pub(crate) const ATTACH: Program = Program {
    binary: "storaged-attach",
};
/// The iSCSI server.
pub(crate) const ISCSI: Program = Program {
    binary: "storaged-iscsi",
};
/// The command line.
pub(crate) const STORAGECTL: Program = Program { binary: "storagectl" };
/// OpenStack's Block Storage API.
pub(crate) const CINDER_API: Program = Program { binary: "cinder-api" };
/// What a node runs: tests of whole programs find them beside their own.
pub(crate) const PRODUCT: &[Program] = &[STORAGED, VHOST_BLK, NBD, ISCSI, STORAGECTL];

/// What this process has built. Nobody changes a source meanwhile, so cargo is not asked twice: it would wait for the lock of
/// what is compiled beside the tests.
static BUILT: Mutex<BTreeSet<(Profile, &str)>> = Mutex::new(BTreeSet::new());

/// Says that programs were built.
pub(crate) fn are_built(profile: Profile, programs: &[Program]) {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.extend(programs.iter().map(|program| (profile, program.binary)));
}

/// Builds programs, unless this process has; the answer is the folder that they are in.
pub(crate) fn build(profile: Profile, programs: &[Program]) -> Result<PathBuf> {
    let built = BUILT.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !programs
        .iter()
        .all(|program| built.contains(&(profile, program.binary)))
    {
        run(&mut building(profile, programs))?;
        are_built(profile, programs);
    }
    Ok(folder(profile))
}

/// What builds programs.
pub(crate) fn building(profile: Profile, programs: &[Program]) -> Command {
    let mut cargo = workspace::cargo();
    // By the names of binaries, and not of packages: then every build agrees on the features of third-party
    // crates. With a package's own features some thirty of them, and all that stands on them, were compiled anew.
    cargo.args(["build", "--workspace"]);
    for program in programs {
        cargo.args(["--bin", program.binary]);
    }
    for feature in programs.iter().filter_map(|program| feature(program.binary)) {
        cargo.args(["--features", feature]);
    }
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo
}

/// The bugs on purpose are compiled in only where they are wanted: never beside the product.
fn feature(binary: &str) -> Option<&'static str> {
    match binary {
        "mutants" => Some("simulator/mutants"),
        "store-mutants" => Some("crash-tests/mutants"),
        _ => None,
    }
}

fn folder(profile: Profile) -> PathBuf {
    workspace::target().join(match profile {
        Profile::Checked => "debug",
        Profile::Release => "release",
    })
}

/// Builds a program that tests, and what it tests, runs it, and reads what it counted.
pub(crate) fn test(
    profile: Profile,
    program: Program,
    with: &[Program],
    arguments: &[String],
) -> Result<Tally> {
    let mut all = with.to_vec();
    all.push(program);
    let folder = build(profile, &all)?;
    let mut command = Command::new(folder.join(program.binary));
    command
        .args(arguments)
        .current_dir(workspace::root())
        .env("STORAGED_PROGRAMS", &folder);
    count(&mut command)
}

/// Runs a program that tests, and reads what it counted.
pub(crate) fn count(command: &mut Command) -> Result<Tally> {
    let (output, good) = run_and_read(command)?;
    Ok(judged(Tally::find(&output), good))
}

/// A program's count, if it agrees with its status; a failure more if it does not.
fn judged(counted: Option<Tally>, good: bool) -> Tally {
    let mut tally = counted.unwrap_or_default();
    let consistent = counted.is_some_and(|tally| good == (tally.failed == 0));
    if !consistent && tally.failed == 0 {
        tally.failed = 1;
    }
    tally
}

#[cfg(test)]
mod tests {
    //! A program that crashes, or says nothing, must not count as passed.
    use super::*;

    #[test]
    fn a_bad_status_or_a_missing_count_is_a_failure() {
        let passed = Tally {
            passed: 5,
            failed: 0,
            skipped: 0,
        };
        assert_eq!(judged(Some(passed), true), passed);
        assert_eq!(judged(Some(passed), false).failed, 1);
        assert_eq!(judged(None, true).failed, 1);
        assert_eq!(judged(Some(Tally { failed: 2, ..passed }), false).failed, 2);
        assert_eq!(judged(Some(Tally { failed: 2, ..passed }), true).failed, 2);
    }
}
