//! `cargo xtask upgrade`: builds the programs of an older revision beside those of this one, and has a cluster upgraded
//! from the one to the other while it is written to. What happens then is the business of tests/upgrade.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian;
use crate::process::run;
use crate::programs::{self, NBD, PRODUCT, Profile, Program, STORAGECTL, STORAGED};
use crate::tally::Tally;
use crate::workspace;

/// What a node of the older revision runs, and a front end that any client can write to.
const OLD: [Program; 3] = [STORAGED, NBD, STORAGECTL];
const UPGRADE: Program = Program { binary: "upgrade" };

/// A rolling upgrade from this revision, and the way back.
pub(crate) fn upgrade(from: &str) -> Result<Tally> {
    debian::fetch_etcd()?;
    let place = workspace::target().join("upgrade");
    let source = place.join("source");
    check_out(from, &source)?;
    let old = build_old(&source, &place.join("build"))?;
    let arguments = ["--old".to_owned(), old.display().to_string()];
    programs::test(Profile::Checked, UPGRADE, PRODUCT, &arguments)
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
fn build_old(source: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.current_dir(source).env("CARGO_TARGET_DIR", target);
    cargo.args(["build", "--workspace"]);
    for program in OLD {
        cargo.args(["--bin", program.binary]);
    }
    run(&mut cargo)?;
    Ok(target.join("debug"))
}
