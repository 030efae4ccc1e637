//! NBD: what QEMU's tools, libnbd's tools and fio find when they use `storaged-nbd`.

mod cluster;
mod copies;
mod handshake;
mod interruption;
mod patterns;
mod security;

use std::cell::RefCell;
use std::rc::Rc;

use test_node::Node;

use crate::stage::{Stage, Volume};
use crate::suite::{Selection, Tally};

const MIB: u64 = 1 << 20;
/// The size of the export `large` in bytes.
const LARGE: u64 = 128 << 30;
/// What every check finds.
const VOLUMES: &[Volume] = &[("disk", 64 * MIB), ("large", LARGE)];
/// Disks of the cluster, and copies that it keeps.
const DISKS: u32 = 3;

/// Runs the selected checks, first against a gateway that serves volumes from memory, so that what
/// fails there is the gateway's fault, then against one in front of a cluster.
pub fn run(selection: &Selection) -> Tally {
    let mut tally = Tally::default();
    let both = [
        handshake::CHECKS,
        patterns::CHECKS,
        copies::CHECKS,
        interruption::CLIENTS,
    ];
    for checks in both.into_iter().chain([interruption::SERVERS, security::CHECKS]) {
        tally.run("nbd in memory", checks, selection, || Stage::in_memory(VOLUMES));
    }
    match start() {
        Ok(node) => {
            let node = Rc::new(RefCell::new(node));
            for checks in both.into_iter().chain([cluster::CHECKS]) {
                tally.run("nbd in a cluster", checks, selection, || {
                    Stage::in_cluster(node.clone(), VOLUMES)
                });
            }
        }
        Err(error) => tally.fail("start a cluster", &error),
    }
    tally
}

fn start() -> anyhow::Result<Node> {
    let node = Node::start(DISKS)?;
    node.storagectl(&["pool", "create", "conformance", "--copies", &DISKS.to_string()])?;
    Ok(node)
}
