//! The systems under test: each starts its own processes in its own folder, on unix sockets, and
//! ends them when it is dropped.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::guest::{Guest, Notification};
use crate::node::Node;
use crate::process::{Process, cpu_seconds, program, written_bytes};

/// How long a system must neither compute nor write to count as quiet.
const QUIET_FOR: Duration = Duration::from_millis(300);
/// The longest wait for that. A system that never rests is measured as it is.
const QUIET_LIMIT: Duration = Duration::from_mins(1);
/// CPU time within [`QUIET_FOR`] that is no work: timers, one tick of the kernel's account.
const QUIET_CPU_SECONDS: f64 = 0.015;

/// Which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// qemu-storage-daemon exporting a raw file: `cache.direct=on`, `aio=io_uring`.
    Qemu,
    /// vhost-blk on storaged, one copy on one disk.
    OneCopy,
    /// vhost-blk on storaged, three copies on three disks of the same file system.
    ThreeCopies,
    /// storaged-nbd on storaged, one copy on one disk; `bench vhost` has it, with another client.
    #[value(skip)]
    Nbd,
    /// vhost-blk alone, over memory: what the ring and the process cost without storage.
    Memory,
}

impl Kind {
    /// Its name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-storage-daemon",
            Self::OneCopy => "storaged-1-copy",
            Self::ThreeCopies => "storaged-3-copies",
            Self::Nbd => "storaged-1-copy-nbd",
            Self::Memory => "vhost-blk-memory",
        }
    }
}

/// A running system with a guest on it.
pub(crate) struct System {
    pub(crate) kind: Kind,
    pub(crate) guest: Guest,
    // After the guest: a backend that loses its guest first ends without a complaint.
    processes: Vec<Process>,
}

impl System {
    /// Starts the system in the empty folder `folder` with a device of `size` bytes.
    pub(crate) fn start(kind: Kind, folder: &Path, size: u64, notification: Notification) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let (processes, socket) = match kind {
            Kind::Qemu => start_qemu(folder, size)?,
            Kind::Nbd => bail!("NBD has a client of its own: see `bench vhost`"),
            Kind::OneCopy => start_storaged(folder, size, 1)?,
            Kind::ThreeCopies => start_storaged(folder, size, 3)?,
            Kind::Memory => start_vhost_blk(folder, &["--memory".into(), size.to_string().into()])?,
        };
        let guest = Guest::connect(&socket, notification).with_context(|| kind.name().to_owned())?;
        Ok(Self {
            kind,
            guest,
            processes,
        })
    }

    /// User and system time of all its processes so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    /// Waits until it has finished what it does in the background: that is charged to the pattern
    /// that caused it, and must not slow down the next system.
    pub(crate) fn settle(&self) {
        settle(&ids(&self.processes));
    }
}

/// The numbers of processes.
pub(crate) fn ids(processes: &[Process]) -> Vec<u32> {
    processes.iter().map(Process::id).collect()
}

/// Waits until processes neither compute nor write.
pub(crate) fn settle(processes: &[u32]) {
    let cpu = || processes.iter().map(|id| cpu_seconds(*id)).sum::<f64>();
    let written = || processes.iter().map(|id| written_bytes(*id)).sum::<u64>();
    let begin = Instant::now();
    while begin.elapsed() < QUIET_LIMIT {
        let before = (cpu(), written());
        thread::sleep(QUIET_FOR);
        let after = (cpu(), written());
        if after.1 == before.1 && after.0 - before.0 <= QUIET_CPU_SECONDS {
            return;
        }
    }
}

fn start_qemu(folder: &Path, size: u64) -> Result<(Vec<Process>, PathBuf)> {
    let image = folder.join("image.raw");
    fs::File::create(&image)
        .and_then(|file| file.set_len(size))
        .context("create the image")?;
    let socket = folder.join("vhost.sock");
    let mut command = Command::new("qemu-storage-daemon");
    command
        .arg("--object")
        .arg("iothread,id=thread")
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=file,filename={},cache.direct=on,aio=io_uring", image.display()))
        .arg("--blockdev")
        .arg("driver=raw,node-name=disk,file=file,cache.direct=on")
        .arg("--export")
        .arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,iothread=thread,addr.type=unix,addr.path={}",
            socket.display()
        ));
    let mut process = Process::start("qemu-storage-daemon", &mut command, folder.join("qemu.log"))?;
    process.wait_for_socket(&socket)?;
    Ok((vec![process], socket))
}

fn start_storaged(folder: &Path, size: u64, copies: u32) -> Result<(Vec<Process>, PathBuf)> {
    let node = Node::start(&folder.join("node"), copies)?;
    crate::node::runtime()?.block_on(async {
        node.admin.create_pool("pool", copies).await?;
        node.admin.create_volume("volume", size).await
    })?;
    let arguments = [
        "--storaged".into(),
        node.socket.into(),
        "--volume".into(),
        "volume".into(),
    ];
    let (mut processes, socket) = start_vhost_blk(folder, &arguments)?;
    processes.push(node.process);
    Ok((processes, socket))
}

fn start_vhost_blk(folder: &Path, arguments: &[OsString]) -> Result<(Vec<Process>, PathBuf)> {
    let socket = folder.join("vhost.sock");
    let mut command = Command::new(program("vhost-blk")?);
    command
        .args(arguments)
        .arg("--queues=1")
        .arg("--socket")
        .arg(&socket);
    let mut process = Process::start("vhost-blk", &mut command, folder.join("vhost-blk.log"))?;
    process.wait_for_socket(&socket)?;
    Ok((vec![process], socket))
}
