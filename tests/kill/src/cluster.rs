//! One `storaged` with three disks in a folder of its own, and the volume that is written to.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::worker::BLOCKS;

/// How many disks.
const DISKS: u32 = 3;
/// How long `storaged` may take to start, whatever its logs hold, or to stop.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The pool.
const POOL: &str = "kill";
/// The volume.
pub(crate) const VOLUME: &str = "victim";

/// `storaged` and its folder.
pub(crate) struct Cluster {
    programs: PathBuf,
    folder: TempDir,
    storaged: Child,
}

impl Cluster {
    /// Starts `storaged` in a new folder; makes a pool of three copies and a volume.
    pub(crate) fn start(programs: PathBuf) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("storaged-kill-")
            .tempdir()
            .context("make a folder")?;
        let storaged = spawn(&programs, folder.path())?;
        let mut cluster = Self {
            programs,
            folder,
            storaged,
        };
        cluster.wait_until_it_serves()?;
        cluster.storagectl(&["pool", "create", POOL, "--copies", &DISKS.to_string()])?;
        let size = BLOCKS * 4096;
        cluster.storagectl(&["volume", "create", VOLUME, &size.to_string(), "--pool", POOL])?;
        Ok(cluster)
    }

    /// The socket for front ends.
    pub(crate) fn session_socket(&self) -> PathBuf {
        self.folder.path().join("storaged.sock")
    }

    /// Kills `storaged` as a crash would, and starts it again.
    pub(crate) fn kill_and_restart(&mut self) -> Result<()> {
        self.storaged.kill().context("kill storaged")?;
        self.storaged.wait().context("wait for storaged")?;
        self.storaged = spawn(&self.programs, self.folder.path())?;
        self.wait_until_it_serves()
    }

    /// Stops `storaged` in good order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let process = i32::try_from(self.storaged.id()).ok().and_then(Pid::from_raw);
        kill_process(process.context("storaged's process id")?, Signal::TERM).context("stop storaged")?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.storaged.try_wait()? {
                ensure!(status.success(), "storaged stopped with {status}");
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        bail!("storaged does not stop within {PATIENCE:?}")
    }

    /// The disks' folders.
    pub(crate) fn disks(&self) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(self.folder.path().join("disks"))
            .into_iter()
            .flatten()
            .flatten();
        let mut disks: Vec<PathBuf> = listed
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        disks.sort();
        disks
    }

    /// Verifies a disk that nobody runs.
    pub(crate) fn check_disk(&self, disk: &Path) -> Result<()> {
        let disk = disk.to_str().context("a folder's name is not UTF-8")?;
        self.storagectl(&["disk", "check", disk])
    }

    /// Leaves the folder for whoever looks into what went wrong.
    pub(crate) fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    fn storagectl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(self.programs.join("storagectl"));
        command
            .arg("--socket")
            .arg(self.folder.path().join("admin.sock"))
            .args(arguments);
        let output = command
            .stdin(Stdio::null())
            .output()
            .context("start storagectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "storagectl {} failed: {}",
            arguments.join(" "),
            said.trim()
        );
        Ok(())
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.storagectl(&["status"]).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.storaged.try_wait()? {
                bail!(
                    "storaged ended with {status}; its log is in {}",
                    self.keep().display()
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        bail!(
            "storaged does not serve within {PATIENCE:?}; its log is in {}",
            self.keep().display()
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may be stopped already.
        let _ = self.storaged.kill();
        let _ = self.storaged.wait();
    }
}

fn spawn(programs: &Path, folder: &Path) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("storaged.log"))
        .context("open a log")?;
    let program = programs.join("storaged");
    Command::new(&program)
        .arg("--work-dir")
        .arg(folder)
        .args(["--disks", &DISKS.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", program.display()))
}
