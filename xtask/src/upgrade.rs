//! `cargo xtask upgrade`: builds the programs of an older revision beside those of this one, and has a cluster upgraded
//! from the one to the other while it is written to. What happens then is the business of tests/upgrade.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian;
use crate::process::run;
use crate::programs::{self, ATTACH, CINDER_API, NBD, PRODUCT, Profile, Program, STORAGECTL, STORAGED};
use crate::tally::Tally;
use crate::{campaigns, package, workspace};

/// What a node of the older revision runs, and a front end that any client can write to.
const OLD: [Program; 3] = [STORAGED, NBD, STORAGECTL];
const UPGRADE: Program = Program { binary: "upgrade" };
/// What packages of an older revision are called, whatever its own version is.
const OLDER_VERSION: &str = "0.0.1";

/// A rolling upgrade from this revision, and the way back.
pub(crate) fn upgrade(from: &str) -> Result<Tally> {
    debian::fetch_etcd()?;
    let old = older(from, &OLD)?;
    let arguments = ["--old".to_owned(), old.display().to_string()];
    programs::test(Profile::Checked, UPGRADE, PRODUCT, &arguments)
}

/// Real hosts, rolled out by Ansible and upgraded: from this revision, or from the same programs under another version.
pub(crate) fn hosts(from: Option<&str>) -> Result<Tally> {
    let place = workspace::target().join("hosts");
    let (packages, older_packages) = (place.join("packages"), place.join("older-packages"));
    for folder in [&packages, &older_packages] {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    let product = [PRODUCT, &[ATTACH, CINDER_API]].concat();
    let programs = programs::build(Profile::Checked, &product)?;
    package::quickly(&programs, &packages)?;
    let Some(from) = from else {
        return campaigns::hosts(Profile::Checked, &packages, None);
    };
    let old = older(from, &product)?;
    package_older(&old, &older_packages)?;
    campaigns::hosts(Profile::Checked, &packages, Some(&older_packages))
}

/// Has an older revision make packages of its programs: units and scripts are then as old as these.
fn package_older(programs: &Path, into: &Path) -> Result<()> {
    let place = workspace::target().join("upgrade");
    let mut cargo = workspace::cargo();
    cargo
        .current_dir(place.join("source"))
        .env("CARGO_TARGET_DIR", place.join("build"));
    cargo.args([
        "run",
        "--quiet",
        "--bin",
        "xtask",
        "--",
        "package",
        "storaged",
        "cinder-api",
    ]);
    cargo.args(["--quick", "--version", OLDER_VERSION, "--programs"]);
    run(cargo.arg(programs).arg("--into").arg(into)).context("an older revision makes packages")
}

/// Has programs of an older revision: the answer is where they are.
fn older(revision: &str, wanted: &[Program]) -> Result<PathBuf> {
    let place = workspace::target().join("upgrade");
    let source = place.join("source");
    check_out(revision, &source)?;
    build_old(&source, &place.join("build"), wanted)
}

/// Has the revision in a work tree of its own.
fn check_out(revision: &str, source: &Path) -> Result<()> {
    let mut git = Command::new("git");
    if source.join(".git").exists() {
        git.current_dir(source)
            .args(["checkout", "--quiet", "--detach", revision]);
    } else {
        let mut prune = Command::new("git");
        // One that was there before, and was removed with the build folder.
        run(prune.current_dir(workspace::root()).args(["worktree", "prune"]))?;
        git.current_dir(workspace::root())
            .args(["worktree", "add", "--quiet", "--detach"])
            .arg(source)
            .arg(revision);
    }
    run(&mut git).with_context(|| format!("there is no revision {revision} to upgrade from"))
}

/// Builds its programs, with a folder of their own: the answer is where they are.
fn build_old(source: &Path, target: &Path, wanted: &[Program]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.current_dir(source).env("CARGO_TARGET_DIR", target);
    cargo.args(["build", "--workspace"]);
    for program in wanted {
        cargo.args(["--bin", program.binary]);
    }
    run(&mut cargo)?;
    Ok(target.join("debug"))
}
