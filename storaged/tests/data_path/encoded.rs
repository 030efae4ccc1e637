//! Volumes in a pool of rows: what is on two of three disks is all there is, and whoever was away gets its shards again.

use std::cell::Cell;
use std::path::Path;

use client::request;
use client::volume::Volume;
use coordination::ClusterMap;
use protocol::DiskId;
use protocol::session::SlotState;

use super::node::{Node, make_disk};
use super::{BLOCK, OBJECT, filled, on_one_thread};

const OBJECTS: u64 = 6;
const AWAY: DiskId = DiskId(3);
/// A row 2+1.
const ROW: u64 = 32 * BLOCK;

fn all(map: &ClusterMap, disk: DiskId, state: SlotState) -> bool {
    map.groups_on(disk).all(|(_, slot)| slot.state == state)
}

async fn leaves(node: &mut Node, volume: &Volume, disk: DiskId) {
    node.stop_disk(disk).await;
    for object in 0..OBJECTS {
        // Behind what is compared: whoever is gone is noticed by what is written.
        request::write(volume, (object + 1) * OBJECT - ROW, filled(9, ROW))
            .await
            .unwrap();
    }
    node.until("a disk that is gone leaves", |map| {
        all(map, disk, SlotState::Down)
    })
    .await;
}

async fn comes_back(node: &mut Node, disk: DiskId) {
    node.start_disk(disk).await;
    node.until("the disk comes back", |map| all(map, disk, SlotState::InSync))
        .await;
}

/// Rows whole and in pieces, in every object.
async fn write(volume: &Volume, first: u8) {
    for object in 0..OBJECTS {
        let at = object * OBJECT;
        request::write(volume, at, filled(first, 4 * ROW)).await.unwrap();
        request::write(volume, at + ROW + BLOCK, filled(first + 1, BLOCK))
            .await
            .unwrap();
        request::write(volume, at + 3 * ROW - BLOCK, filled(first + 2, 2 * BLOCK))
            .await
            .unwrap();
    }
}

async fn check(volume: &Volume, first: u8) {
    let blocks = |value, count| filled(value, count * BLOCK).to_vec();
    let expected = [
        blocks(first, 33),
        blocks(first + 1, 1),
        blocks(first, 61),
        blocks(first + 2, 2),
        blocks(first, 31),
        blocks(0, 2),
    ]
    .concat();
    for object in 0..OBJECTS {
        let read = request::read(volume, object * OBJECT, 4 * ROW + 2 * BLOCK)
            .await
            .unwrap();
        assert!(read == expected, "object {object}");
    }
}

/// A node, and a volume with everything in it.
async fn written(directory: &Path) -> (Node, Volume) {
    let node = Node::encoded(directory).await;
    node.create_volume("alpha", OBJECTS * OBJECT).await;
    let volume = node.open("alpha").await.unwrap();
    write(&volume, 1).await;
    (node, volume)
}

/// A guest that writes to rows and to fronts until the disk is back.
async fn writes_until_it_is_back(node: &mut Node, volume: &Volume, disk: DiskId, value: u8) {
    let back = Cell::new(false);
    let guest = async {
        while !back.get() {
            for object in 0..OBJECTS {
                let at = object * OBJECT + 10 * ROW;
                request::write(volume, at, filled(value, ROW)).await.unwrap();
                request::write(volume, at + ROW, filled(value, BLOCK))
                    .await
                    .unwrap();
            }
        }
    };
    let comes = async {
        comes_back(node, disk).await;
        back.set(true);
    };
    tokio::join!(guest, comes);
}

/// Law: each of the three disks may be the one that is missing, whoever was away before.
#[test]
fn with_any_disk_away_all_is_read_and_written_and_it_comes_back_while_a_guest_writes() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut node, volume) = written(directory.path()).await;
        check(&volume, 1).await;
        for (disk, value) in [(AWAY, 11), (DiskId(1), 21), (DiskId(2), 31)] {
            leaves(&mut node, &volume, disk).await;
            check(&volume, value - 10).await;
            write(&volume, value).await;
            check(&volume, value).await;
            writes_until_it_is_back(&mut node, &volume, disk, value).await;
        }
        leaves(&mut node, &volume, AWAY).await;
        check(&volume, 31).await;
        for object in 0..OBJECTS {
            let at = object * OBJECT + 10 * ROW;
            let read = request::read(&volume, at, ROW + BLOCK).await.unwrap();
            assert!(read == filled(31, ROW + BLOCK), "object {object}");
        }
        volume.close().await;
        node.stop().await;
    });
}

/// Law: an empty disk in the place of one that is lost gets its shards, those of snapshots and clones too.
#[test]
fn an_empty_disk_gets_its_shards_of_volumes_snapshots_and_clones() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut node, volume) = written(directory.path()).await;
        node.volumes.snapshot("alpha", "first").await.unwrap();
        node.volumes
            .clone_snapshot("alpha", "first", "beta")
            .await
            .unwrap();
        let clone = node.open("beta").await.unwrap();
        write(&volume, 11).await;
        leaves(&mut node, &volume, AWAY).await;
        std::fs::remove_dir_all(directory.path().join(AWAY.to_string())).unwrap();
        make_disk(directory.path(), AWAY);
        comes_back(&mut node, AWAY).await;
        leaves(&mut node, &volume, DiskId(1)).await;
        let mut options = node.options("alpha");
        options.snapshot = Some("first".into());
        options.read_only = true;
        let snapshot = Volume::open(options).await.unwrap();
        check(&snapshot, 1).await;
        check(&clone, 1).await;
        check(&volume, 11).await;
        for volume in [snapshot, clone, volume] {
            volume.close().await;
        }
        node.stop().await;
    });
}

/// Law: what was left in copies when a volume was closed becomes rows without anybody opening it; and whoever opens it
/// meanwhile does not find it in use.
#[test]
fn what_a_closed_volume_has_at_rest_is_encoded_and_whoever_wants_the_volume_gets_it() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::encoded(directory.path()).await;
        node.take_care().await;
        node.create_volume("alpha", OBJECTS * OBJECT).await;
        let id = node.volumes.map().volume_named("alpha").unwrap();
        let volume = node.open("alpha").await.unwrap();
        // Rows of which each is written in small pieces.
        for object in 0..OBJECTS {
            for block in 0..64 {
                let at = object * OBJECT + block * BLOCK;
                request::write(&volume, at, filled(1, BLOCK)).await.unwrap();
            }
        }
        volume.close().await;
        assert_eq!(node.ranges_with_rows(id).await, 0, "all of it lies in copies");
        let cared_for = |map: &ClusterMap| map.owner(id).is_some();
        node.until("a caretaker comes", cared_for).await;
        let volume = node.open("alpha").await.unwrap();
        request::write(&volume, 70 * BLOCK, filled(2, BLOCK))
            .await
            .unwrap();
        volume.close().await;
        node.until("it comes again", cared_for).await;
        node.until("it has done all", |map| map.owner(id).is_none()).await;
        assert_eq!(node.ranges_with_rows(id).await as u64, OBJECTS);
        let volume = node.open("alpha").await.unwrap();
        for object in 0..OBJECTS {
            let read = request::read(&volume, object * OBJECT, 64 * BLOCK).await.unwrap();
            assert!(read == filled(1, 64 * BLOCK), "object {object}");
        }
        volume.close().await;
        node.stop().await;
    });
}
