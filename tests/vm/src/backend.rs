//! A `vhost-blk` process of ours, as tests start and stop it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};

use crate::patience::wait_for;

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the programs under test are: named by whoever built them, else beside this program.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("STORAGED_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?
            .parent()
            .map(Path::to_path_buf)
            .context("this program is in no folder")?,
    };
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: build it with `cargo build -p {name}`",
        path.display()
    );
    Ok(path)
}

/// A running `vhost-blk`. Ends with this value.
pub struct Backend {
    child: Child,
    socket: PathBuf,
}

impl Backend {
    /// Starts it with these arguments, and waits until it listens. What it says goes into a file beside
    /// its socket.
    pub fn start(socket: &Path, arguments: &[&str]) -> Result<Self> {
        // The file of an earlier process would look as if somebody listened.
        if socket.exists() {
            std::fs::remove_file(socket)?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(socket.with_extension("log"))?;
        let mut command = Command::new(program("vhost-blk")?);
        command
            .arg("--socket")
            .arg(socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(log);
        let child = command.spawn().context("start vhost-blk")?;
        let mut backend = Self {
            child,
            socket: socket.to_path_buf(),
        };
        wait_for("vhost-blk to listen", PATIENCE, || {
            if let Some(status) = backend.child.try_wait()? {
                anyhow::bail!("vhost-blk has ended at once: {status}");
            }
            Ok(backend.socket.exists().then_some(()))
        })?;
        Ok(backend)
    }

    /// Ends it with SIGTERM; what it has taken is finished before.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let child = &mut self.child;
        wait_for("vhost-blk to end", PATIENCE, || Ok(child.try_wait()?))
    }

    /// Stops it with SIGSTOP: it is there and does nothing.
    pub fn pause(&self) -> Result<()> {
        Ok(rustix::process::kill_process(
            Pid::from_child(&self.child),
            Signal::STOP,
        )?)
    }

    /// Lets it go on after [`Backend::pause`].
    pub fn resume(&self) -> Result<()> {
        Ok(rustix::process::kill_process(
            Pid::from_child(&self.child),
            Signal::CONT,
        )?)
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
