//! A disk with the root of a node of Proxmox VE, as far as the plugin needs one: perl with the modules that the plugin loads, the
//! plugin and its units where its package puts them, doubles of Proxmox VE's modules, and the programs of storaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use test_node::program;

use crate::image::libraries_of;
use crate::packages::{self, Need};
use crate::staging::{copy, make_disk};

/// The plugin's sources.
const PLUGIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proxmox-plugin");
/// What the plugin needs beside perl itself.
const PERL: &[Need] = &[
    ("perl", "podchecker"),
    ("libjson-perl", "/usr/share/perl5/JSON.pm"),
];
/// Programs of storaged's own.
const PROGRAMS: &[&str] = &["storaged", "storaged-nbd", "storaged-attach"];
/// Folders that something is mounted on.
const PLACES: &[&str] = &["dev", "proc", "sys", "tmp", "bin", "run", "var/lib/storaged"];
/// Of the plugin's sources: what, and where it goes.
const PARTS: &[(&str, &str)] = &[
    ("lib/PVE", "usr/share/perl5"),
    ("t/lib/PVE", "usr/share/perl5"),
    ("systemd/storaged-pve-nbd.service", "lib/systemd/system"),
    ("systemd/storaged-pve-attach.service", "lib/systemd/system"),
    ("t/guest/call", "usr/bin"),
    ("t/guest/systemctl", "usr/bin"),
];
/// Bytes of the disk: programs with all that finds faults in them are some 200 MB.
const DISK: &str = "1200M";

/// Makes the disk.
pub(super) fn make(disk: &Path) -> Result<()> {
    packages::ensure(PERL)?;
    let root = disk.with_extension("folder");
    for place in PLACES {
        fs::create_dir_all(root.join(place))?;
    }
    for (what, to) in PARTS {
        let to = root.join(to);
        fs::create_dir_all(&to)?;
        copy(&Path::new(PLUGIN).join(what), &to)?;
    }
    let mut files = loaded()?;
    // What processes load that perl makes of itself is in none of its own lists: all that lies beside its first module.
    let first = files.iter().find(|file| file.ends_with("strict.pm"));
    let base = first.and_then(|file| file.parent()).context("perl is strict")?;
    let to = to_place(&root, base)?;
    copy(base, to.parent().context("a folder is in one")?)?;
    for name in PROGRAMS {
        let program = program(name)?;
        copy(&program, &root.join("usr/bin"))?;
        files.extend(libraries_of(&program, Path::new("/"))?);
    }
    for file in files {
        copy(&file, &to_place(&root, &file)?)?;
    }
    make_disk(&root, disk, DISK)
}

/// Where a file or folder of this machine goes, in a folder that is there.
fn to_place(root: &Path, path: &Path) -> Result<PathBuf> {
    let to = root.join(path.strip_prefix("/").context("a file has a whole path")?);
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    Ok(to)
}

/// The interpreter and what it loads for the plugin, from where this machine has it, and the libraries of these.
fn loaded() -> Result<BTreeSet<PathBuf>> {
    let plugin = Path::new(PLUGIN);
    let mut command = Command::new("perl");
    command.arg("-T");
    for folder in ["lib", "t/lib"] {
        command.arg(format!("-I{}", plugin.join(folder).display()));
    }
    let output = command.arg(plugin.join("t/guest/call")).arg("modules").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the plugin does not load: {said}");
    let listed = String::from_utf8_lossy(&output.stdout);
    let ours = fs::canonicalize(plugin)?;
    let mut files = BTreeSet::new();
    for line in listed.lines() {
        let file = PathBuf::from(line);
        if fs::canonicalize(&file)?.starts_with(&ours) {
            continue;
        }
        let is_module = file.extension().is_some_and(|extension| extension == "pm");
        if !is_module {
            files.extend(libraries_of(&file, Path::new("/"))?);
        }
        files.insert(file);
    }
    Ok(files)
}
