//! A Debian to install packages into: the machine's own release, from where the machine has its own packages. It is made once
//! and kept in cargo's build folder; each trial has a copy.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::package::moment::output;
use crate::process::{announce, run};
use crate::workspace;

/// What has to be in it besides what every Debian has: what the units need, what sets up a network, and a client.
const PACKAGES: &str = "systemd,kmod,iproute2,qemu-utils";
/// The file in it that says what it was made of.
const MADE_OF: &str = "made-of";
/// Namespaces of its own, so that nothing of the machine is seen or touched: its services, processes, ports.
const ALONE: [&str; 7] = [
    "--mount",
    "--pid",
    "--net",
    "--ipc",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// A copy, which goes with this value.
pub(super) struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    /// Makes the Debian if there is none yet, and a copy of it.
    pub(super) fn new() -> Result<Self> {
        let original = original()?;
        let folder = tempfile::tempdir_in(workspace::target())?;
        run(Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .arg(original.join("."))
            .arg(folder.path()))?;
        Ok(Self { folder })
    }

    /// A folder in it.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(folder)
    }

    /// Boots it, and waits until it ends by itself, or for so many seconds.
    pub(super) fn boot(&self, limit: u32) -> Result<()> {
        let mut boot = Command::new("timeout");
        boot.args(["--kill-after=10", &limit.to_string()])
            .args(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"])
            .args(["--private-network", "--boot", "--directory"])
            .arg(self.folder.path())
            // What it says while it boots helps nobody.
            .stdout(Stdio::null());
        announce(&boot);
        // How the trial went is not its status's business.
        boot.status().context("start systemd-nspawn")?;
        Ok(())
    }

    /// A program that sees nothing but this root.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(ALONE)
            .arg(format!("--root={}", self.folder.path().display()))
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        command
    }
}

/// The Debian that copies are made of.
fn original() -> Result<PathBuf> {
    let kept = workspace::target().join("package-root");
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release does not name a Debian release")?;
    let made_of = format!("{codename} with {PACKAGES}\n");
    if fs::read_to_string(kept.join(MADE_OF)).is_ok_and(|text| text == made_of) {
        return Ok(kept);
    }
    let archive = archive(codename)?;
    let partial = workspace::target().join("package-root.partial");
    for former in [&partial, &kept] {
        if former.exists() {
            fs::remove_dir_all(former).with_context(|| format!("remove {}", former.display()))?;
        }
    }
    run(Command::new("debootstrap")
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), codename])
        .arg(&partial)
        .arg(archive))?;
    fs::write(partial.join(MADE_OF), made_of)?;
    fs::rename(&partial, &kept).context("keep the root")?;
    Ok(kept)
}

/// Where apt has the packages of this release from.
fn archive(codename: &str) -> Result<String> {
    let ask = || {
        output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            &format!("Codename: {codename}"),
        ]))
    };
    let mut answer = ask()?;
    if answer.trim().is_empty() {
        // The lists of packages may be missing.
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        answer = ask()?;
    }
    let first = answer.lines().next().map(str::to_owned);
    first.with_context(|| format!("apt knows no packages of {codename}"))
}
