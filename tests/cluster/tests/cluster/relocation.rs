//! Data moves to other nodes while guests write: when a node is added, emptied, or stays away. Of pools of copies, and of
//! pools of rows, whose shards are as many here.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use admin_api::disks::{Disk, DiskList};
use admin_api::nodes::Node as NodeView;
use admin_api::pools::Pool;
use admin_api::status::{Health, Status};
use client::volume::Volume;
use serde_json::Value;
use test_node::{Cluster, Node};

use crate::guest::{aside, ask, fill, open, run_for, until, value};

/// Two runs of a debug build over all data, on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
/// The volume, in MiB: 16 objects.
const SIZE: u64 = 64;
const GROUPS: u32 = 32;
/// Ways to keep data on three disks, of which one may fail.
const COPIES: &str = "--copies 3";
const ROWS: &str = "--erasure 2+1";
/// What a disk without data may use: its own tables.
const EMPTY: u64 = 2 << 20;

/// A volume whose every MiB was written, and how often since.
struct Guest {
    device: Volume,
    rounds: Cell<u8>,
}

impl Guest {
    async fn on(node: &Node, kept: &str) -> Self {
        let _: Pool = ask(node, &format!("pool create main {kept} --groups {GROUPS}")).await;
        let _: Value = ask(node, &format!("volume create a {SIZE}M")).await;
        let device = open(node, "a").await;
        for step in 0..SIZE {
            fill(&device, step * MIB, 1 << 20, 1).await;
        }
        let rounds = Cell::new(2);
        Self { device, rounds }
    }

    /// Writes until something has come to its end.
    async fn writes_while(&self, happens: impl Future<Output = ()>) {
        let over = Cell::new(false);
        let writes = async {
            while !over.get() {
                self.rounds.set(self.rounds.get() % 200 + 3);
                for step in 0..SIZE {
                    fill(&self.device, step * MIB + BLOCK, 4096, self.rounds.get()).await;
                }
            }
        };
        let happens = async {
            happens.await;
            over.set(true);
        };
        tokio::join!(writes, happens);
    }

    async fn close(self) -> u8 {
        self.device.close().await;
        self.rounds.get()
    }
}

async fn check(device: &Volume, rounds: u8) {
    for step in 0..SIZE {
        assert_eq!(value(device, step * MIB, BLOCK).await, 1, "MiB {step}");
        assert_eq!(
            value(device, step * MIB + BLOCK, BLOCK).await,
            rounds,
            "MiB {step}"
        );
        assert_eq!(
            value(device, step * MIB + 2 * BLOCK, BLOCK).await,
            1,
            "MiB {step}"
        );
    }
}

async fn groups(node: &Node) -> BTreeMap<u32, u32> {
    let list: DiskList = ask(node, "disk list").await;
    list.disks.iter().map(|disk| (disk.id, disk.groups)).collect()
}

/// Waits until nothing moves, and a disk has groups or has none.
async fn until_settled(node: &Node, disk: u32, empty: bool) {
    until(async || {
        let share = groups(node).await;
        let there = share.get(&disk).copied().unwrap_or(0);
        // Some come at once, and what is to follow is seen with the next look.
        let done = if empty { there == 0 } else { there >= GROUPS / 2 };
        let status: Status = ask(node, "status").await;
        let moves = |reason: &String| reason.contains("move to other disks") || reason.contains("in sync");
        done && share.values().sum::<u32>() == 3 * GROUPS && !status.reasons.iter().any(moves)
    })
    .await;
}

/// Waits until a disk has given back what it held.
async fn until_unused(node: &Node, disk: u32) {
    let question = format!("disk info {disk}");
    let is_empty = |disk: Disk| disk.used.is_some_and(|used| used < EMPTY);
    until(async || is_empty(ask(node, &question).await)).await;
}

