//! Other people's clusters on this machine: brought up, measured and taken down by scripts that are not part of
//! this repository. Knows what those print, and nothing of the systems.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::local::pattern::{CLUSTER, Pattern};
use crate::local::report::Sample;

/// The columns of what the scripts print.
const COLUMNS: usize = 9;

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// Ceph RBD: a monitor, a manager and three `BlueStore` OSDs (six for rows), fio's rbd engine.
    Ceph,
    /// `GlusterFS`: replica 3 with its options for disk images, fio's gfapi engine.
    Gluster,
}

impl Peer {
    /// Its name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ceph => "ceph",
            Self::Gluster => "gluster",
        }
    }
}

/// How a peer keeps a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Three copies.
    Copies,
    /// Four shards of data and two of parity, on six disks; of Ceph only.
    Rows,
}

impl Kept {
    /// What the scripts call it.
    fn mode(self) -> &'static str {
        match self {
            Self::Copies => "rep",
            Self::Rows => "ec",
        }
    }
}

/// A peer that runs.
pub(crate) struct Running {
    pub(crate) peer: Peer,
    kept: Kept,
    script: PathBuf,
    folder: PathBuf,
    span: u64,
}

impl Running {
    /// Brings a peer up; its files go into `folder`.
    pub(crate) fn start(peer: Peer, kept: Kept, scripts: &Path, folder: PathBuf, span: u64) -> Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let script = scripts.join(format!("{}.sh", peer.name()));
        // Before the start, so that half of one is taken down as well.
        let running = Self {
            peer,
            kept,
            script,
            folder,
            span,
        };
        running.call("start", 0, "")?;
        Ok(running)
    }

    /// Runs one pattern.
    pub(crate) fn measure(&self, pattern: Pattern, seconds: u64) -> Result<Sample> {
        let printed = self.call("bench", seconds, pattern.name)?;
        let line = printed.lines().find_map(|line| sample(line, pattern.name));
        line.with_context(|| {
            format!(
                "{} printed no line for {}: {printed}",
                self.peer.name(),
                pattern.name
            )
        })
    }

    fn call(&self, what: &str, seconds: u64, pattern: &str) -> Result<String> {
        let output = Command::new(&self.script)
            .arg(what)
            .arg(&self.folder)
            .env("MODE", self.kept.mode())
            .env("SIZE", self.span.to_string())
            .env("RUNTIME", seconds.to_string())
            .env("PATTERNS", format!("^{pattern}$"))
            .output()
            .with_context(|| format!("run {}", self.script.display()))?;
        ensure!(
            output.status.success(),
            "{} {what} ended with {}: {}",
            self.script.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.call("stop", 0, "") {
            eprintln!("{} is not taken down: {error:#}", self.peer.name());
        }
    }
}

/// Reads a line of what the scripts print: the CPU in it is the system's and the client's together.
fn sample(line: &str, pattern: &str) -> Option<Sample> {
    let fields: Vec<&str> = line.split('\t').collect();
    if fields.len() != COLUMNS || fields[1] != pattern {
        return None;
    }
    let number = |at: usize| fields[at].parse::<f64>().ok();
    Some(Sample {
        iops: number(4)?,
        megabytes: number(5)?,
        mean: number(6)?,
        p99: number(7)?,
        system_cpu: number(8)?,
        client_cpu: 0.0,
        other_cpu: 0.0,
    })
}

/// The patterns whose names contain one of these words; all, if there are none.
pub(crate) fn patterns(only: &[String]) -> impl Iterator<Item = &'static Pattern> {
    let named =
        move |pattern: &&Pattern| only.is_empty() || only.iter().any(|word| pattern.name.contains(word));
    CLUSTER.iter().filter(named)
}
