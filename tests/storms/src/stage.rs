//! Three nodes in three namespaces, each with an etcd member; a pool with three copies, and a volume that is written to
//! all the time. What happens to them is the scenarios' business.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use test_node::etcd::Place;
use test_node::{Etcd, Node, join};

use crate::disk::Bench;
use crate::network::{self, NODES};
use crate::pattern::BLOCK;
use crate::relay::Relay;
use crate::witness::Witness;
use crate::writer::{BLOCKS, Figures, Word};

/// The node whose storaged, cable and disk suffer most, counted from 0. The writer is on node 0.
pub(crate) const VICTIM: usize = 2;
/// The volume that is written to.
const VOLUME: &str = "victim";
/// How long an owner's lease lasts.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// How long a node's lease lasts: the least that may be.
pub(crate) const NODE_LEASE: Duration = Duration::from_secs(5);
/// Longer than both leases, with what etcd and a busy machine add.
pub(crate) const LAPSE: Duration = Duration::from_secs(9);
/// Writes that show that I/O goes on.
pub(crate) const GOES_ON: u64 = 100;
/// How long I/O may stand still once everything is healed, and copies may take to be in sync: a disk that was put
/// out again and again waits a minute before it asks to come back.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What kind of stage a scenario needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nodes reach each other over their cables.
    Plain,
    /// What nodes say to disks of others goes through relays.
    Relayed,
    /// The victim's disk lies in a small file system, on a device that can be made to fail.
    Frail,
}

/// Everything that runs. It ends with this value.
pub(crate) struct Stage {
    pub(crate) kind: Kind,
    pub(crate) witness: Witness,
    pub(crate) nodes: Vec<Node>,
    pub(crate) etcd: Etcd,
    /// By node; none if the stage has none.
    pub(crate) relays: Vec<Relay>,
    /// Where the victim's disk lies on a frail stage.
    pub(crate) bench: Option<Bench>,
}

/// What `volume check` and `status` tell, as far as it is looked at.
#[derive(Deserialize)]
struct Status {
    health: String,
    reasons: Vec<String>,
}

impl Stage {
    /// Sets everything up and waits until the writer writes.
    pub(crate) fn set(kind: Kind, seed: u64) -> Result<Self> {
        network::heal()?;
        let places = (0..NODES).map(|node| Place {
            address: network::address(node),
            namespace: Some(network::namespace(node)),
        });
        let etcd = Etcd::start_at(places.collect())?;
        let relays = match kind {
            Kind::Relayed => (0..NODES).map(Relay::start).collect::<Result<Vec<_>>>()?,
            Kind::Plain | Kind::Frail => Vec::new(),
        };
        let mut bench = None;
        let mut nodes: Vec<Node> = Vec::new();
        for node in 0..NODES {
            let prepare = |folder: &Path| {
                if node == VICTIM && kind == Kind::Frail {
                    bench = Some(Bench::mount(&folder.join("disks"))?);
                }
                nodes.first().map_or(Ok(()), |first| {
                    join(first, folder, Some(&network::namespace(node)))
                })
            };
            let configuration = configuration(node, kind, &etcd)?;
            let namespace = Some(network::namespace(node));
            let started = Node::prepared_inside(namespace, 1, &configuration, prepare)?;
            nodes.push(started);
        }
        let first = nodes.first().context("there is no node")?;
        first.storagectl(&["pool", "create", "main", "--copies", "3", "--groups", "16"])?;
        let size = (BLOCKS * BLOCK).to_string();
        first.storagectl(&["volume", "create", VOLUME, &size])?;
        let witness = Witness::start(first, VOLUME, seed)?;
        Ok(Self {
            kind,
            witness,
            nodes,
            etcd,
            relays,
            bench,
        })
    }

    /// The node that suffers most.
    pub(crate) fn victim(&mut self) -> Result<&mut Node> {
        self.nodes.get_mut(VICTIM).context("there is no such node")
    }

