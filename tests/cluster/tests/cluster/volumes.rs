//! Volumes whose copies lie on several nodes, used through any of them.

use admin_api::disks::DiskList;
use admin_api::pools::{FailureDomain, Pool};
use admin_api::snapshots::SnapshotList;
use admin_api::tasks::{Task, TaskList, TaskState};
use serde_json::Value;
use test_node::Cluster;

use crate::guest::{ask, disks_of, fill, look, open, refused, run, until, value};

const MIB: u64 = 1 << 20;

#[test]
fn a_volume_on_three_nodes_outlives_the_restart_of_one_under_io_and_its_snapshots_are_seen_everywhere() {
    run(async {
        let mut cluster = Cluster::secured(3, 1).unwrap();
        let says = refused(&cluster.nodes[0], "pool create wide --copies 4");
        assert!(says.contains("there are 3"), "{says}");
        let pool: Pool = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
        assert_eq!((pool.failure_domain, pool.disks.len()), (FailureDomain::Node, 3));
        let _: Value = ask(&cluster.nodes[2], "volume create a 16M").await;

        // On another node the path of a disk's socket is somebody else's, and here it would even be found.
        for disk in disks_of(&cluster.nodes[1], "a").await {
            let over_tls = format!("tls:node-{}.nodes.storaged@127.0.0.1:", disk.disk.0);
            let (last, nearer) = disk.addresses.split_last().unwrap();
            assert!(last.starts_with(&over_tls), "{disk:?}");
            assert_eq!(nearer.len(), usize::from(disk.local), "{disk:?}");
            assert_eq!(disk.local, disk.disk.0 == 2);
        }

        let device = open(&cluster.nodes[1], "a").await;
        for step in 0..16 {
            fill(&device, step * MIB, 1 << 20, 1).await;
        }
        // Asked for where the volume is not open, while it is open: the owner holds still.
        let _: Value = ask(&cluster.nodes[0], "volume snapshot a monday").await;
        // A disk's port is another one after the restart. Writes wait for it, and none fails.
        let writes = async {
            for step in 0..64 {
                fill(&device, step * 4096, 4096, 2).await;
            }
        };
        let restart = async {
            cluster.nodes[2].kill().unwrap();
            cluster.nodes[2].start_again().unwrap();
        };
        tokio::join!(writes, restart);
        assert_eq!(value(&device, 0, 64 * 4096).await, 2);
        device.close().await;

        let there = open(&cluster.nodes[2], "a@monday").await;
        assert_eq!(value(&there, 0, MIB).await, 1);
        there.close().await;
        let everywhere = open(&cluster.nodes[0], "a").await;
        assert_eq!(value(&everywhere, 0, 64 * 4096).await, 2);
        assert_eq!(value(&everywhere, MIB, MIB).await, 1);
        everywhere.close().await;
        let snapshots: SnapshotList = ask(&cluster.nodes[1], "snapshot list").await;
        assert_eq!(snapshots.snapshots.len(), 1);
    });
}

#[test]
fn space_of_a_deleted_volume_comes_back_on_every_node() {
    run(async {
        let cluster = Cluster::start(2, 1).unwrap();
        let _: Value = ask(&cluster.nodes[0], "pool create main --copies 2 --groups 8").await;
        let _: Value = ask(&cluster.nodes[0], "volume create a 8M").await;
        let device = open(&cluster.nodes[0], "a").await;
        fill(&device, 0, 8 << 20, 1).await;
        let _: Value = ask(&cluster.nodes[1], "volume snapshot a monday").await;
        fill(&device, 0, 4 << 20, 2).await;
        device.close().await;
        for disk in 1..=2 {
            // What another node's disk holds is known as of a moment ago.
            until(async || used(&cluster.nodes[0], disk).await >= 12 << 20).await;
        }
        let _: Value = ask(&cluster.nodes[1], "snapshot delete a@monday --yes").await;
        finished(&cluster).await;
        let device = open(&cluster.nodes[1], "a").await;
        assert_eq!(value(&device, 0, 4 << 20).await, 2);
        assert_eq!(value(&device, 4 << 20, 4 << 20).await, 1);
        device.close().await;
        for disk in 1..=2 {
            until_used_at_most(&cluster.nodes[0], disk, 8 << 20).await;
        }
        let _: Value = ask(&cluster.nodes[0], "volume delete a --yes").await;
        finished(&cluster).await;
        for disk in 1..=2 {
            until_used_at_most(&cluster.nodes[1], disk, 0).await;
        }
        let deleted = cluster.nodes[1].storagectl(&["pool", "delete", "main", "--yes"]);
        deleted.unwrap();
    });
}

/// What a disk holds, wherever one asks.
async fn used(node: &test_node::Node, disk: u32) -> u64 {
    let list: DiskList = ask(node, "disk list").await;
    let found = list.disks.iter().find(|known| known.id == disk).unwrap();
    assert_eq!(found.unknown, None);
    found.used.unwrap()
}

/// Waits until a disk holds no more: chunks are free when the next checkpoint is done.
async fn until_used_at_most(node: &test_node::Node, disk: u32, most: u64) {
    until(async || used(node, disk).await <= most).await;
}

/// Waits until no layer of any volume is on its way out.
async fn finished(cluster: &Cluster) {
    for node in &cluster.nodes {
        loop {
            let list: TaskList = ask(node, "task list").await;
            let running = |task: &&Task| task.state == TaskState::Running;
            let Some(task) = list.tasks.iter().find(running) else {
                break;
            };
            let _: Task = ask(node, &format!("task wait {}", task.id)).await;
        }
    }
}

#[test]
fn what_one_node_made_is_there_on_another_one_at_once() {
    // Of a run on a busy machine: a volume was created by one node, and another one, which had not heard of it yet,
    // said that there is none. Each round is a chance to be too early.
    run(async {
        let cluster = Cluster::start(2, 1).unwrap();
        let _: Pool = ask(&cluster.nodes[0], "pool create main --copies 1 --groups 2").await;
        for round in 0..24 {
            let _: Value = ask(&cluster.nodes[1], &format!("volume create v{round} 4M")).await;
            let found = look(&cluster.nodes[0], &format!("v{round}")).await;
            assert_eq!(found.size, 4 << 20);
            let _: Value = ask(&cluster.nodes[1], &format!("volume snapshot v{round} s")).await;
            open(&cluster.nodes[0], &format!("v{round}@s"))
                .await
                .close()
                .await;
        }
    });
}
