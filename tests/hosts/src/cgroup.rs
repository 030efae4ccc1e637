//! A control group for each host: systemd-nspawn gives the host what it is in itself, so each must be in one of its own.
//! It does not know hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What groups of ours begin with.
const PREFIX: &str = "storaged-hosts";

/// Groups of one name, in every hierarchy that systemd cares for. They go with this value.
pub(crate) struct Cgroup {
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the groups.
    pub(crate) fn make(name: &str) -> Result<Self> {
        let name = format!(
            "{PREFIX}-{name}-{}",
            fs::read_link("/proc/self/ns/pid")?.display()
        );
        let name: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let mut folders = Vec::new();
        for hierarchy in hierarchies()? {
            let folder = hierarchy.join(&name);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            folders.push(folder);
        }
        ensure!(
            !folders.is_empty(),
            "this machine has no control groups of version 2"
        );
        Ok(Self { folders })
    }

    /// A command that runs a program in them.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        let script = "program=$1; shift; while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\" || exit; shift; done; \
                      shift; exec \"$program\" \"$@\"";
        command
            .args(["-c", script, "sh", program])
            .args(&self.folders)
            .arg("--");
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            remove(folder);
        }
    }
}

/// Removes what a run that was killed has left behind. Call it before any host is there: a group that nobody is in yet would
/// go, too.
pub(crate) fn clear() -> Result<()> {
    for hierarchy in hierarchies()? {
        for entry in fs::read_dir(hierarchy)?.filter_map(Result::ok) {
            let events = fs::read_to_string(entry.path().join("cgroup.events")).unwrap_or_default();
            let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
            if ours && !events.contains("populated 1") {
                remove(&entry.path());
            }
        }
    }
    Ok(())
}

/// A group can only go after those in it.
fn remove(folder: &Path) {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Where groups of version 2 are, and those of version 1 that are for names only.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let wanted = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, place, kind, options, ..] = fields[..] else {
            return None;
        };
        let named = kind == "cgroup" && options.split(',').any(|option| option == "name=systemd");
        (kind == "cgroup2" || named).then(|| PathBuf::from(place))
    };
    let mut all: Vec<PathBuf> = mounts.lines().filter_map(wanted).collect();
    all.sort();
    all.dedup();
    Ok(all)
}
