//! A node that dies leaves its placement groups while guests write, and comes back by itself.

use std::cell::Cell;

use admin_api::pools::Pool;
use admin_api::status::{Health, Status};
use serde_json::Value;
use test_node::Cluster;

use crate::guest::{ask, fill, open, run, until_well, value};

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
/// The volume, in MiB.
const SIZE: u64 = 32;

#[test]
fn a_node_that_dies_under_io_comes_back_by_itself_and_then_another_one_may_die() {
    run(async {
        let mut cluster = Cluster::secured(3, 1).unwrap();
        let _: Pool = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
        let _: Value = ask(&cluster.nodes[0], "volume create a 32M").await;
        let device = open(&cluster.nodes[0], "a").await;
        for step in 0..SIZE {
            fill(&device, step * MIB, 1 << 20, 1).await;
        }
        let _: Value = ask(&cluster.nodes[0], "volume snapshot a monday").await;

        cluster.nodes[2].kill().unwrap();
        // None of these can be done before the dead disk is out of its group.
        for step in 0..SIZE {
            fill(&device, step * MIB, 4096, 2).await;
        }
        let status: Status = ask(&cluster.nodes[0], "status").await;
        assert_eq!(status.health, Health::Degraded, "{status:?}");
        let told = status.reasons.join("\n");
        assert!(
            told.contains("disk-3") && told.contains("reads and writes go on"),
            "{told}"
        );

        cluster.nodes[2].start_again().unwrap();
        let (whole, rounds) = (Cell::new(false), Cell::new(2));
        let guest = async {
            while !whole.get() {
                rounds.set(rounds.get() % 200 + 3);
                for step in 0..SIZE {
                    fill(&device, step * MIB + BLOCK, 4096, rounds.get()).await;
                }
            }
        };
        let comes = async {
            until_well(&cluster.nodes[0]).await;
            whole.set(true);
        };
        tokio::join!(guest, comes);
        let events = cluster.nodes[0].storagectl(&["events"]).unwrap();
        for said in [
            "disk-3 was taken out of",
            "disk-3 comes back to",
            "disk-3 is in sync in all",
        ] {
            assert!(events.contains(said), "{events}");
        }

        // What the returned node has is needed now: with it gone, too few would be left.
        cluster.nodes[1].kill().unwrap();
        for step in 0..SIZE {
            fill(&device, step * MIB + 2 * BLOCK, 4096, 7).await;
        }
        check(&device, rounds.get()).await;
        device.close().await;
        // Read where the returned disk is the nearest.
        let there = open(&cluster.nodes[2], "a").await;
        check(&there, rounds.get()).await;
        there.close().await;
        let snapshot = open(&cluster.nodes[2], "a@monday").await;
        assert_eq!(value(&snapshot, 0, MIB).await, 1);
        snapshot.close().await;
    });
}

async fn check(device: &client::volume::Volume, rounds: u8) {
    for step in 0..SIZE {
        assert_eq!(value(device, step * MIB, BLOCK).await, 2);
        assert_eq!(value(device, step * MIB + BLOCK, BLOCK).await, rounds);
        assert_eq!(value(device, step * MIB + 2 * BLOCK, BLOCK).await, 7);
        assert_eq!(value(device, step * MIB + 3 * BLOCK, BLOCK).await, 1);
    }
}
