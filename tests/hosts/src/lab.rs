//! What all scenarios happen in: Debian, our packages, a key, a place that is gone with the program, and hosts that are
//! started in it. It does not know what is rolled out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use vm_tests::scenarios::Setting;

use crate::cgroup;
use crate::debian::Debian;
use crate::host::{Host, Kind};
use crate::inside::{self, finish};
use crate::machine;
use crate::own_packages::Packages;

/// Where all that this run writes is: memory that nobody outside sees.
const PLACE: &str = "/run/storaged-hosts";
/// Only one run on a machine has it.
const LOCK: &str = "/run/lock/storaged-hosts";
/// How much of it there may be at most. Disks are thin.
const PLACE_SIZE: &str = "12g";
/// Disks of each host: two to begin with, and one that another is replaced by.
const DISKS: usize = 3;

/// A lab with its hosts.
pub(crate) struct Lab {
    kind: Kind,
    pub(crate) packages: Packages,
    /// The control node's folder.
    pub(crate) control: PathBuf,
    pub(crate) hosts: Vec<Host>,
    _lock: File,
}

impl Lab {
    /// Makes a lab without hosts. Call it in namespaces of our own.
    pub(crate) fn raise(debian: Debian, built: &Path, older: Option<&Path>) -> Result<Self> {
        // One at a time: whatever nobody uses, and is ours, is left over.
        let lock = File::create(LOCK).with_context(|| format!("make {LOCK}"))?;
        lock.lock().with_context(|| format!("lock {LOCK}"))?;
        cgroup::clear()?;
        inside::raise().context("make the network")?;
        let place = PathBuf::from(PLACE);
        fs::create_dir_all(&place).context("make the lab's folder")?;
        let size = format!("size={PLACE_SIZE},mode=0700");
        inside::run("mount", &["-t", "tmpfs", "-o", &size, "storaged-hosts", PLACE])?;
        let packages = Packages::gather(built, older, &place.join("packages"))?;
        let control = place.join("control");
        fs::create_dir_all(&control)?;
        let key = control.join("key");
        let mut keygen = Command::new("ssh-keygen");
        finish(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
        let shared = vec![
            (debian.repository, "/srv/debian"),
            (packages.repository.clone(), "/srv/storaged-packages"),
        ];
        let kind = Kind {
            root: fs::canonicalize(debian.root)?,
            shared: shared
                .into_iter()
                .map(|(from, to)| Ok((fs::canonicalize(from)?, to)))
                .collect::<Result<_>>()?,
            place,
            key,
        };
        Ok(Self {
            kind,
            packages,
            control,
            hosts: Vec::new(),
            _lock: lock,
        })
    }

    /// Starts so many hosts more, together.
    pub(crate) fn start(&mut self, count: usize) -> Result<()> {
        let from = self.hosts.len();
        for number in from + 1..=from + count {
            let host = Host::start(&self.kind, u8::try_from(number)?, DISKS);
            self.hosts
                .push(host.with_context(|| format!("start host {number}"))?);
        }
        self.await_start(from)
    }

    /// Starts a host more that has a kernel of its own.
    pub(crate) fn start_machine(&mut self, setting: &Setting) -> Result<()> {
        let from = self.hosts.len();
        let number = u8::try_from(from + 1)?;
        let host = machine::start(&self.kind, &setting.image, setting.accelerator, number, DISKS);
        self.hosts
            .push(host.with_context(|| format!("start host {number}"))?);
        self.await_start(from)
    }

    fn await_start(&mut self, from: usize) -> Result<()> {
        for host in self.hosts.iter_mut().skip(from) {
            host.await_start()?;
            // As on a server that was installed in the ordinary way.
            host.ssh("apt-get -qq update")?;
        }
        Ok(())
    }

    /// The file with the key that opens all hosts.
    pub(crate) fn key(&self) -> &Path {
        &self.kind.key
    }
}