/// A node is added, another one emptied and removed, a third one dies.
fn a_node_comes_and_one_goes(kept: &str) {
    run_for(LIMIT, async {
        let cluster = Cluster::secured(3, 1).unwrap();
        let guest = Guest::on(&cluster.nodes[1], kept).await;
        let (cluster, ()) = aside(cluster, |cluster| cluster.grow(1).unwrap()).await;
        guest
            .writes_while(until_settled(&cluster.nodes[1], 4, false))
            .await;
        let share = groups(&cluster.nodes[1]).await;
        let moved = share[&4];
        println!(
            "the fourth node took {moved} of {} places; ideal {}",
            3 * GROUPS,
            3 * GROUPS / 4
        );
        // Only what came to it has moved.
        assert_eq!(share.values().sum::<u32>(), 3 * GROUPS, "{share:?}");
        assert!(moved.abs_diff(3 * GROUPS / 4) <= GROUPS / 4, "{share:?}");
        let status: Status = ask(&cluster.nodes[1], "status").await;
        assert_eq!(status.health, Health::Ok, "{status:?}");

        let drained = async {
            let node: NodeView = ask(&cluster.nodes[3], "node drain 1 --wait").await;
            assert_eq!((node.groups, node.draining), (0, true));
            until_settled(&cluster.nodes[1], 1, true).await;
            until_unused(&cluster.nodes[0], 1).await;
        };
        guest.writes_while(drained).await;
        let refused = cluster.nodes[1].storagectl(&["disk", "drain", "2"]).unwrap_err();
        assert!(
            format!("{refused:#}").contains("add another one first"),
            "{refused:#}"
        );

        let (mut cluster, ()) = aside(cluster, |cluster| cluster.nodes[0].stop().unwrap()).await;
        cluster.nodes[1]
            .storagectl(&["node", "remove", "1", "--yes"])
            .unwrap();
        // What came to the new node is needed now.
        cluster.nodes[2].kill().unwrap();
        for step in 0..SIZE {
            fill(&guest.device, step * MIB + 3 * BLOCK, 4096, 7).await;
        }
        check(&guest.device, guest.rounds.get()).await;
        let rounds = guest.close().await;
        let there = open(&cluster.nodes[3], "a").await;
        check(&there, rounds).await;
        there.close().await;
    });
}

/// A node stays away until its data is elsewhere, and comes back.
fn a_node_stays_away_and_comes_back(kept: &str) {
    run_for(LIMIT, async {
        let mut cluster = Cluster::secured_with(4, 1, "[rebalance]\ndown_out_s = 10\n").unwrap();
        let guest = Guest::on(&cluster.nodes[0], kept).await;
        let before = groups(&cluster.nodes[0]).await[&4];
        assert!(before > 0);
        cluster.nodes[3].kill().unwrap();
        guest
            .writes_while(until_settled(&cluster.nodes[0], 4, true))
            .await;
        let events = cluster.nodes[0].storagectl(&["events"]).unwrap();
        assert!(events.contains("disk-4 has been away for too long"), "{events}");

        let (cluster, ()) = aside(cluster, |cluster| cluster.nodes[3].start_again().unwrap()).await;
        guest
            .writes_while(until_settled(&cluster.nodes[0], 4, false))
            .await;
        assert_eq!(groups(&cluster.nodes[0]).await[&4], before);
        let rounds = guest.close().await;
        // It has all that it must have, and nothing of what it had: the copies are equal.
        let _: Value = ask(&cluster.nodes[3], "volume check a").await;
        let there = open(&cluster.nodes[3], "a").await;
        check(&there, rounds).await;
        there.close().await;
    });
}

#[test]
fn a_node_is_added_and_another_one_emptied_and_removed_while_a_guest_writes() {
    a_node_comes_and_one_goes(COPIES);
}

#[test]
fn shards_move_to_a_node_that_is_added_and_off_one_that_is_emptied_while_a_guest_writes() {
    a_node_comes_and_one_goes(ROWS);
}

#[test]
fn the_data_of_a_node_that_stays_away_goes_to_another_one_and_what_it_has_goes_when_it_is_back() {
    a_node_stays_away_and_comes_back(COPIES);
}

#[test]
fn the_shards_of_a_node_that_stays_away_are_computed_anew_and_what_it_has_goes_when_it_is_back() {
    a_node_stays_away_and_comes_back(ROWS);
}
