//! Several nodes that share an etcd, all on this machine's loopback.

use std::fmt::Write;
use std::path::Path;

use admin_api::join_tokens::NewJoinToken;
use anyhow::{Context, Result};

use crate::node::storagectl_inside;
use crate::{Etcd, Node};

/// Nodes and their etcd. They end with this value.
pub struct Cluster {
    /// In the order in which they entered.
    pub nodes: Vec<Node>,
    /// What they share.
    pub etcd: Etcd,
    prefix: String,
    /// Whether its nodes show each other certificates.
    secured: bool,
    /// What each node is told besides.
    more: String,
}

impl Cluster {
    /// Starts so many nodes with so many disks each, one after the other: node N is at index N - 1. They
    /// speak in plaintext.
    pub fn start(nodes: usize, disks: u32) -> Result<Self> {
        Self::start_with(nodes, disks, false, "")
    }

    /// As [`Cluster::start`], of nodes that show each other certificates and encrypt what they say.
    pub fn secured(nodes: usize, disks: u32) -> Result<Self> {
        Self::start_with(nodes, disks, true, "")
    }

    /// The same, of nodes whose configuration ends with this.
    pub fn secured_with(nodes: usize, disks: u32, more: &str) -> Result<Self> {
        Self::start_with(nodes, disks, true, more)
    }

    fn start_with(nodes: usize, disks: u32, secured: bool, more: &str) -> Result<Self> {
        let mut cluster = Self {
            nodes: Vec::new(),
            etcd: Etcd::start(1)?,
            prefix: "/cluster".to_owned(),
            secured,
            more: more.to_owned(),
        };
        for _ in 0..nodes {
            cluster.grow(disks)?;
        }
        Ok(cluster)
    }

    /// Adds a node.
    pub fn grow(&mut self, disks: u32) -> Result<()> {
        let number = self.nodes.len() + 1;
        let configuration = self.configuration(number, &self.prefix)?;
        let first = self.nodes.first().filter(|_| self.secured);
        let node = Node::prepared(disks, &configuration, |folder| match first {
            Some(first) => join(first, folder, None),
            None => Ok(()),
        })?;
        self.nodes.push(node);
        Ok(())
    }

    /// What the node of that number is told, with another prefix in the etcd if need be.
    pub fn configuration(&self, number: usize, prefix: &str) -> Result<String> {
        let endpoints: Vec<String> = self.etcd.endpoints().iter().map(|at| format!("{at:?}")).collect();
        let mut text = String::from("lease_ms = 2000\nmemory = \"256M\"\ndisk_log = \"4M\"\n");
        write!(
            text,
            "[etcd]\nendpoints = [{}]\nprefix = {prefix:?}\n\
             [cluster]\nname = \"host-{number}\"\nzone = \"zone-{number}\"\n\
             listen = \"127.0.0.1:0\"\nplaintext = {}\n{}",
            endpoints.join(", "),
            !self.secured,
            self.more
        )
        .context("write a configuration")?;
        Ok(text)
    }
}

/// What an operator does before a node's first start, in a network namespace if one is named: lets its machine join.
/// The configuration that this writes is put aside, for that of the test.
pub fn join(first: &Node, folder: &Path, namespace: Option<&Path>) -> Result<()> {
    let made = first.storagectl(&["--json", "cluster", "token"])?;
    let made: NewJoinToken = serde_json::from_str(&made).context("read a token")?;
    let (work_dir, config) = (
        folder.display().to_string(),
        folder.join("joined.toml").display().to_string(),
    );
    let words = [
        "cluster",
        "join",
        &made.token,
        "--work-dir",
        &work_dir,
        "--config",
        &config,
    ];
    storagectl_inside(namespace, &words).map(drop)
}
