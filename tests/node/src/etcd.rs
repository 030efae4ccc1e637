//! A real etcd for tests: one member or several on loopback ports, with data in a folder of its own;
//! killed, started again, saved and restored. Its programs come from Debian's packages.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::Process;

/// Where data is: on a disk by convention, unlike /tmp.
const FOLDERS: &str = "/var/tmp";
/// Between heartbeats of members, in milliseconds: shorter than etcd's own, so that a new leader is there
/// soon, and leases may last a second.
const HEARTBEAT_MS: u32 = 50;
/// Without heartbeats for so long, members choose another leader. etcd wants ten heartbeats at least.
const ELECTION_MS: u32 = 500;

/// Where a program of etcd is: unpacked by `cargo xtask test` beside what cargo builds, or installed.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let unpacked = test.ancestors().map(|folder| folder.join("etcd/usr/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    unpacked
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("there is no {name}: install etcd-server and etcd-client, or run `cargo xtask test`, which fetches them")
        })
}

/// The certificates of a member, in PEM files.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Who signed its own and its clients'.
    pub ca: PathBuf,
    /// Its own.
    pub certificate: PathBuf,
    /// The private key of that.
    pub key: PathBuf,
}

/// Where a member runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address that it listens at.
    pub address: Ipv4Addr,
    /// The file that stands for the network namespace that it runs in, if that is not this program's.
    pub namespace: Option<PathBuf>,
}

/// The client's port and the other members' port of a member that has an address for itself.
const PORTS: (u16, u16) = (2379, 2380);

/// An etcd. It ends with this value.
pub struct Etcd {
    members: Vec<Member>,
    certificates: Option<Certificates>,
    /// A cluster that was made from a backup is another one, with folders of its own.
    life: u32,
    folder: TempDir,
}

struct Member {
    process: Option<Process>,
    place: Place,
    client_port: u16,
    peer_port: u16,
}

impl Etcd {
    /// Starts an etcd with so many members.
    pub fn start(members: usize) -> Result<Self> {
        Self::start_with(members, None)
    }

    /// Starts an etcd whose clients must show a certificate.
    pub fn start_secured(members: usize, certificates: Certificates) -> Result<Self> {
        Self::start_with(members, Some(certificates))
    }

    fn start_with(members: usize, certificates: Option<Certificates>) -> Result<Self> {
        // Held until all are known, so that none is given twice.
        let held = (0..2 * members).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let held = held
            .collect::<std::io::Result<Vec<_>>>()
            .context("find free ports")?;
        let ports = held.iter().map(|listener| Ok(listener.local_addr()?.port()));
        let ports = ports.collect::<Result<Vec<u16>>>()?;
        drop(held);
        let members = ports.chunks_exact(2).map(|pair| Member {
            process: None,
            place: Place {
                address: Ipv4Addr::LOCALHOST,
                namespace: None,
            },
            client_port: pair[0],
            peer_port: pair[1],
        });
        Self::start_members(members.collect(), certificates)
    }

    /// Starts an etcd with a member at each of these places, none of which has another one.
    pub fn start_at(places: Vec<Place>) -> Result<Self> {
        let members = places.into_iter().map(|place| Member {
            process: None,
            place,
            client_port: PORTS.0,
            peer_port: PORTS.1,
        });
        Self::start_members(members.collect(), None)
    }

    fn start_members(members: Vec<Member>, certificates: Option<Certificates>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("storaged-etcd-")
            .tempdir_in(FOLDERS)
            .context("make a folder")?;
        let mut etcd = Self {
            members,
            certificates,
            life: 0,
            folder,
        };
        for member in 0..etcd.members.len() {
            etcd.start_member(member)?;
        }
        Ok(etcd)
    }

