//! Disks and nodes that are sick: they leave their groups by themselves, whoever has volumes open, and come back.

use admin_api::nodes::NodeList;
use admin_api::pools::Pool;
use admin_api::status::Status;
use admin_api::upgrade::UpgradeStatus;
use serde_json::Value;
use test_node::{Cluster, Node};
use tokio::task::spawn_blocking;

use crate::guest::{
    LIMIT, aside, ask, events, fill, open, run, run_for, until, until_told, until_well, value,
};

const MIB: u64 = 1 << 20;

#[test]
fn the_disks_of_a_node_that_is_gone_leave_though_nobody_complains_and_come_back_with_it() {
    run_for(2 * LIMIT, async {
        let mut cluster = Cluster::start(3, 1).unwrap();
        let _: Pool = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
        cluster.nodes[2].kill().unwrap();
        let words = "node-3 (host-3) is down: its disks were taken out of 8 placement groups";
        until_told(&cluster.nodes[0], words).await;
        let status: Status = ask(&cluster.nodes[1], "status").await;
        let told = status.reasons.join("\n");
        assert!(
            told.contains("disk-3 (8)") && told.contains("reads and writes go on"),
            "{told}"
        );
        // The second one is needed, and stays.
        cluster.nodes[1].kill().unwrap();
        let table = || cluster.nodes[0].storagectl(&["upgrade", "status"]).unwrap();
        until(async || table().contains("node-2 (host-2) is down")).await;
        cluster.nodes[1].start_again().unwrap();
        cluster.nodes[2].start_again().unwrap();
        until_well(&cluster.nodes[0]).await;
        let events = events(&cluster.nodes[0]).await;
        assert!(!events.contains("node-2 (host-2) is down: its disks"), "{events}");
    });
}

#[test]
fn a_disk_that_does_not_open_any_more_is_put_out_by_its_own_node_and_taken_up_when_it_is_mended() {
    run(async {
        let mut cluster = Cluster::start(3, 1).unwrap();
        let _: Pool = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
        cluster.nodes[2].stop().unwrap();
        let disk = cluster.nodes[2].disks().remove(0);
        let (there, away) = (disk.join("superblock"), disk.join("superblock.lost"));
        std::fs::rename(&there, &away).unwrap();
        cluster.nodes[2].start_again().unwrap();
        until_told(
            &cluster.nodes[0],
            "disk-3 was taken out of 8 placement groups: it does not serve",
        )
        .await;
        std::fs::rename(&away, &there).unwrap();
        let path = disk.display().to_string();
        cluster.nodes[2].storagectl(&["disk", "add", &path]).unwrap();
        until_well(&cluster.nodes[0]).await;
    });
}

#[test]
fn nodes_are_restarted_one_after_the_other_under_io_as_the_upgrade_says_and_no_request_fails() {
    run_for(3 * LIMIT, async {
        let mut cluster = Cluster::secured(3, 1).unwrap();
        // A front end keeps its volume while its own storaged is away for no longer than this.
        for number in 1..=3 {
            let usual = cluster.configuration(number, "/cluster").unwrap();
            let patient = usual.replace("lease_ms = 2000", "lease_ms = 20000");
            assert_ne!(patient, usual);
            let node = &mut cluster.nodes[number - 1];
            node.configure(&patient).unwrap();
            node.stop().unwrap();
            node.start_again().unwrap();
        }
        let _: Pool = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
        let _: Value = ask(&cluster.nodes[0], "volume create a 16M").await;
        let list: NodeList = ask(&cluster.nodes[0], "node list").await;
        for node in &list.nodes {
            assert!(node.addresses[0].starts_with("tcp:127.0.0.1:"), "{node:?}");
        }
        let device = open(&cluster.nodes[0], "a").await;
        fill(&device, 0, 16 << 20, 1).await;
        let restarts = async {
            let mut cluster = cluster;
            for at in 0..3 {
                let other = (at + 1) % 3;
                until_safe(&cluster.nodes[other]).await;
                (cluster, ()) = aside(cluster, move |cluster| {
                    cluster.nodes[at].stop().unwrap();
                    let status = cluster.nodes[other].storagectl(&["upgrade", "status", "--check"]);
                    assert!(
                        status.is_err(),
                        "a node is down, and nothing else may be restarted"
                    );
                    cluster.nodes[at].start_again().unwrap();
                })
                .await;
            }
            until_safe(&cluster.nodes[0]).await;
            cluster
        };
        let guest = async {
            let mut round = 1_u8;
            loop {
                round = round % 250 + 1;
                for step in 0..16 {
                    fill(&device, step * MIB, 4096, round).await;
                    assert_eq!(value(&device, step * MIB, 4096).await, round);
                }
            }
        };
        let cluster = tokio::select! {
            cluster = restarts => cluster,
            () = guest => return,
        };
        let status: UpgradeStatus = ask(&cluster.nodes[2], "upgrade status").await;
        assert!(status.complete && status.next.is_none(), "{status:?}");
        assert!(status.advice.starts_with("all nodes run"), "{status:?}");
        let messages = status.nodes[0].messages.unwrap();
        assert!(messages.lowest <= messages.highest);
        assert_eq!(status.nodes[0].records, Some(status.records));
        device.close().await;
        let device = open(&cluster.nodes[1], "a").await;
        let all = value(&device, 4096, MIB - 4096).await;
        assert_eq!(all, 1);
        device.close().await;
        // Ends in good order, and not on this thread.
        spawn_blocking(move || drop(cluster)).await.unwrap();
    });
}

/// Waits until a node may be restarted.
async fn until_safe(node: &Node) {
    until(async || ask::<UpgradeStatus>(node, "upgrade status").await.safe).await;
}
