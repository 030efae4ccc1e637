//! Several nodes that share an etcd, all on this machine's loopback.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::{Etcd, Node};

/// Nodes and their etcd. They end with this value.
pub struct Cluster {
    /// In the order in which they entered.
    pub nodes: Vec<Node>,
    /// What they share.
    pub etcd: Etcd,
    prefix: String,
}

impl Cluster {
    /// Starts so many nodes with so many disks each, one after the other: node N is at index N - 1.
    pub fn start(nodes: usize, disks: u32) -> Result<Self> {
        let mut cluster = Self {
            nodes: Vec::new(),
            etcd: Etcd::start(1)?,
            prefix: "/cluster".to_owned(),
        };
        for _ in 0..nodes {
            cluster.grow(disks)?;
        }
        Ok(cluster)
    }

    /// Adds a node.
    pub fn grow(&mut self, disks: u32) -> Result<()> {
        let number = self.nodes.len() + 1;
        let node = Node::configured(disks, &self.configuration(number, &self.prefix)?)?;
        self.nodes.push(node);
        Ok(())
    }

    /// What the node of that number is told, with another prefix in the etcd if need be.
    pub fn configuration(&self, number: usize, prefix: &str) -> Result<String> {
        let endpoints: Vec<String> = self.etcd.endpoints().iter().map(|at| format!("{at:?}")).collect();
        let mut text = String::new();
        writeln!(
            text,
            "lease_ms = 2000\nmemory = \"256M\"\ndisk_log = \"4M\"\n[etcd]"
        )
        .and_then(|()| {
            writeln!(
                text,
                "endpoints = [{}]\nprefix = {prefix:?}",
                endpoints.join(", ")
            )
        })
        .and_then(|()| {
            writeln!(
                text,
                "[cluster]\nname = \"host-{number}\"\nzone = \"zone-{number}\""
            )
        })
        .and_then(|()| writeln!(text, "listen = \"127.0.0.1:0\"\nplaintext = true"))
        .context("write a configuration")?;
        Ok(text)
    }
}
