//! libvirt: a domain whose disk is `<disk type='vhostuser'>`, defined with `virsh`, run by Debian's `libvirtd`
//! and QEMU, and used by a Linux guest.
//!
//! `libvirtd` keeps its files at fixed places. So all of this runs in a mount namespace of its own, where
//! those places are empty and in memory: a libvirt that the machine has is not touched. That needs root.

mod checks;
mod daemon;
mod domain;
mod migration;
mod nova;

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use vm_tests::image::Image;

use crate::suite::{Selection, Tally};
use domain::{Running, Stage};

/// Says that this process is in a mount namespace of its own already.
const INSIDE: &str = "STORAGED_CONFORMANCE_INSIDE";

/// Runs the selected checks.
pub fn run(selection: &Selection, folder: &Path) -> Tally {
    let mut tally = Tally::default();
    if !rustix::process::geteuid().is_root() {
        println!("libvirt ... skipped: a mount namespace of one's own needs root");
        tally.skipped += 1;
        return tally;
    }
    if std::env::var_os(INSIDE).is_none() {
        return inside().unwrap_or_else(|error| {
            tally.fail("enter a mount namespace", &error);
            tally
        });
    }
    match prepare(folder) {
        Ok(domain) => {
            let domain = Rc::new(RefCell::new(domain));
            tally.run("libvirt", checks::ALL, selection, || {
                Ok(Stage(Rc::clone(&domain)))
            });
        }
        Err(error) => tally.fail("start a domain", &error),
    }
    tally
}

fn prepare(folder: &Path) -> Result<Running> {
    let image = Image::prepare(folder).context("prepare the guest's image")?;
    Running::start(&image, Rc::new(daemon::Libvirt::start()?))
}

/// Runs this program again with the same words, where mounts are nobody else's. It has counted when it ends.
fn inside() -> Result<Tally> {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1");
    let mut child = command.stdout(Stdio::piped()).spawn().context("run unshare")?;
    let said = child.stdout.take().context("no output to read")?;
    let mut last = String::new();
    for line in BufReader::new(said).lines() {
        // Its last line is its count, which this process prints.
        if !last.is_empty() {
            println!("{last}");
        }
        last = line?;
    }
    let status = child.wait()?;
    let tally = Tally::read(&last).with_context(|| format!("{last:?} is no count"))?;
    ensure!(
        status.success() == tally.is_good(),
        "it counted {tally} and ended with {status}"
    );
    Ok(tally)
}