    /// Where clients find its members.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len())
            .map(|member| self.endpoint(member))
            .collect()
    }

    /// Where clients find a member.
    pub fn endpoint(&self, member: usize) -> String {
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let Member {
            place, client_port, ..
        } = &self.members[member];
        format!("{scheme}://{}:{client_port}", place.address)
    }

    /// The port where clients find a member.
    pub fn client_port(&self, member: usize) -> u16 {
        self.members[member].client_port
    }

    /// Where its members keep their data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many members it has.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The processes of the members that run.
    pub fn ids(&self) -> Vec<u32> {
        let running = self.members.iter().filter_map(|member| member.process.as_ref());
        running.map(Process::id).collect()
    }

    /// Kills a member as a crash would.
    pub fn kill_member(&mut self, member: usize) -> Result<()> {
        match self.members[member].process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Kills all members.
    pub fn kill(&mut self) -> Result<()> {
        (0..self.members.len()).try_for_each(|member| self.kill_member(member))
    }

    /// Starts all members that were killed.
    pub fn start_again(&mut self) -> Result<()> {
        (0..self.members.len()).try_for_each(|member| self.start_member(member))
    }

    /// Stops a member's process without ending it, or lets it go on.
    pub fn freeze(&self, member: usize, frozen: bool) -> Result<()> {
        let process = self.members[member].process.as_ref();
        let process = process.context("the member was killed")?;
        if frozen { process.freeze() } else { process.thaw() }
    }

    /// Starts a member that was killed.
    pub fn start_member(&mut self, member: usize) -> Result<()> {
        if self.members[member].process.is_some() {
            return Ok(());
        }
        let peers = self.peers().join(",");
        let peer = self.peer(member);
        let client = self.endpoint(member);
        let mut arguments: Vec<String> = [
            ("--name", member.to_string()),
            ("--data-dir", self.data(member).display().to_string()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", peers),
            ("--heartbeat-interval", HEARTBEAT_MS.to_string()),
            ("--election-timeout", ELECTION_MS.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        if let Some(certificates) = &self.certificates {
            let file = |path: &Path| path.display().to_string();
            arguments.push("--client-cert-auth".to_owned());
            for (name, path) in [
                ("--trusted-ca-file", &certificates.ca),
                ("--cert-file", &certificates.certificate),
                ("--key-file", &certificates.key),
            ] {
                arguments.extend([name.to_owned(), file(path)]);
            }
        }
        let log = self.folder.path().join(format!("{member}.log"));
        let Member {
            place, client_port, ..
        } = &self.members[member];
        let mut process =
            Process::start_inside(place.namespace.as_deref(), &program("etcd")?, arguments, &log)?;
        let address = (place.address, *client_port);
        process.wait_for("etcd to listen", || std::net::TcpStream::connect(address).ok())?;
        self.members[member].process = Some(process);
        Ok(())
    }

    /// Runs `etcdctl`, as anybody may; the answer is what it printed.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        self.etcdctl_at(&self.endpoints(), arguments)
    }

    fn etcdctl_at(&self, endpoints: &[String], arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("etcdctl")?);
        command
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", endpoints.join(","))
            .env("ETCDCTL_COMMAND_TIMEOUT", "30s")
            .env("ETCDCTL_DIAL_TIMEOUT", "10s");
        if let Some(certificates) = &self.certificates {
            command
                .env("ETCDCTL_CACERT", &certificates.ca)
                .env("ETCDCTL_CERT", &certificates.certificate)
                .env("ETCDCTL_KEY", &certificates.key);
        }
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().context("start etcdctl")?;
        ensure!(
            output.status.success(),
            "etcdctl {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).context("read etcdctl's answer")
    }

    /// Which member leads.
    pub fn leader(&self) -> Result<usize> {
        let status = self.etcdctl(&["endpoint", "status", "--write-out=simple"])?;
        let leads = |line: &str| line.split(", ").nth(4) == Some("true");
        let line = status.lines().find(|line| leads(line));
        let line = line.with_context(|| format!("no member leads:\n{status}"))?;
        let led = (0..self.members.len()).find(|member| line.starts_with(&self.endpoint(*member)));
        led.context("the leader is none of ours")
    }

    /// Saves what it holds, as its first member knows it.
    pub fn save(&self, name: &str) -> Result<PathBuf> {
        let file = self.folder.path().join(name);
        let arguments = ["snapshot", "save", &file.display().to_string()];
        self.etcdctl_at(&[self.endpoint(0)], &arguments)?;
        Ok(file)
    }

    /// Kills all members and makes a cluster with the same addresses from a backup.
    pub fn restore(&mut self, backup: &Path) -> Result<()> {
        self.kill()?;
        self.life += 1;
        let peers = self.peers().join(",");
        for member in 0..self.members.len() {
            let data = self.data(member).display().to_string();
            let (name, peer) = (member.to_string(), self.peer(member));
            let backup = backup.display().to_string();
            self.etcdctl(&[
                "snapshot",
                "restore",
                &backup,
                "--name",
                &name,
                "--data-dir",
                &data,
                "--initial-cluster",
                &peers,
                "--initial-advertise-peer-urls",
                &peer,
            ])?;
        }
        self.start_again()
    }

    fn peer(&self, member: usize) -> String {
        let Member { place, peer_port, .. } = &self.members[member];
        format!("http://{}:{peer_port}", place.address)
    }

    fn peers(&self) -> Vec<String> {
        let peer = |member| format!("{member}={}", self.peer(member));
        (0..self.members.len()).map(peer).collect()
    }

    fn data(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("{member}-{}", self.life))
    }
}
