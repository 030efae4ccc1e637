//! Space comes back: of volumes, of snapshots in any order, across restarts.

use admin_api::volumes::{Tree, Volume};
use serde_json::json;

use crate::node::{Node, run};

const MIB: u64 = 1 << 20;

#[test]
fn the_space_of_a_deleted_volume_comes_back_on_every_disk() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("keep", "64M").await;
        node.fill("keep", 0, 4 << 20, 1).await;
        let before = node.used().await;
        node.create("a", "1G").await;
        node.fill("a", 0, 24 << 20, 7).await;
        // Three copies.
        assert!(node.used().await >= before + 3 * 24 * MIB);
        let deleted = node.delete("/v1/volumes/a").await;
        assert!(deleted.task.is_some(), "there is something to give back");
        node.done(deleted.task).await;
        node.until_used_at_most(before).await;
        assert!(
            node.content("keep", None, 4 << 20)
                .await
                .iter()
                .all(|byte| *byte == 1)
        );
        node.stop().await;
    });
}

#[test]
fn snapshots_and_parents_are_deleted_in_any_order_and_the_others_keep_their_data() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        let before = node.used().await;
        node.create("a", "64M").await;
        // Each layer writes a piece of its own and a piece of the one before.
        for layer in 0..4u8 {
            node.fill("a", u64::from(layer) * 2 * MIB, 3 << 20, layer + 1)
                .await;
            node.post("/v1/volumes/a/snapshots", json!({"name": format!("s{layer}")}))
                .await;
        }
        node.post("/v1/volumes/a/snapshots/s1/clone", json!({"name": "copy"}))
            .await;
        node.fill("copy", 0, 1 << 20, 77).await;
        let live = node.content("a", None, 16 * MIB).await;
        let copy = node.content("copy", None, 16 * MIB).await;
        let last = node.content("a", Some("s3"), 16 * MIB).await;
        for snapshot in ["s1", "s0", "s2"] {
            let deleted = node.delete(&format!("/v1/volumes/a/snapshots/{snapshot}")).await;
            node.done(deleted.task).await;
            assert_eq!(node.content("a", None, 16 * MIB).await, live, "after {snapshot}");
            assert_eq!(
                node.content("copy", None, 16 * MIB).await,
                copy,
                "after {snapshot}"
            );
            assert_eq!(
                node.content("a", Some("s3"), 16 * MIB).await,
                last,
                "after {snapshot}"
            );
        }
        // The parent goes, the clone stays; it holds one copy of the bytes that both had.
        let deleted = node.delete("/v1/volumes/a?with_snapshots=true").await;
        node.done(deleted.task).await;
        assert_eq!(node.content("copy", None, 16 * MIB).await, copy);
        node.until_used_at_most(before + 3 * 6 * MIB).await;
        let deleted = node.delete("/v1/volumes/copy").await;
        node.done(deleted.task).await;
        node.until_used_at_most(before).await;
        let (status, _) = node.send("DELETE", "/v1/pools/pool", None).await;
        assert_eq!(
            status, 204,
            "a pool without volumes and without space to give back goes"
        );
        node.stop().await;
    });
}

#[test]
fn a_volume_tells_what_it_takes_and_what_it_shares() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        let space = async |node: &Node, name: &str| {
            let volume: Volume = node.get(&format!("/v1/volumes/{name}?space=true")).await;
            let space = volume.space.unwrap();
            assert!(space.unknown.is_empty(), "{space:?}");
            (space.own / MIB, space.shared / MIB)
        };
        node.create("a", "1G").await;
        assert_eq!(space(&node, "a").await, (0, 0));
        node.fill("a", 0, 8 << 20, 7).await;
        // Three copies.
        assert_eq!(space(&node, "a").await, (24, 0));
        node.post("/v1/volumes/a/snapshots", json!({"name": "s"})).await;
        node.fill("a", 0, 2 << 20, 8).await;
        assert_eq!(space(&node, "a").await, (6, 24));
        node.post("/v1/volumes/a/snapshots/s/clone", json!({"name": "b"}))
            .await;
        assert_eq!(space(&node, "b").await, (0, 24));
        let tree: Tree = node.get("/v1/volumes/b/tree").await;
        let bytes: Vec<u64> = tree.nodes.iter().map(|node| node.bytes / MIB).collect();
        assert_eq!(bytes.iter().sum::<u64>(), 30, "{tree:?}");
        let device = node.open("a", None).await;
        client::request::write_zeroes(&device, 0, 2 << 20).await.unwrap();
        assert_eq!(space(&node, "a").await, (0, 24));
        device.close().await;
        let node = node.restart().await;
        assert_eq!(space(&node, "a").await, (0, 24));
        node.stop().await;
    });
}

#[test]
fn a_reclaim_that_a_restart_cut_short_is_taken_up_again() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::with_pool(directory.path()).await;
        let before = node.used().await;
        for round in 0..3 {
            let name = format!("v{round}");
            node.create(&name, "1G").await;
            node.fill(&name, 0, 16 << 20, 7).await;
            node.delete(&format!("/v1/volumes/{name}")).await;
            // At once, wherever the reclaim is.
            node = node.restart().await;
        }
        node.until_used_at_most(before).await;
        node.stop().await;
    });
}

#[test]
fn merging_layers_under_a_volume_that_is_being_written_loses_nothing() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "64M").await;
        node.fill("a", 0, 8 << 20, 1).await;
        let device = node.open("a", None).await;
        for round in 0..6u8 {
            node.post("/v1/volumes/a/snapshots", json!({"name": "s"})).await;
            let offset = u64::from(round) * MIB + 4096;
            let bytes = bytes::Bytes::from(vec![round + 2; 512 * 1024]);
            client::request::write(&device, offset, bytes).await.unwrap();
            let deleted = node.delete("/v1/volumes/a/snapshots/s").await;
            // Writes and reads go on while layers are merged below them.
            let write = async {
                for step in 0..16u64 {
                    let at = 7 * MIB + step * 8192;
                    let bytes = bytes::Bytes::from(vec![round + 100; 4096]);
                    client::request::write(&device, at, bytes).await.unwrap();
                    let back = client::request::read(&device, at, 4096).await.unwrap();
                    assert!(back.iter().all(|byte| *byte == round + 100));
                }
            };
            tokio::join!(write, node.done(deleted.task));
            for earlier in 0..=round {
                let offset = u64::from(earlier) * MIB + 4096;
                let bytes = client::request::read(&device, offset, 512 * 1024).await.unwrap();
                assert!(
                    bytes.iter().all(|byte| *byte == earlier + 2),
                    "round {earlier} after {round}"
                );
            }
        }
        device.close().await;
        node.stop().await;
    });
}
