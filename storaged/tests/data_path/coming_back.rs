//! A disk that was out of its groups gets what it missed and takes part again, by itself, while a guest writes.

use std::cell::Cell;

use client::request;
use coordination::ClusterMap;
use protocol::DiskId;
use protocol::session::SlotState;

use super::node::{Node, make_disk};
use super::{BLOCK, OBJECT, filled, on_one_thread};

const OBJECTS: u64 = 12;
const AWAY: DiskId = DiskId(3);

fn states(map: &ClusterMap, disk: DiskId) -> Vec<SlotState> {
    map.groups_on(disk).map(|(_, slot)| slot.state).collect()
}

fn all(map: &ClusterMap, disk: DiskId, state: SlotState) -> bool {
    states(map, disk).iter().all(|found| *found == state)
}

/// Leaves the data to one disk alone.
async fn leave_to(node: &mut Node, volume: &client::volume::Volume, others: [DiskId; 2]) {
    for other in others {
        node.stop_disk(other).await;
        for object in 0..OBJECTS {
            // Beside what is compared: whoever is gone is noticed by what is written.
            request::write(volume, object * OBJECT + 8 * BLOCK, filled(9, BLOCK))
                .await
                .unwrap();
        }
        node.until("a disk that is gone leaves", |map| {
            all(map, other, SlotState::Down)
        })
        .await;
    }
}

/// Law (rule 9): whoever was away has, when it is in sync again, all that was acknowledged meanwhile.
#[test]
fn a_disk_that_was_away_gets_what_it_missed_while_a_guest_writes() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::with_min_in_sync(directory.path(), 1).await;
        node.create_volume("alpha", OBJECTS * OBJECT).await;
        let volume = node.open("alpha").await.unwrap();
        for object in 0..OBJECTS {
            request::write(&volume, object * OBJECT, filled(1, BLOCK))
                .await
                .unwrap();
        }
        node.stop_disk(AWAY).await;
        for object in 0..OBJECTS {
            request::write(&volume, object * OBJECT + BLOCK, filled(2, BLOCK))
                .await
                .unwrap();
        }
        node.until("the disk leaves", |map| all(map, AWAY, SlotState::Down))
            .await;

        node.start_disk(AWAY).await;
        let (back, rounds) = (Cell::new(false), Cell::new(2u8));
        let guest = async {
            while !back.get() {
                rounds.set(rounds.get().wrapping_add(1));
                for object in 0..OBJECTS {
                    request::write(&volume, object * OBJECT, filled(rounds.get(), BLOCK))
                        .await
                        .unwrap();
                }
            }
        };
        let comes = async {
            node.until("the disk comes back", |map| all(map, AWAY, SlotState::InSync))
                .await;
            back.set(true);
        };
        tokio::join!(guest, comes);

        leave_to(&mut node, &volume, [DiskId(1), DiskId(2)]).await;
        for object in 0..OBJECTS {
            let read = request::read(&volume, object * OBJECT, 3 * BLOCK).await.unwrap();
            let expected = [filled(rounds.get(), BLOCK), filled(2, BLOCK), filled(0, BLOCK)].concat();
            assert_eq!(read, expected, "object {object}");
        }
        volume.close().await;
        node.stop().await;
    });
}

/// Law: a new disk in the place of a broken one gets everything, snapshots too.
#[test]
fn an_empty_disk_in_the_place_of_one_that_is_lost_gets_everything() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::with_min_in_sync(directory.path(), 1).await;
        node.create_volume("alpha", OBJECTS * OBJECT).await;
        let volume = node.open("alpha").await.unwrap();
        for object in 0..OBJECTS {
            let data = filled(1, 600 * BLOCK);
            request::write(&volume, object * OBJECT, data).await.unwrap();
        }
        node.volumes.snapshot("alpha", "first").await.unwrap();
        node.stop_disk(AWAY).await;
        for object in 0..OBJECTS {
            let data = filled(2, BLOCK);
            request::write(&volume, object * OBJECT + 100 * BLOCK, data)
                .await
                .unwrap();
        }
        node.until("the disk leaves", |map| all(map, AWAY, SlotState::Down))
            .await;
        std::fs::remove_dir_all(directory.path().join(AWAY.to_string())).unwrap();
        make_disk(directory.path(), AWAY);
        node.start_disk(AWAY).await;
        node.until("the disk comes back", |map| all(map, AWAY, SlotState::InSync))
            .await;

        leave_to(&mut node, &volume, [DiskId(1), DiskId(2)]).await;
        let mut options = node.options("alpha");
        options.snapshot = Some("first".into());
        options.read_only = true;
        let snapshot = client::volume::Volume::open(options).await.unwrap();
        for object in 0..OBJECTS {
            let at = object * OBJECT + 100 * BLOCK;
            assert_eq!(request::read(&volume, at, BLOCK).await.unwrap(), filled(2, BLOCK));
            assert_eq!(
                request::read(&volume, at + BLOCK, BLOCK).await.unwrap(),
                filled(1, BLOCK)
            );
            assert_eq!(
                request::read(&snapshot, at, BLOCK).await.unwrap(),
                filled(1, BLOCK)
            );
        }
        snapshot.close().await;
        volume.close().await;
        node.stop().await;
    });
}
