//! Three nodes on loopback that share an etcd, a pool with three copies, and two volumes, each written to through an NBD
//! front end of its own. Which programs run is the caller's business.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use test_node::{Etcd, Node, Process};

use crate::pattern::BLOCK;
use crate::writer::{BLOCKS, Figures, Writer};

/// Nodes, each with one disk.
pub(crate) const NODES: usize = 3;
/// The volumes, each with the node, counted from 0, that its front end runs on.
const VOLUMES: [(&str, usize); 2] = [("alpha", 0), ("beta", 2)];
/// How long the cluster may take until it is whole again.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A front end, and who writes through it.
pub(crate) struct Line {
    pub(crate) volume: &'static str,
    node: usize,
    folder: TempDir,
    front: Process,
    pub(crate) writer: Writer,
}

/// Everything that runs. It ends with this value.
pub(crate) struct Stage {
    pub(crate) nodes: Vec<Node>,
    pub(crate) lines: Vec<Line>,
    /// The programs that each node runs.
    runs: Vec<PathBuf>,
    /// Those that can tell how far an upgrade is.
    new: PathBuf,
    _etcd: Etcd,
}

impl Stage {
    /// Sets everything up with these programs, and waits until it is whole. `new` are the programs that it is to be
    /// upgraded to.
    pub(crate) fn set(programs: &Path, new: &Path, seed: u64) -> Result<Self> {
        let etcd = Etcd::start(1)?;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(Node::of_version(programs, 1, &configuration(number, &etcd)?)?);
        }
        let first: &Node = nodes.first().context("there is no node")?;
        first.storagectl(&["pool", "create", "main", "--copies", "3", "--groups", "16"])?;
        for (volume, _) in VOLUMES {
            first.storagectl(&["volume", "create", volume, &(BLOCKS * BLOCK).to_string()])?;
        }
        let mut lines = Vec::new();
        for (number, (volume, node)) in (0..).zip(VOLUMES) {
            let host = nodes.get(node).context("there is no such node")?;
            let folder = test_node::new_folder()?;
            let front = start_front(programs, host, folder.path())?;
            let writer = Writer::start(&socket_in(folder.path()), volume, seed + number)?;
            lines.push(Line {
                volume,
                node,
                folder,
                front,
                writer,
            });
        }
        let mut stage = Self {
            nodes,
            lines,
            runs: vec![programs.to_owned(); NODES],
            new: new.to_owned(),
            _etcd: etcd,
        };
        stage.until_whole()?;
        Ok(stage)
    }

    /// Stops a node's `storaged` and starts that of these programs; waits until it answers.
    pub(crate) fn change_node(&mut self, node: usize, programs: &Path) -> Result<()> {
        let changed = self.nodes.get_mut(node).context("there is no such node")?;
        changed.change_version(programs)?;
        if let Some(runs) = self.runs.get_mut(node) {
            programs.clone_into(runs);
        }
        Ok(())
    }

    /// Stops each front end and starts that of these programs; its writer waits meanwhile, and goes on.
    pub(crate) fn change_front(&mut self, line: usize, programs: &Path) -> Result<()> {
        let line = self.lines.get_mut(line).context("there is no such front end")?;
        let host = self.nodes.get(line.node).context("there is no such node")?;
        line.writer.set_replaced(true);
        line.front.stop()?;
        line.front = start_front(programs, host, line.folder.path())?;
        self.hold(Duration::from_secs(2))?;
        for line in &self.lines {
            line.writer.set_replaced(false);
        }
        Ok(())
    }

    /// What the writers did since this was asked last, together; the longest pause of any.
    pub(crate) fn figures(&mut self) -> Result<Figures> {
        let mut all = Figures::default();
        for line in &mut self.lines {
            let figures = line.writer.figures().with_context(|| line.volume.to_owned())?;
            all.writes += figures.writes;
            all.reads += figures.reads;
            all.longest = all.longest.max(figures.longest);
        }
        Ok(all)
    }

    /// Lets so much time pass while the writers go on.
    pub(crate) fn hold(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.check_writers()?;
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Waits until a node may be restarted: `storagectl upgrade status` says so, where a node knows that; else the
    /// node that is asked is well.
    pub(crate) fn until_whole(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check_writers()?;
            let obstacles = self.obstacles()?;
            if obstacles.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the cluster is not whole after {PATIENCE:?}: {obstacles}"
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn check_writers(&mut self) -> Result<()> {
        for line in &self.lines {
            if line.writer.has_ended() {
                self.figures()?;
                bail!("a writer has ended");
            }
        }
        Ok(())
    }

    /// What speaks against a restart; nothing if it is safe.
    fn obstacles(&self) -> Result<String> {
        let knows = self.runs.iter().position(|programs| *programs == self.new);
        let node = self
            .nodes
            .get(knows.unwrap_or(0))
            .context("there is no such node")?;
        let words: &[&str] = match knows {
            Some(_) => &["--json", "upgrade", "status"],
            None => &["--json", "status"],
        };
        let told = node.storagectl(words)?;
        let told: Value = serde_json::from_str(&told).context("read a status")?;
        let good = match knows {
            Some(_) => told["safe"] == true,
            None => told["health"] == "ok",
        };
        let reasons = told["reasons"].to_string();
        Ok(if good { String::new() } else { reasons })
    }

    /// Ends the writers, reads every block back through the front ends, and has every node compare its copies, block by
    /// block, with those of the others.
    pub(crate) fn verify(self) -> Result<()> {
        for line in self.lines {
            let mut desk = line.writer.end()?;
            desk.verify()
                .with_context(|| format!("read {} back", line.volume))?;
            for node in &self.nodes {
                node.storagectl(&["volume", "check", line.volume, "--deep"])
                    .with_context(|| format!("compare the copies of {}", line.volume))?;
            }
        }
        Ok(())
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("nbd.sock")
}

fn start_front(programs: &Path, node: &Node, folder: &Path) -> Result<Process> {
    let socket = socket_in(folder);
    if socket.exists() {
        std::fs::remove_file(&socket).context("remove a socket")?;
    }
    let words = [
        "--storaged".to_owned(),
        node.session_socket().display().to_string(),
        "--listen".to_owned(),
        format!("unix:{}", socket.display()),
    ];
    let program = programs.join("storaged-nbd");
    let mut front = Process::start_at(&program, words, &folder.join("front.log"))?;
    front.wait_for_socket(&socket)?;
    Ok(front)
}

fn configuration(number: usize, etcd: &Etcd) -> Result<String> {
    let endpoints: Vec<String> = etcd.endpoints().iter().map(|at| format!("{at:?}")).collect();
    let mut text = String::from("memory = \"256M\"\ndisk_log = \"16M\"\n");
    write!(
        text,
        "[etcd]\nendpoints = [{}]\nprefix = \"/upgrade\"\n\
         [cluster]\nname = \"host-{number}\"\nzone = \"zone-{number}\"\n\
         listen = \"127.0.0.1:0\"\nplaintext = true\n",
        endpoints.join(", "),
    )
    .context("write a configuration")?;
    Ok(text)
}
