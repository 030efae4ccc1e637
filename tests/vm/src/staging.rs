//! Disks for guests, made of files of this machine: what goes onto one is gathered in a folder first. It knows nothing of
//! what the files are.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Copies a file, or a folder with all that is in it, into or to `to`; of links what they name.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp")
        .args(["-aL", "--no-preserve=ownership"])
        .args([from, to]))
}

/// Makes a disk with an ext4 of so many bytes (as `mke2fs` takes them) that has what is in the folder, which is removed.
pub fn make_disk(folder: &Path, disk: &Path, bytes: &str) -> Result<()> {
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .args([folder, disk])
        .arg(bytes))?;
    Ok(std::fs::remove_dir_all(folder)?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
