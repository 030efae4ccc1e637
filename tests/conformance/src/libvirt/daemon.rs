//! `libvirtd`, as a machine runs it, but in folders that are empty and gone afterwards.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use vm_tests::patience::wait_for;

use crate::tool;

/// Where libvirt keeps what it knows.
const FOLDERS: [&str; 5] = [
    "/etc/libvirt",
    "/run/libvirt",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
];
/// Nobody is asked who he is: nobody else sees the sockets.
const DAEMON: &str = "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_group = \"root\"\n";
/// Without what a container or a small virtual machine has not: cgroups, a security module, a log daemon.
/// The user under which QEMU runs is Debian's own.
const QEMU: &str = "security_driver = \"none\"\ncgroup_controllers = [ ]\nnamespaces = [ ]\n\
                    stdio_handler = \"file\"\nremember_owner = 0\n";
/// How long it may take to start, or to carry out a command.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `libvirtd`. Ends with this value.
pub(super) struct Libvirt {
    daemon: Child,
    _folder: TempDir,
}

impl Libvirt {
    /// Starts it and waits until it answers.
    pub(super) fn start() -> Result<Self> {
        for folder in FOLDERS {
            fs::create_dir_all(folder)?;
            tool::succeed("mount", ["-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder])?;
        }
        fs::write("/etc/libvirt/libvirtd.conf", DAEMON)?;
        fs::write("/etc/libvirt/qemu.conf", QEMU)?;
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("libvirtd.log");
        let said = fs::File::create(&log)?;
        let daemon = Command::new("libvirtd")
            .arg("--pid-file")
            .arg(folder.path().join("libvirtd.pid"))
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("start libvirtd")?;
        let mut libvirt = Self {
            daemon,
            _folder: folder,
        };
        let daemon = &mut libvirt.daemon;
        let answered = wait_for("libvirtd to answer", PATIENCE, || {
            if let Some(status) = daemon.try_wait()? {
                bail!("it has ended: {status}");
            }
            Ok(virsh(&["version"]).ok())
        });
        let version = answered.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        let version: Vec<&str> = version.lines().skip(1).filter(|line| !line.is_empty()).collect();
        println!("{}", version.join("; "));
        Ok(libvirt)
    }

    /// Runs `virsh`.
    #[expect(clippy::unused_self, reason = "there is somebody to ask only while it runs")]
    pub(super) fn virsh(&self, words: &[&str]) -> Result<String> {
        virsh(words)
    }

    /// What QEMU said, of a domain.
    pub(super) fn qemu_log(name: &str) -> String {
        let log = Path::new("/var/log/libvirt/qemu").join(format!("{name}.log"));
        fs::read_to_string(log).unwrap_or_default()
    }
}

fn virsh(words: &[&str]) -> Result<String> {
    tool::succeed("virsh", ["-c", "qemu:///system"].iter().chain(words))
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // It may have ended already. Domains are the stages' business.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
