//! Starts our servers for one check, and ends them.

use std::cell::{RefCell, RefMut};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use test_node::{Node, program};

use crate::suite;

/// A process of ours that says `listening on ADDRESS` when it is ready. Ended when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addresses: Vec<String>,
}

impl Server {
    /// Starts it and waits until it says that it listens, as often as it has addresses.
    pub fn start(command: &mut Command, addresses: usize) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {shown}"))?;
        let output = child.stdout.take().context("no output to read")?;
        let mut server = Self {
            child,
            addresses: Vec::new(),
        };
        for line in BufReader::new(output).lines().take(addresses) {
            let line = line?;
            let address = line.strip_prefix("listening on ");
            server.addresses.push(
                address
                    .with_context(|| format!("{shown} said {line:?}"))?
                    .to_owned(),
            );
        }
        if server.addresses.len() < addresses {
            bail!("{shown} ended before it listened: {:?}", server.child.wait()?);
        }
        Ok(server)
    }

    /// Asks it to leave and waits until it has; it must leave well.
    pub fn stop(mut self) -> Result<()> {
        self.leave()
    }

    /// Stops it in the middle of whatever it does, without a word to anybody.
    pub fn freeze(&self) -> Result<()> {
        test_node::process::freeze(&self.child)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        test_node::process::thaw(&self.child)
    }

    fn leave(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "the server left with {status}");
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn crash(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A volume that a check wants to find.
pub type Volume = (&'static str, u64);

/// What stands behind the gateway of a stage.
enum Source {
    Memory,
    /// One cluster for all checks, each of which finds its volumes new and empty.
    Cluster(Rc<RefCell<Node>>),
}

/// A folder, and `storaged-nbd` on a unix socket in it.
pub struct Stage {
    /// For the check's own files.
    pub folder: TempDir,
    gateway: Server,
    source: Source,
}

impl Stage {
    /// A gateway that serves `volumes` from its own memory.
    pub fn in_memory(volumes: &[Volume]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let gateway = Server::start(&mut in_memory(folder.path(), volumes)?, 1)?;
        Ok(Self {
            folder,
            gateway,
            source: Source::Memory,
        })
    }

    /// A gateway in front of a cluster that has these volumes, and no others, new.
    pub fn in_cluster(node: Rc<RefCell<Node>>, volumes: &[Volume]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        clear(&node.borrow())?;
        for (name, size) in volumes {
            node.borrow()
                .storagectl(&["volume", "create", name, &size.to_string()])?;
        }
        let gateway = Server::start(&mut before(&node.borrow(), folder.path())?, 1)?;
        Ok(Self {
            folder,
            gateway,
            source: Source::Cluster(node),
        })
    }

    /// The gateway's process.
    pub fn gateway(&self) -> &Server {
        &self.gateway
    }

    /// The cluster behind the gateway.
    pub fn node(&self) -> Result<RefMut<'_, Node>> {
        match &self.source {
            Source::Cluster(node) => Ok(node.borrow_mut()),
            Source::Memory => bail!("there is no cluster on this stage"),
        }
    }

    /// Runs `storagectl` on the cluster.
    pub fn storagectl(&self, arguments: &[&str]) -> Result<String> {
        self.node()?.storagectl(arguments)
    }

    /// Kills the gateway as a crash would, and starts another one on the same socket.
    pub fn crash_gateway(&mut self) -> Result<()> {
        let mut command = before(&*self.node()?, self.folder.path())?;
        self.gateway.child.kill()?;
        self.gateway.child.wait()?;
        self.gateway = Server::start(&mut command, 1)?;
        Ok(())
    }

    /// The address of an export as `nbdinfo`, `nbdcopy`, `fio`, `qemu-img` and `qemu-io` take it.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket())
    }

    /// The path of the gateway's socket.
    pub fn socket(&self) -> String {
        self.path("nbd.sock")
    }

    /// A path in the stage's folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

impl suite::Stage for Stage {
    fn close(mut self) -> suite::Finding {
        self.gateway.leave()
    }
}

/// Deletes all volumes that former checks left behind.
fn clear(node: &Node) -> Result<()> {
    let volumes: Value = serde_json::from_str(&node.storagectl(&["--json", "volume", "list"])?)?;
    for volume in volumes["volumes"].as_array().context("a list of volumes")? {
        let name = volume["name"].as_str().context("a name")?;
        node.storagectl(&["volume", "delete", name, "--with-snapshots", "--yes"])?;
    }
    Ok(())
}

/// The command line of a gateway in front of a cluster, with its socket in `folder`.
pub fn before(node: &Node, folder: &Path) -> Result<Command> {
    let mut command = Command::new(program("storaged-nbd")?);
    command.arg("--storaged").arg(node.session_socket());
    command
        .arg("--listen")
        .arg(format!("unix:{}", folder.join("nbd.sock").display()));
    command.env("RUST_LOG", "warn");
    Ok(command)
}

/// The command line of a gateway without a cluster, with its socket in `folder`.
pub fn in_memory(folder: &Path, volumes: &[Volume]) -> Result<Command> {
    let mut command = Command::new(program("storaged-nbd")?);
    command
        .arg("--listen")
        .arg(format!("unix:{}", folder.join("nbd.sock").display()));
    for (name, size) in volumes {
        command.args(["--memory", &format!("{name}={size}")]);
    }
    command.env("RUST_LOG", "warn");
    Ok(command)
}

/// A program that goes to the background when it is ready. Ended when dropped.
pub struct Forked {
    pid: Pid,
}

impl Forked {
    /// Starts it, waits until it is ready, and reads who it is from the file that it wrote.
    pub fn start(command: &mut Command, pid_file: &Path) -> Result<Self> {
        let status = command.status().with_context(|| format!("start {command:?}"))?;
        ensure!(status.success(), "{command:?}: {status}");
        let pid = std::fs::read_to_string(pid_file)?
            .trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.with_context(|| format!("{command:?} left no process id"))?,
        })
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill_process(self.pid, Signal::TERM);
    }
}
