//! A `storaged` with three disks in a folder, its volumes, and the `vhost-blk` processes that offer them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::backend::{Backend, program};
use crate::patience::wait_for;

/// How long `storaged` may take to start, recovery included, or to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many disks.
const DISKS: &str = "3";

/// A running `storaged`. Ends with this value; its folder stays.
pub struct Cluster {
    folder: PathBuf,
    storaged: Child,
}

impl Cluster {
    /// Starts `storaged` in a folder, with three disks, and waits until it serves.
    pub fn start(folder: &Path) -> Result<Self> {
        let mut cluster = Self {
            folder: folder.to_path_buf(),
            storaged: spawn(folder)?,
        };
        cluster.wait_until_it_serves()?;
        Ok(cluster)
    }

    /// The same, with a pool of three copies over the disks.
    pub fn with_pool(folder: &Path) -> Result<Self> {
        let cluster = Self::start(folder)?;
        cluster.control(&["pool", "create", "main", "--copies", "3"])?;
        Ok(cluster)
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs `storagectl`; gives what it printed.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("storagectl")?);
        command
            .arg("--socket")
            .arg(self.folder.join("admin.sock"))
            .args(arguments);
        let output = command
            .stdin(Stdio::null())
            .output()
            .context("start storagectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "storagectl {} has failed: {}",
            arguments.join(" "),
            said.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `vhost-blk` is told to open a volume.
    pub fn opening(&self, volume: &str) -> Vec<String> {
        let storaged = format!("unix:{}", self.folder.join("storaged.sock").display());
        ["--storaged", &storaged, "--volume", volume]
            .map(str::to_owned)
            .to_vec()
    }

    /// Offers a volume at `NAME.sock` in the cluster's folder.
    pub fn offer(&self, volume: &str, name: &str) -> Result<(Backend, PathBuf)> {
        let socket = self.folder.join(format!("{name}.sock"));
        let arguments = self.opening(volume);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok((Backend::start(&socket, &arguments)?, socket))
    }

    /// Kills `storaged` with SIGKILL, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.storaged.kill()?;
        self.storaged.wait()?;
        Ok(())
    }

    /// Starts it again after [`Cluster::kill`].
    pub fn restart(&mut self) -> Result<()> {
        self.storaged = spawn(&self.folder)?;
        self.wait_until_it_serves()
    }

    /// Ends it in good order.
    pub fn stop(mut self) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.storaged), Signal::TERM)?;
        let storaged = &mut self.storaged;
        let status = wait_for("storaged to end", PATIENCE, || Ok(storaged.try_wait()?))?;
        ensure!(status.success(), "storaged ended with {status}");
        Ok(())
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        wait_for("storaged to serve", PATIENCE, || {
            if let Some(status) = self.storaged.try_wait()? {
                let log = std::fs::read_to_string(self.folder.join("storaged.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                bail!("storaged has ended with {status}; the last it said, newest first: {tail:#?}");
            }
            Ok(self.control(&["status"]).ok())
        })?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.storaged.kill();
        let _ = self.storaged.wait();
    }
}

fn spawn(folder: &Path) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("storaged.log"))?;
    let mut command = Command::new(program("storaged")?);
    command.arg("--work-dir").arg(folder).args(["--disks", DISKS]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("start storaged")
}
