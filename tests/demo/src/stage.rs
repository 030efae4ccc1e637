//! The host's side: `storaged` with three disks, a pool, a volume, and a `vhost-blk` for each guest.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use test_node::{Node, Process};

use crate::journal::Journal;

/// The volume, as the README calls it.
pub(crate) const VOLUME: &str = "my-new-disk";
/// Its snapshot.
pub(crate) const SNAPSHOT: &str = "live";
/// The clone of that.
pub(crate) const CLONE: &str = "clone";
/// How many disks, and copies of each block.
const DISKS: u32 = 3;

/// All that runs on the host.
pub(crate) struct Stage {
    node: Node,
    backends: Vec<Process>,
}

impl Stage {
    /// From nothing to a volume.
    pub(crate) fn set(journal: &mut Journal) -> Result<Self> {
        let node = journal.step("start storaged with three disks", || {
            let node = Node::start(DISKS)?;
            let folder = node.folder().display().to_string();
            Ok((node, folder))
        })?;
        let ask = |arguments: &[&str]| {
            let said = node.storagectl(arguments)?;
            Ok(((), said.trim().to_owned()))
        };
        journal.step("make a pool with three copies", || {
            ask(&["pool", "create", "main", "--copies", &DISKS.to_string()])
        })?;
        journal.step("make a thin volume", || ask(&["volume", "create", VOLUME, "10G"]))?;
        Ok(Self {
            node,
            backends: Vec::new(),
        })
    }

    /// Starts a `vhost-blk` for a volume; gives its socket.
    pub(crate) fn attach(&mut self, volume: &str) -> Result<PathBuf> {
        let folder = self.node.folder();
        let socket = folder.join(format!("{volume}.vhost"));
        let session = self.node.session_socket();
        let arguments = [
            Path::new("--storaged"),
            &session,
            "--volume".as_ref(),
            volume.as_ref(),
            "--socket".as_ref(),
            &socket,
        ];
        let log = folder.join(format!("{volume}.log"));
        let mut backend = Process::start("vhost-blk", arguments, &log)?;
        // Looking is enough: vhost-blk takes a connection for a front end's.
        backend.wait_for("vhost-blk to listen", || socket.exists().then_some(()))?;
        self.backends.push(backend);
        Ok(socket)
    }

    /// Freezes the volume's state of this instant.
    pub(crate) fn snapshot(&self) -> Result<String> {
        let said = self.node.storagectl(&["volume", "snapshot", VOLUME, SNAPSHOT])?;
        Ok(said.trim().to_owned())
    }

    /// Makes a volume of the snapshot.
    pub(crate) fn make_clone(&self) -> Result<String> {
        let said = self
            .node
            .storagectl(&["volume", "clone", &format!("{VOLUME}@{SNAPSHOT}"), CLONE])?;
        Ok(said.trim().to_owned())
    }

    /// Kills `storaged` with SIGKILL and starts it again.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.node.kill()?;
        self.node.start_again()
    }

    /// What the three disks hold.
    pub(crate) fn used(&self) -> Result<String> {
        let text = self.node.storagectl(&["status"])?;
        let used = text.lines().find_map(|line| line.strip_prefix("used"));
        Ok(used.unwrap_or_default().trim().to_owned())
    }

    /// The snapshots and clones, drawn.
    pub(crate) fn tree(&self) -> Result<String> {
        self.node.storagectl(&["volume", "tree", VOLUME])
    }

    /// Leaves the disks where they are when all has ended.
    pub(crate) fn keep(&mut self) -> &Path {
        self.node.keep()
    }

    /// Ends everything in good order, and looks at the disks without a daemon.
    pub(crate) fn strike(mut self, journal: &mut Journal) -> Result<()> {
        journal.step("stop everything, verify the disks offline", || {
            for backend in &mut self.backends {
                backend.stop()?;
            }
            self.node.stop()?;
            let disks = self.node.disks();
            ensure!(disks.len() == DISKS as usize, "there are {} disks", disks.len());
            for disk in &disks {
                self.node
                    .storagectl(&["disk", "check", &disk.display().to_string()])?;
            }
            Ok(((), format!("{} disks are sound", disks.len())))
        })
    }
}
