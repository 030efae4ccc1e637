//! Volumes' lives with data in them: snapshots of what is being written, clones, rollback, sizes.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use client::device::{BlockDevice, DeviceEvent};
use client::request;
use serde_json::json;

use crate::node::{Node, run};

const BLOCK: u64 = 4096;

fn block(value: u64) -> Bytes {
    Bytes::from(value.to_le_bytes().repeat(512))
}

fn value(bytes: &[u8]) -> u64 {
    let (first, _) = bytes.split_first_chunk().unwrap();
    assert!(bytes.chunks(8).all(|chunk| chunk == first), "a block is mixed");
    u64::from_le_bytes(*first)
}

/// Writes 1, 2, 3, ... to `first`, then to `second`, each after the other was acknowledged; stops
/// when told, and gives the last.
async fn count_up(first: &impl BlockDevice, second: &impl BlockDevice, stop: &Cell<bool>, at: &Cell<u64>) {
    while !stop.get() {
        let next = at.get() + 1;
        request::write(first, 0, block(next)).await.unwrap();
        request::write(second, BLOCK, block(next)).await.unwrap();
        at.set(next);
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_snapshot_of_what_is_being_written_is_one_instant_and_the_writer_notices_nothing() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1G").await;
        let device = Rc::new(node.open("a", None).await);
        let (stop, at) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let writer = tokio::task::spawn_local({
            let (device, stop, at) = (device.clone(), stop.clone(), at.clone());
            async move { count_up(device.as_ref(), device.as_ref(), &stop, &at).await }
        });
        for round in 0..5 {
            let before = at.get();
            until(|| at.get() > before + 3).await;
            let acknowledged = at.get();
            let name = format!("s{round}");
            node.post("/v1/volumes/a/snapshots", json!({ "name": name }))
                .await;
            let copy = format!("copy{round}");
            node.post(
                &format!("/v1/volumes/a/snapshots/{name}/clone"),
                json!({ "name": copy }),
            )
            .await;
            let bytes = node.content(&copy, None, 2 * BLOCK).await;
            let (first, second) = bytes.split_at(usize::try_from(BLOCK).unwrap());
            let (first, second) = (value(first), value(second));
            assert!(
                second >= acknowledged,
                "an acknowledged write is not in the snapshot"
            );
            assert!(
                first == second || first == second + 1,
                "{first} {second}: not one instant"
            );
            // And the snapshot itself shows the same.
            assert_eq!(node.content("a", Some(&name), 2 * BLOCK).await, bytes);
        }
        stop.set(true);
        writer.await.unwrap();
        assert_eq!(
            value(&request::read(device.as_ref(), 0, BLOCK).await.unwrap()),
            at.get()
        );
        device.close().await;
        node.stop().await;
    });
}

/// Proxmox's plugin found it: a gateway closed the volume while a snapshot had it asked to hold still, and there was no
/// snapshot, though nobody stood in its way any more.
#[test]
fn a_snapshot_of_a_volume_that_is_closed_just_now_is_taken() {
    const ROUNDS: u32 = 40;
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "64M").await;
        for round in 0..ROUNDS {
            let device = node.open("a", None).await;
            let name = json!({ "name": format!("s{round}") });
            let (_, ()) = tokio::join!(node.post("/v1/volumes/a/snapshots", name), device.close());
        }
        node.stop().await;
    });
}

