//! A coordination store that was restored from an older backup, under running nodes or while all were stopped.

use std::time::Duration;

use admin_api::pools::Pool;
use serde_json::Value;
use test_node::{Cluster, Node};

use crate::guest::{aside, ask, fill, open, run_for, until, until_well, value};

const LIMIT: Duration = Duration::from_mins(2);
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
/// The volume, in MiB.
const SIZE: u64 = 16;

/// Waits until a node is seen to be down.
async fn until_down(node: &Node, other: &str) {
    let words = format!("{other} (");
    until(async || ask::<Value>(node, "status").await.to_string().contains(&words)).await;
}

#[test]
fn what_a_restored_store_has_forgotten_is_put_back_and_a_disk_that_was_out_is_not_believed() {
    run_for(LIMIT, async {
        let mut cluster = Cluster::secured(3, 1).unwrap();
        let _: Pool = ask(
            &cluster.nodes[0],
            "pool create main --copies 3 --groups 8 --min-in-sync 1",
        )
        .await;
        let _: Value = ask(&cluster.nodes[0], &format!("volume create a {SIZE}M")).await;
        let device = open(&cluster.nodes[0], "a").await;
        for step in 0..SIZE {
            fill(&device, step * MIB, 1 << 20, 1).await;
        }
        let backup = cluster.etcd.save("backup").unwrap();

        // What comes now is in no backup: a disk leaves, a snapshot is made, and another volume.
        cluster.nodes[2].kill().unwrap();
        for step in 0..SIZE {
            fill(&device, step * MIB, 4096, 2).await;
        }
        let _: Value = ask(&cluster.nodes[0], "volume snapshot a monday").await;
        for step in 0..SIZE {
            fill(&device, step * MIB + BLOCK, 4096, 3).await;
        }
        let _: Value = ask(&cluster.nodes[0], "volume create b 8M").await;
        device.close().await;

        let (cluster, ()) = aside(cluster, move |cluster| {
            cluster.etcd.restore(&backup).unwrap();
            cluster.nodes[2].start_again().unwrap();
        })
        .await;
        // It waits until the records are what they were.
        let device = open(&cluster.nodes[0], "a").await;
        let events = cluster.nodes[0].storagectl(&["events"]).unwrap();
        assert!(events.contains("records were put back"), "{events}");
        let b: Value = ask(&cluster.nodes[1], "volume info b").await;
        assert_eq!(b["size"], 8 * MIB, "{b}");
        check(&device).await;
        device.close().await;

        until_well(&cluster.nodes[0]).await;
        // The disk that was out has all that it missed: it is read first here.
        let there = open(&cluster.nodes[2], "a").await;
        check(&there).await;
        there.close().await;
        let snapshot = open(&cluster.nodes[2], "a@monday").await;
        assert_eq!(value(&snapshot, 0, BLOCK).await, 2);
        assert_eq!(value(&snapshot, BLOCK, BLOCK).await, 1);
        snapshot.close().await;
    });
}

#[test]
fn what_all_knew_when_they_were_stopped_is_put_back_though_who_knew_most_comes_last() {
    run_for(LIMIT, async {
        let cluster = Cluster::secured(3, 1).unwrap();
        let _: Pool = ask(
            &cluster.nodes[0],
            "pool create main --copies 3 --groups 8 --min-in-sync 1",
        )
        .await;
        let _: Value = ask(&cluster.nodes[0], &format!("volume create a {SIZE}M")).await;
        let device = open(&cluster.nodes[1], "a").await;
        for step in 0..SIZE {
            fill(&device, step * MIB, 1 << 20, 1).await;
        }
        let backup = cluster.etcd.save("backup").unwrap();

        // The third remembers more than the backup, and not that it was put out.
        let _: Value = ask(&cluster.nodes[2], "volume create b 8M").await;
        let (mut cluster, ()) = aside(cluster, |cluster| cluster.nodes[2].stop().unwrap()).await;
        for step in 0..SIZE {
            fill(&device, step * MIB, 4096, 2).await;
        }
        let _: Value = ask(&cluster.nodes[0], "volume snapshot a monday").await;
        for step in 0..SIZE {
            fill(&device, step * MIB + BLOCK, 4096, 3).await;
        }
        device.close().await;
        // The second knows most: it goes on when the first has stopped.
        cluster.nodes[0].stop().unwrap();
        let _: Value = ask(&cluster.nodes[1], "volume create c 8M").await;
        until_down(&cluster.nodes[1], "node-1").await;
        cluster.nodes[1].stop().unwrap();

        cluster.etcd.restore(&backup).unwrap();
        let (cluster, ()) = aside(cluster, move |cluster| {
            let [first, second, third] = &mut cluster.nodes[..] else {
                panic!("there are three nodes");
            };
            third.start_waiting("waits for node-1, node-2").unwrap();
            first.start_waiting("waits for node-2").unwrap();
            // Nothing of this is over because an operator stops one that waits.
            first.stop().unwrap();
            first.start_waiting("waits for node-2").unwrap();
            second.start_again().unwrap();
            first.wait_until_it_serves().unwrap();
            third.wait_until_it_serves().unwrap();
        })
        .await;

        // Read first where the disk is that was out.
        let there = open(&cluster.nodes[2], "a").await;
        check(&there).await;
        there.close().await;
        let events = cluster.nodes[0].storagectl(&["events"]).unwrap();
        assert!(events.contains("as node-2 remembered them"), "{events}");
        for volume in ["b", "c"] {
            let found: Value = ask(&cluster.nodes[0], &format!("volume info {volume}")).await;
            assert_eq!(found["size"], 8 * MIB, "{found}");
        }
        until_well(&cluster.nodes[0]).await;
        // No number is given out twice.
        let _: Value = ask(&cluster.nodes[0], "volume create d 8M").await;
        let snapshot = open(&cluster.nodes[2], "a@monday").await;
        assert_eq!(value(&snapshot, 0, BLOCK).await, 2);
        assert_eq!(value(&snapshot, BLOCK, BLOCK).await, 1);
        snapshot.close().await;
    });
}

async fn check(device: &client::volume::Volume) {
    for step in 0..SIZE {
        assert_eq!(value(device, step * MIB, BLOCK).await, 2, "MiB {step}");
        assert_eq!(value(device, step * MIB + BLOCK, BLOCK).await, 3, "MiB {step}");
        assert_eq!(
            value(device, step * MIB + 2 * BLOCK, BLOCK).await,
            1,
            "MiB {step}"
        );
    }
}
