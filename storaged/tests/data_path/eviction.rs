//! A disk that fails for good: whoever writes goes on without it.

use client::request;
use protocol::DiskId;
use protocol::session::SlotState;

use crate::node::Node;
use crate::{BLOCK, filled, on_one_thread};

/// Law: with one of three disks gone, writes wait until it is out of the sets, and then go on; what was
/// written before and after is there, also for the next owner.
#[test]
fn writes_go_on_when_one_of_three_disks_is_gone_for_good() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::create(directory.path()).await;
        node.create_volume("alpha", 64 << 20).await;
        let volume = node.open("alpha").await.unwrap();
        for number in 0..8 {
            request::write(&volume, number * (4 << 20), filled(1, BLOCK))
                .await
                .unwrap();
        }
        node.stop_disk(DiskId(3)).await;
        for number in 0..8 {
            request::write(&volume, number * (4 << 20), filled(2, BLOCK))
                .await
                .unwrap();
        }
        let map = node.volumes.map();
        let (pool, _) = map.pool_named("pool").unwrap();
        for group in map.groups(pool) {
            let down = |slot: &&protocol::session::Slot| slot.state == SlotState::Down;
            let gone: Vec<DiskId> = group.slots.iter().filter(down).map(|slot| slot.disk).collect();
            assert_eq!(gone, [DiskId(3)]);
        }
        volume.close().await;
        let volume = node.open("alpha").await.unwrap();
        for number in 0..8 {
            let read = request::read(&volume, number * (4 << 20), BLOCK).await.unwrap();
            assert_eq!(read, filled(2, BLOCK));
        }
        volume.close().await;
        node.stop().await;
    });
}

/// Law (rule 4): a second disk that is gone is needed. Writes wait for it, and go on when it is back.
#[test]
fn writes_wait_for_the_second_disk_that_is_gone_and_go_on_when_it_is_back() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::create(directory.path()).await;
        node.create_volume("alpha", 1 << 20).await;
        let volume = node.open("alpha").await.unwrap();
        request::write(&volume, 0, filled(1, BLOCK)).await.unwrap();
        node.stop_disk(DiskId(3)).await;
        request::write(&volume, 0, filled(2, BLOCK)).await.unwrap();
        node.stop_disk(DiskId(2)).await;
        let write = request::write(&volume, 0, filled(3, BLOCK));
        let back = async {
            while volume.waiting().is_empty() {
                tokio::task::yield_now().await;
            }
            node.start_disk(DiskId(2)).await;
        };
        let (written, ()) = tokio::join!(write, back);
        written.unwrap();
        assert_eq!(request::read(&volume, 0, BLOCK).await.unwrap(), filled(3, BLOCK));
        volume.close().await;
        node.stop().await;
    });
}
