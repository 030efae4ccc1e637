//! Child processes: started, awaited by a condition, charged for their CPU time, ended by their id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a condition is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long a program may take to do what it was started for, or to end. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
/// The unit of the CPU accounts in /proc: `USER_HZ`, which is 100 wherever this runs.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// The flag of a socket that takes connections (`__SO_ACCEPTCON` of Linux's `net.h`).
const SOCKET_LISTENS: u32 = 1 << 16;

/// A program of a system under test. It is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to the file `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log,
        })
    }

    /// Waits until `condition` holds; fails if the program ends before.
    pub(crate) fn wait_until(&mut self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !condition() {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{} ended ({status}) before {what}; it said:\n{said}", self.name);
            }
            if begin.elapsed() > PATIENCE {
                bail!("{} has not come to this in {PATIENCE:?}: {what}", self.name);
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Waits until a program listens on a unix socket. Its file is there a moment before that.
    pub(crate) fn wait_for_socket(&mut self, path: &Path) -> Result<()> {
        self.wait_until(&format!("listening on {}", path.display()), || listens(path))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time that it took so far, all threads, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begin.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// A program of the workspace: where `cargo xtask` says that it built them, or beside this one.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let built = std::env::var_os("STORAGED_PROGRAMS").map(PathBuf::from);
    let folder = built
        .or_else(|| own.parent().map(Path::to_owned))
        .unwrap_or_default();
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: run `cargo xtask bench`, which builds it",
        path.display()
    );
    Ok(path)
}

/// Whether some program listens on a unix socket, as the kernel's list says: its flags there are in hexadecimal.
fn listens(path: &Path) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let flags = fields
            .nth(3)
            .and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let at = fields.nth(3).map(Path::new);
        flags.is_some_and(|flags| flags & SOCKET_LISTENS != 0) && at == Some(path)
    })
}

/// User and system time of a process, all its threads, in seconds; 0 when it is gone.
pub(crate) fn cpu_seconds(id: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The second field is the program's name in brackets and may hold spaces.
    let Some((_, fields)) = text.rsplit_once(')') else {
        return 0.0;
    };
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<u64>().ok())
        .sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// Bytes that a process had written to storage so far; 0 when it is gone.
pub(crate) fn written_bytes(id: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// This process's resident memory now, and the most that it ever had, in bytes.
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (
        field("VmRSS:").unwrap_or(0) << 10,
        field("VmHWM:").unwrap_or(0) << 10,
    )
}
