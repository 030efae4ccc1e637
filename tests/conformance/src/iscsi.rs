//! iSCSI: what libiscsi's tools, its conformance suite and QEMU's tools find when they use `storaged-iscsi`.

mod access;
mod images;
mod paths;
mod suite_of_libiscsi;

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use test_node::{Node, program};

use crate::stage::Server;
use crate::suite::{self, Selection, Tally};

/// The target.
const TARGET: &str = "iqn.2026-01.storaged:memory";
/// What libiscsi's suite calls itself, by its two names, and QEMU.
const INITIATORS: [&str; 4] = [
    "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test",
    "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2",
    "iqn.2008-11.org.linux-kvm",
    TRUSTED,
];
/// An initiator that must prove who it is.
const CAREFUL: &str = "iqn.2026-01.example:careful";
/// An initiator that nobody asks.
const TRUSTED: &str = "iqn.2026-01.example:trusted";
/// The secret of the careful one.
const SECRET: &str = "a-secret-of-16-b";
/// Bytes of each unit: the suite reads and writes a whole one.
const UNIT: u64 = 100 << 20;
/// The unit with blocks of 512 bytes, and the one with blocks of 4096.
const SHORT_BLOCKS: u32 = 0;
const LONG_BLOCKS: u32 = 1;
/// The volumes behind them.
const VOLUMES: [&str; 2] = ["short", "long"];
/// Disks of the cluster, and copies that it keeps.
const DISKS: u32 = 3;

/// One gateway with two units in memory, or two gateways of a cluster with the same two units.
struct Portal {
    /// For the check's own files.
    folder: TempDir,
    gateways: Vec<Server>,
}

impl Portal {
    fn in_memory() -> Result<Self> {
        let mut command = gateway()?;
        command.args(["--memory-target", TARGET]);
        command.args(["--memory", &format!("short={UNIT}")]);
        command.args(["--memory", &format!("long={UNIT}/4096")]);
        for initiator in INITIATORS {
            command.args(["--memory-access", initiator]);
        }
        command.args(["--memory-access", &format!("{CAREFUL}/careful/{SECRET}")]);
        Ok(Self {
            folder: tempfile::tempdir()?,
            gateways: vec![Server::start(&mut command, 1)?],
        })
    }

    /// Two gateways on one node. Volumes and target are new.
    fn in_cluster(node: &Node) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        prepare(node, &folder)?;
        let mut gateways = Vec::new();
        for group in ["1", "2"] {
            let mut command = gateway()?;
            command.arg("--storaged").arg(node.session_socket());
            command.arg("--admin-socket").arg(node.admin_socket());
            command.args(["--portal-group", group]);
            gateways.push(Server::start(&mut command, 1)?);
        }
        Ok(Self { folder, gateways })
    }

    /// How many paths there are.
    fn paths(&self) -> usize {
        self.gateways.len()
    }

    /// Where the last gateway listens, with `user` as libiscsi's URLs have it before the host.
    fn portal(&self, user: &str) -> Result<String> {
        self.portal_of(self.gateways.len() - 1, user)
    }

    fn portal_of(&self, path: usize, user: &str) -> Result<String> {
        let gateway = self.gateways.get(path).context("no such path")?;
        let address = gateway.addresses.first().context("no address")?;
        Ok(format!("iscsi://{user}{address}"))
    }

    fn unit(&self, user: &str, number: u32) -> Result<String> {
        Ok(format!("{}/{TARGET}/{number}", self.portal(user)?))
    }

    /// A unit by way of one of the gateways.
    fn path(&self, path: usize, number: u32) -> Result<String> {
        Ok(format!("{}/{TARGET}/{number}", self.portal_of(path, "")?))
    }

    /// Ends a gateway as a crash would.
    fn crash(&mut self, path: usize) -> Result<()> {
        self.gateways.remove(path).crash()
    }

    /// A path in the stage's folder.
    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

impl suite::Stage for Portal {
    fn close(self) -> suite::Finding {
        self.gateways.into_iter().try_for_each(Server::stop)
    }
}

/// The command line that all gateways have in common.
fn gateway() -> Result<Command> {
    let mut command = Command::new(program("storaged-iscsi")?);
    command.args(["--listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "error");
    Ok(command)
}

/// Makes the target anew, with new volumes.
fn prepare(node: &Node, folder: &TempDir) -> Result<()> {
    let targets: Value = serde_json::from_str(&node.storagectl(&["--json", "iscsi", "target", "list"])?)?;
    if targets["targets"]
        .as_array()
        .is_some_and(|targets| !targets.is_empty())
    {
        node.storagectl(&["iscsi", "target", "delete", TARGET, "--yes"])?;
        for volume in VOLUMES {
            node.storagectl(&["volume", "delete", volume, "--yes"])?;
        }
    }
    node.storagectl(&["iscsi", "target", "create", TARGET])?;
    for (volume, block_size) in VOLUMES.into_iter().zip(["512", "4096"]) {
        node.storagectl(&["volume", "create", volume, &UNIT.to_string()])?;
        node.storagectl(&["iscsi", "lun", "add", TARGET, volume, "--block-size", block_size])?;
    }
    for initiator in INITIATORS {
        node.storagectl(&["iscsi", "acl", "add", TARGET, initiator])?;
    }
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET)?;
    let secret = secret.display().to_string();
    let chap = ["--chap-user", "careful", "--chap-secret-file", &secret];
    node.storagectl(&[&["iscsi", "acl", "add", TARGET, CAREFUL], &chap[..]].concat())?;
    Ok(())
}

/// Runs the selected checks, first against a gateway that serves volumes from memory, so that what fails there is the
/// gateway's fault, then against two in front of a cluster. The brief run leaves out what takes minutes.
pub fn run(selection: &Selection, brief: bool) -> Tally {
    let mut tally = Tally::default();
    let both = [access::CHECKS, images::CHECKS];
    let long = if brief { &[][..] } else { suite_of_libiscsi::LONG };
    for checks in both.into_iter().chain([suite_of_libiscsi::SHORT, long]) {
        tally.run("iscsi in memory", checks, selection, Portal::in_memory);
    }
    match start() {
        Ok(node) => {
            let short = if brief { &[][..] } else { suite_of_libiscsi::SHORT };
            for checks in both.into_iter().chain([paths::CHECKS, short, long]) {
                tally.run("iscsi in a cluster", checks, selection, || {
                    Portal::in_cluster(&node)
                });
            }
        }
        Err(error) => tally.fail("start a cluster", &error),
    }
    tally
}

fn start() -> Result<Node> {
    let node = Node::start(DISKS)?;
    node.storagectl(&["pool", "create", "conformance", "--copies", &DISKS.to_string()])?;
    Ok(node)
}
