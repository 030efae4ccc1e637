//! One host: Debian with an init, a network interface, an ssh daemon and disks of its own, under systemd-nspawn (here) or in
//! QEMU (`machine`). It knows neither Ansible nor storaged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Cgroup;
use crate::inside::{self, SWITCH, finish};

/// How long a host may take to start, and to answer: one in QEMU is emulated.
const START_LIMIT: Duration = Duration::from_mins(6);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often is looked in a host, a second apart, until something is so.
const TRIES: u32 = 120;
/// How long each disk of a host is. They are thin.
pub(crate) const DISK_BYTES: u64 = 4 << 30;
/// How many bytes of a log are shown.
const SHOWN_MAX: usize = 4000;

/// The name of a container's network interface.
const INTERFACE: &str = "host0";
/// The file in a host's folder that has what it says while it starts.
pub(crate) const CONSOLE: &str = "console";

/// What all hosts have in common.
pub(crate) struct Kind {
    /// Debian, which nobody changes.
    pub(crate) root: PathBuf,
    /// Folders of this machine that hosts may read, and where.
    pub(crate) shared: Vec<(PathBuf, &'static str)>,
    /// Where hosts keep what they change.
    pub(crate) place: PathBuf,
    /// The file with the key that opens them, and the same with `.pub`.
    pub(crate) key: PathBuf,
}

/// A host that runs. It ends with this value.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) folder: PathBuf,
    pub(crate) key: PathBuf,
    /// What it runs in: systemd-nspawn, or QEMU.
    pub(crate) process: Child,
    /// Open as long as a container is: a loop device lets go of its file with the last who has it open.
    pub(crate) _disks: Vec<File>,
    /// A container's.
    pub(crate) _cgroup: Option<Cgroup>,
}

impl Host {
    /// Starts a container with so many disks. It is there when `await_start` has come back.
    pub(crate) fn start(kind: &Kind, number: u8, disks: usize) -> Result<Self> {
        let name = name_of(number);
        let folder = kind.place.join(&name);
        let root = furnished(kind, number, INTERFACE)?;
        let cgroup = Cgroup::make(&name)?;
        let mut command = cgroup.command("systemd-nspawn");
        command
            .args([
                "--quiet",
                "--boot",
                "--register=no",
                "--keep-unit",
                "--console=pipe",
            ])
            .arg(format!("--machine={name}"))
            .arg(format!("--network-bridge={SWITCH}"))
            .arg(format!("--directory={}", root.display()))
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        for (from, to) in &kind.shared {
            command.arg(format!("--bind-ro={}:{to}", from.display()));
        }
        let mut open = Vec::new();
        for disk in 1..=disks {
            let (device, file) = make_disk(&folder.join(format!("disk-{disk}")))?;
            command.arg(format!(
                "--bind={device}:/dev/disk/by-id/virtio-{name}-disk-{disk}"
            ));
            open.push(file);
        }
        let log = File::create(folder.join(CONSOLE))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start systemd-nspawn")?;
        Ok(Self {
            name,
            address: inside::address(number),
            folder,
            key: kind.key.clone(),
            process,
            _disks: open,
            _cgroup: Some(cgroup),
        })
    }

