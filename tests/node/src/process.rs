//! One program of ours as a process that ends with its value, and says why it failed.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};

/// How long a program may take to start, whatever its logs hold, or to stop.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at whether something has happened in another process.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The most bytes of a log that are shown when its program failed.
const LOG_SHOWN_MAX: usize = 4000;

/// Where a program under test is: in the folder that `STORAGED_PROGRAMS` names, or beside this
/// program, or above it (tests lie in `deps`).
pub fn program(name: &str) -> Result<PathBuf> {
    let folders: Vec<PathBuf> = match std::env::var_os("STORAGED_PROGRAMS") {
        Some(folder) => vec![folder.into()],
        None => std::env::current_exe()?
            .ancestors()
            .skip(1)
            .take(2)
            .map(Path::to_owned)
            .collect(),
    };
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: cargo build --package {name}"))
}

/// A program to be started, in a network namespace if one is named: the file that stands for it. `nsenter` becomes the
/// program, so that the process is the one that was started.
pub fn command_inside(namespace: Option<&Path>, path: &Path) -> Command {
    let Some(namespace) = namespace else {
        return Command::new(path);
    };
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", namespace.display()))
        .arg("--")
        .arg(path);
    command
}

/// Stops a process with SIGSTOP in the middle of whatever it does. When this returns all its threads stand still: the
/// signal alone says that of none but the thread that takes it, when it next runs.
pub fn freeze(child: &Child) -> Result<()> {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::STOP)?;
    let either = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(pid), either)?;
    ensure!(
        status.is_some_and(|status| status.stopped()),
        "it ended before it stood still"
    );
    Ok(())
}

/// Lets a process go on that was frozen.
pub fn thaw(child: &Child) -> Result<()> {
    Ok(kill_process(Pid::from_child(child), Signal::CONT)?)
}

/// A running program.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program of ours; what it says is appended to the file `log`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self> {
        Self::start_at(&program(name)?, arguments, log)
    }

    /// Starts any program; what it says is appended to the file `log`.
    pub fn start_at<A: AsRef<OsStr>>(
        path: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self> {
        Self::start_inside(None, path, arguments, log)
    }

    /// As [`Process::start_at`], in a network namespace if one is named: the file that stands for it.
    pub fn start_inside<A: AsRef<OsStr>>(
        namespace: Option<&Path>,
        path: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self> {
        let mut command = command_inside(namespace, path);
        command.args(arguments).stdin(Stdio::null());
        let mut process = Self::start_command(command, log)?;
        // Not what starts it in another namespace.
        process.name = name_of(path);
        Ok(process)
    }

    /// Starts what a command says; what it says is appended to the file `log`.
    pub fn start_command(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        // The last words of a program that refuses are an error, not where it came from.
        command.env("RUST_LIB_BACKTRACE", "0");
        command
            .stdout(file.try_clone().context("share a log")?)
            .stderr(file);
        let path = Path::new(command.get_program()).to_owned();
        let child = command
            .spawn()
            .with_context(|| format!("start {}", path.display()))?;
        Ok(Self {
            child,
            name: name_of(&path),
            log: log.to_owned(),
        })
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `look` gives something; fails at once if the program ends before.
    /// `what` completes the sentence "waited in vain for ...".
    pub fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}; it said:\n{}", self.name, self.said());
            }
            if Instant::now() > deadline {
                bail!(
                    "waited in vain for {what}, for {PATIENCE:?}; {} said:\n{}",
                    self.name,
                    self.said()
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until somebody listens on a unix socket.
    pub fn wait_for_socket(&mut self, socket: &Path) -> Result<()> {
        let what = format!("somebody to listen on {}", socket.display());
        self.wait_for(&what, || std::os::unix::net::UnixStream::connect(socket).ok())
            .map(drop)
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))
            .map(drop)
    }

    /// Asks it to end (SIGTERM), and waits until it has, in good order.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.terminate()?;
        ensure!(
            status.success(),
            "{} stopped with {status}; it said:\n{}",
            self.name,
            self.said()
        );
        Ok(())
    }

    /// Stops it in the middle of whatever it does: none of its threads does anything more when this returns.
    pub fn freeze(&self) -> Result<()> {
        freeze(&self.child).with_context(|| format!("freeze {}", self.name))
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        thaw(&self.child).with_context(|| format!("thaw {}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("signal {}", self.name))
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait_until_it_ends()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until it ends by itself.
    pub fn wait_until_it_ends(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{} does not end; it said:\n{}",
                self.name,
                self.said()
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The end of its log.
    fn said(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let start = log.len().saturating_sub(LOG_SHOWN_MAX);
        String::from_utf8_lossy(log.get(start..).unwrap_or_default()).into_owned()
    }
}

/// What a program is called in messages.
fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
