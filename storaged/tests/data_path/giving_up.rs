//! A disk is given up for lost: guests go on with what is left.

use std::time::Duration;

use client::request;
use protocol::DiskId;
use protocol::session::SlotState;

use super::node::Node;
use super::{BLOCK, OBJECT, filled, on_one_thread};

const OBJECTS: u64 = 12;
const A: DiskId = DiskId(1);
const B: DiskId = DiskId(2);
const C: DiskId = DiskId(3);

async fn write_all(volume: &client::volume::Volume, value: u8) {
    for object in 0..OBJECTS {
        request::write(volume, object * OBJECT, filled(value, BLOCK))
            .await
            .unwrap();
    }
}

async fn is_out(node: &Node, disk: DiskId) {
    node.until("a disk that is gone leaves", |map| {
        map.groups_on(disk).all(|(_, slot)| slot.state == SlotState::Down)
    })
    .await;
}

/// Law: giving up a disk where others are in sync loses nothing, and writes go on below the least number.
#[test]
fn writes_go_on_below_the_least_number_when_a_disk_is_given_up() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::with_min_in_sync(directory.path(), 2).await;
        node.create_volume("alpha", OBJECTS * OBJECT).await;
        let volume = node.open("alpha").await.unwrap();
        write_all(&volume, 1).await;
        node.stop_disk(C).await;
        write_all(&volume, 2).await;
        is_out(&node, C).await;
        node.stop_disk(B).await;
        // It is needed: two must be in sync.
        let refused = node
            .volumes
            .give_up(B, Some(B), Duration::ZERO)
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("cannot be given up and kept"),
            "{refused}"
        );
        let given_up = node.volumes.give_up(B, None, Duration::ZERO).await.unwrap();
        assert_eq!((given_up.without, given_up.rolled_back), (8, 0));
        for object in 0..OBJECTS {
            assert_eq!(
                request::read(&volume, object * OBJECT, BLOCK).await.unwrap(),
                filled(2, BLOCK)
            );
        }
        // Back, they get what they missed, and writes are answered again.
        node.start_disk(C).await;
        node.start_disk(B).await;
        write_all(&volume, 3).await;
        volume.close().await;
        node.stop().await;
    });
}

/// Law: with the last copy gone, the older one that was named is what there is, for everybody; and the lost one, should
/// it come back, becomes equal to it.
#[test]
fn an_older_copy_is_taken_only_when_it_is_named_and_is_the_truth_from_then_on() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::with_min_in_sync(directory.path(), 1).await;
        node.create_volume("alpha", OBJECTS * OBJECT).await;
        let volume = node.open("alpha").await.unwrap();
        write_all(&volume, 1).await;
        node.stop_disk(C).await;
        write_all(&volume, 2).await;
        is_out(&node, C).await;
        node.stop_disk(B).await;
        write_all(&volume, 3).await;
        is_out(&node, B).await;
        volume.close().await;
        node.stop_disk(A).await;
        node.start_disk(B).await;
        node.start_disk(C).await;

        let refused = node
            .volumes
            .give_up(A, None, Duration::ZERO)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("only copy in sync of 8 placement groups"),
            "{refused}"
        );
        assert!(refused.contains("disk-2, disk-3"), "{refused}");
        let given_up = node.volumes.give_up(A, Some(B), Duration::ZERO).await.unwrap();
        assert_eq!((given_up.without, given_up.rolled_back), (0, 8));

        let volume = node.open("alpha").await.unwrap();
        for object in 0..OBJECTS {
            assert_eq!(
                request::read(&volume, object * OBJECT, BLOCK).await.unwrap(),
                filled(2, BLOCK)
            );
        }
        node.start_disk(A).await;
        node.until("all are equal again", |map| {
            [A, B, C].iter().all(|disk| {
                map.groups_on(*disk)
                    .all(|(_, slot)| slot.state == SlotState::InSync)
            })
        })
        .await;
        volume.close().await;
        // Left to the one that was lost: it has nothing of its own any more.
        let volume = node.open("alpha").await.unwrap();
        node.stop_disk(B).await;
        node.stop_disk(C).await;
        for object in 0..OBJECTS {
            assert_eq!(
                request::read(&volume, object * OBJECT, BLOCK).await.unwrap(),
                filled(2, BLOCK)
            );
        }
        volume.close().await;
        node.stop().await;
    });
}