    /// Waits until it answers to ssh, and its systemd has started everything.
    pub(crate) fn await_start(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} has ended: {status}: {}", self.name, self.console());
            }
            let answer = self.ssh("systemctl is-system-running --wait");
            match answer {
                Ok(state) if state == "running" => return Ok(()),
                Ok(state) => bail!("{} is {state}", self.name),
                Err(error) if Instant::now() > deadline => {
                    let said = self.console();
                    return Err(error).with_context(|| format!("{} does not answer: {said}", self.name));
                }
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Waits until a command gives another answer than before. While nobody answers, that is waited for, too.
    pub(crate) fn await_other(&mut self, command: &str, before: &str) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while self.ssh(command).map_or(true, |answer| answer == before) {
            ensure!(
                Instant::now() < deadline,
                "{}: {command} still says {before}: {}",
                self.name,
                self.console()
            );
            ensure!(self.process.try_wait()?.is_none(), "{} has ended", self.name);
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Runs a shell's command in it, as root; an error says what it said.
    pub(crate) fn ssh(&self, command: &str) -> Result<String> {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(&self.key);
        for option in SSH_OPTIONS {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("root@{}", self.address))
            .arg(command)
            .stdin(Stdio::null());
        finish(&mut ssh).with_context(|| self.name.clone())
    }

    /// Waits until a shell's command in it succeeds; if it does not, an error says what `tell` says.
    pub(crate) fn until(&self, command: &str, tell: &str) -> Result<()> {
        let patiently =
            format!("for try in $(seq {TRIES}); do {command} && exit 0; sleep 1; done; {tell}; exit 1");
        self.ssh(&patiently).map(drop)
    }

    /// A path of a container's, as this machine can open it: sockets, too.
    pub(crate) fn path(&self, inside: &str) -> Result<PathBuf> {
        let init = self.init()?;
        Ok(PathBuf::from(format!("/proc/{init}/root{inside}")))
    }

    /// The process that is its init: the child of systemd-nspawn.
    fn init(&self) -> Result<u32> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let first = children.split_whitespace().next();
        let first = first.with_context(|| format!("{} has no init", self.name))?;
        first.parse().context("read a process's number")
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.folder.join(CONSOLE)).unwrap_or_default();
        let from = bytes.len().saturating_sub(SHOWN_MAX);
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its processes end with the first of them.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How hosts are reached: they are as old as this run, so nobody knows them.
pub(crate) const SSH_OPTIONS: [&str; 5] = [
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=2",
    "BatchMode=yes",
];

/// What the host of this number is called.
pub(crate) fn name_of(number: u8) -> String {
    format!("host-{number}")
}

/// Makes the host's root: Debian, and over it what is the host's own. The answer is where it is mounted.
pub(crate) fn furnished(kind: &Kind, number: u8, interface: &str) -> Result<PathBuf> {
    let folder = kind.place.join(name_of(number));
    let [upper, work, root] = ["upper", "work", "root"].map(|part| folder.join(part));
    for part in [&upper, &work, &root] {
        fs::create_dir_all(part)?;
    }
    furnish(&upper, number, interface, &kind.key)?;
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        kind.root.display(),
        upper.display(),
        work.display()
    );
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &layers]);
    finish(mount.arg(&root))?;
    Ok(root)
}

/// What is the host's own: name, address, who may come in.
fn furnish(upper: &Path, number: u8, interface: &str, key: &Path) -> Result<()> {
    let write = |path: &str, text: &str| {
        let path = upper.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    let (name, address) = (name_of(number), inside::address(number));
    write("etc/hostname", &format!("{name}\n"))?;
    write("etc/hosts", &format!("127.0.0.1 localhost\n{address} {name}\n"))?;
    write(
        "etc/systemd/network/10-host.network",
        &format!("[Match]\nName={interface}\n[Network]\nAddress={address}/24\nLinkLocalAddressing=no\n"),
    )?;
    let wants = upper.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink(
        "/lib/systemd/system/systemd-networkd.service",
        wants.join("systemd-networkd.service"),
    )?;
    let public = fs::read_to_string(key.with_extension("pub"))?;
    write("root/.ssh/authorized_keys", &public)?;
    finish(
        Command::new("chmod")
            .args(["-R", "go-rwx"])
            .arg(upper.join("root")),
    )?;
    ensure!(upper.join("etc/hostname").exists(), "a host has no name");
    Ok(())
}

/// A block device over a file. The device is gone when it is open nowhere any more.
fn make_disk(path: &Path) -> Result<(String, File)> {
    File::create(path)?.set_len(DISK_BYTES)?;
    let device = finish(Command::new("losetup").args(["--find", "--show"]).arg(path))?;
    let open = File::open(&device).with_context(|| format!("open {device}"))?;
    // While it is open, that is a wish for later.
    finish(Command::new("losetup").args(["--detach", &device]))?;
    Ok((device, open))
}