    /// Waits until writes go on.
    pub(crate) fn until_it_goes_on(&mut self) -> Result<()> {
        self.witness.until_it_wrote(GOES_ON, PATIENCE)
    }

    /// Starts what has ended by itself, as a service manager does; how many that were.
    pub(crate) fn revive(&mut self) -> Result<usize> {
        let mut ended = 0;
        for node in &mut self.nodes {
            if node.has_ended()? {
                node.start_again()?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Waits until all copies are in sync, by what every node knows.
    pub(crate) fn until_in_sync(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline {
            self.revive()?;
            match self.unwell()? {
                None => return Ok(()),
                Some(reasons) => last = reasons,
            }
            self.witness.hold(LOOK_AGAIN)?;
        }
        bail!("the copies are not in sync again after {PATIENCE:?}: {last}")
    }

    fn unwell(&self) -> Result<Option<String>> {
        for node in &self.nodes {
            let Ok(told) = node.storagectl(&["--json", "status"]) else {
                return Ok(Some("a storaged does not answer".to_owned()));
            };
            let status: Status = serde_json::from_str(&told).context("read a status")?;
            // A disk that is slow, or nearly full, is as it should be here.
            let matters = |reason: &&String| !reason.contains("slow") && !reason.contains("of room");
            let reasons: Vec<&str> = status
                .reasons
                .iter()
                .filter(matters)
                .map(String::as_str)
                .collect();
            if status.health != "ok" && !reasons.is_empty() {
                return Ok(Some(reasons.join("; ")));
            }
        }
        Ok(None)
    }

    /// After a scenario: all is in sync again, every block is what was acknowledged last, and the copies are equal.
    pub(crate) fn verify(&mut self) -> Result<Figures> {
        self.until_in_sync()?;
        let figures = self.witness.ask(Word::Verify)?;
        for (number, node) in self.nodes.iter().enumerate() {
            node.storagectl(&["volume", "check", VOLUME, "--deep"])
                .with_context(|| format!("compare the copies of node {}", number + 1))?;
        }
        Ok(figures)
    }

    /// Ends everything in good order, and has every disk's bookkeeping checked offline.
    pub(crate) fn end(mut self) -> Result<()> {
        self.witness.ask(Word::End)?;
        for node in &mut self.nodes {
            node.stop()?;
        }
        for disk in self.nodes.iter().flat_map(Node::disks) {
            let path = disk.to_str().context("a folder's name is not UTF-8")?;
            let checked = test_node::storagectl(&["disk", "check", path]);
            checked.with_context(|| format!("check {path} offline"))?;
        }
        // Before the folder that it is mounted in goes.
        drop(self.bench.take());
        self.etcd.kill()
    }

    /// Leaves the folders for whoever looks into what went wrong; says where they are.
    pub(crate) fn keep(&mut self) -> String {
        let folders = self
            .nodes
            .iter_mut()
            .map(|node| node.keep().display().to_string());
        folders.collect::<Vec<_>>().join(", ")
    }
}

fn configuration(node: usize, kind: Kind, etcd: &Etcd) -> Result<String> {
    let endpoints: Vec<String> = etcd.endpoints().iter().map(|at| format!("{at:?}")).collect();
    let mut text = String::new();
    write!(
        text,
        "lease_ms = {}\nmemory = \"256M\"\ndisk_log = \"4M\"\n\
         [scrub]\nlight_hours = 0\ndeep_hours = 0\n\
         [etcd]\nendpoints = [{}]\nprefix = \"/storms\"\n\
         [cluster]\nname = \"host-{number}\"\nnode_lease_ms = {}\nlisten = \"{}:7470\"\n",
        LEASE.as_millis(),
        endpoints.join(", "),
        NODE_LEASE.as_millis(),
        network::address(node),
        number = node + 1,
    )
    .context("write a configuration")?;
    if kind == Kind::Relayed {
        writeln!(text, "advertise = \"{}\"", network::relayed(node)).context("write a configuration")?;
    }
    Ok(text)
}