#[test]
fn a_group_snapshot_is_one_instant_over_all_its_volumes() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("data", "1G").await;
        node.create("log", "1G").await;
        node.create("idle", "1G").await;
        let (data, log) = (
            Rc::new(node.open("data", None).await),
            Rc::new(node.open("log", None).await),
        );
        let (stop, at) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let writer = tokio::task::spawn_local({
            let (data, log, stop, at) = (data.clone(), log.clone(), stop.clone(), at.clone());
            async move { count_up(data.as_ref(), log.as_ref(), &stop, &at).await }
        });
        for round in 0..5 {
            let before = at.get();
            until(|| at.get() > before + 3).await;
            let name = format!("s{round}");
            let volumes = json!({"volumes": ["data", "idle", "log"], "name": name});
            node.post("/v1/group-snapshots", volumes).await;
            let data = value(&node.content("data", Some(&name), BLOCK).await);
            let log = node.content("log", Some(&name), 2 * BLOCK).await;
            let log = value(log.split_at(usize::try_from(BLOCK).unwrap()).1);
            assert!(data == log || data == log + 1, "{data} {log}: not one instant");
        }
        stop.set(true);
        writer.await.unwrap();
        data.close().await;
        log.close().await;
        node.stop().await;
    });
}

#[test]
fn a_volume_that_is_open_grows_and_its_user_is_told() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1G").await;
        let device = node.open("a", None).await;
        let size = Rc::new(Cell::new(0));
        let seen = size.clone();
        device.listen(Box::new(move |event| {
            if let DeviceEvent::Resized(bytes) = event {
                seen.set(bytes);
            }
        }));
        node.post("/v1/volumes/a/resize", json!({"size": "2G"})).await;
        until(|| size.get() == 2 << 30).await;
        let last = (2 << 30) - BLOCK;
        request::write(&device, last, block(7)).await.unwrap();
        assert_eq!(value(&request::read(&device, last, BLOCK).await.unwrap()), 7);
        device.close().await;
        node.stop().await;
    });
}

#[test]
fn what_a_shrink_cut_off_does_not_come_back_when_the_volume_grows() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "16M").await;
        node.fill("a", 0, 16 << 20, 9).await;
        // The cut-off bytes lie in a snapshot's layer too: they must be hidden, not only dropped.
        node.post("/v1/volumes/a/snapshots", json!({"name": "s"})).await;
        node.fill("a", 8 << 20, 4 << 20, 8).await;
        let resize = json!({"size": "2M", "allow_shrink": true});
        let answer = node.post("/v1/volumes/a/resize", resize).await;
        node.done(answer["task"].as_u64()).await;
        node.post("/v1/volumes/a/resize", json!({"size": "16M"})).await;
        let bytes = node.content("a", None, 16 << 20).await;
        let (kept, cut_off) = bytes.split_at(2 << 20);
        assert!(
            kept.iter().all(|byte| *byte == 9),
            "what is below the new end was lost"
        );
        assert!(
            cut_off.iter().all(|byte| *byte == 0),
            "what was cut off came back"
        );
        assert!(
            node.content("a", Some("s"), 16 << 20)
                .await
                .iter()
                .all(|byte| *byte == 9)
        );
        node.stop().await;
    });
}

#[test]
fn a_rollback_brings_back_data_and_size_and_keeps_all_snapshots() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1M").await;
        node.fill("a", 0, 1 << 20, 1).await;
        node.post("/v1/volumes/a/snapshots", json!({"name": "one"})).await;
        node.post("/v1/volumes/a/resize", json!({"size": "2M"})).await;
        node.fill("a", 0, 2 << 20, 2).await;
        node.post("/v1/volumes/a/snapshots", json!({"name": "two"})).await;
        node.fill("a", 0, 4096, 3).await;
        let answer = node
            .post("/v1/volumes/a/rollback", json!({"snapshot": "one"}))
            .await;
        assert_eq!(answer["volume"]["size"], 1 << 20);
        node.done(answer["task"].as_u64()).await;
        let all = |bytes: Bytes, value: u8| bytes.iter().all(|byte| *byte == value);
        assert!(all(node.content("a", None, 1 << 20).await, 1));
        assert!(all(node.content("a", Some("two"), 2 << 20).await, 2));
        let answer = node
            .post("/v1/volumes/a/rollback", json!({"snapshot": "two"}))
            .await;
        node.done(answer["task"].as_u64()).await;
        assert!(all(node.content("a", None, 2 << 20).await, 2));
        node.stop().await;
    });
}
