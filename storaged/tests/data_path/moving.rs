//! Volumes that move to another pool while guests use them: from copies to rows and back. Whatever happens meanwhile, a
//! guest reads what it wrote.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use client::request;
use client::volume::{Options, Volume};
use coordination::ClusterMap;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use protocol::session::SlotState;
use protocol::{DiskId, PoolId, VolumeId};

use super::model::{bytes_of, compare};
use super::node::Node;
use super::{BLOCK, OBJECT, on_one_thread};

const OBJECTS: u64 = 5;
const BLOCKS: u64 = OBJECTS * OBJECT / BLOCK;
/// Guests at once; each has blocks of its own, all over the volume.
const GUESTS: u64 = 4;
/// The slowest that a volume moves: an object takes seconds.
const SLOWLY: u64 = 1 << 20;
const NAME: &str = "alpha";

/// What the guests know.
#[derive(Default)]
struct Known {
    blocks: RefCell<Vec<u32>>,
    next: Cell<u32>,
    requests: Cell<u64>,
    enough: Cell<bool>,
}

impl Known {
    fn new() -> Rc<Self> {
        let blocks = vec![0; usize::try_from(BLOCKS).unwrap()];
        Rc::new(Self {
            blocks: RefCell::new(blocks),
            ..Self::default()
        })
    }

    async fn check(&self, volume: &Volume) {
        let blocks = self.blocks.borrow().clone();
        compare(volume, &blocks, 0..blocks.len()).await;
    }

    /// Writes, zeroes and reads blocks of this guest until it is enough; each request is within one stretch of its own.
    async fn work(&self, volume: &Volume, guest: u64, least: u64) {
        let mut runner = TestRunner::deterministic();
        let stretches = BLOCKS / (8 * GUESTS);
        let mut done = 0;
        while !self.enough.get() || done < least {
            let request = (0..stretches, 0..8u64, 1..9u64, 0..8u8);
            let (stretch, from, count, kind) = request.new_tree(&mut runner).unwrap().current();
            // Guests work in turns of the same random numbers, so they meet in the same objects.
            let first = (stretch * GUESTS + guest) * 8 + from;
            let count = count.min(8 - from);
            self.request(volume, first, count, kind).await;
            done += 1;
        }
        self.requests.set(self.requests.get() + done);
    }

    async fn request(&self, volume: &Volume, first: u64, count: u64, kind: u8) {
        let area = usize::try_from(first).unwrap()..usize::try_from(first + count).unwrap();
        let (offset, length) = (first * BLOCK, count * BLOCK);
        match kind {
            0..=3 => {
                let number = self.next.get() + 1;
                self.next.set(number);
                let data = bytes_of(&vec![number; area.len()]);
                request::write(volume, offset, data).await.unwrap();
                self.blocks.borrow_mut()[area].fill(number);
            }
            4 => {
                request::discard(volume, offset, length).await.unwrap();
                self.blocks.borrow_mut()[area].fill(0);
            }
            _ => {
                let expected = bytes_of(&self.blocks.borrow()[area]);
                let read = request::read(volume, offset, length).await.unwrap();
                assert!(read == expected, "blocks {first} and {} more", count - 1);
            }
        }
    }

    /// Lets all guests work for as long as something else goes on.
    async fn work_during(&self, volume: &Volume, least: u64, other: impl Future<Output = ()>) {
        self.enough.set(false);
        let ended = async {
            other.await;
            self.enough.set(true);
        };
        tokio::join!(
            ended,
            self.work(volume, 0, least),
            self.work(volume, 1, least),
            self.work(volume, 2, least),
            self.work(volume, 3, least),
        );
    }
}

/// A node with a volume in a pool of copies, and a pool of rows.
async fn begin(directory: &Path) -> (Node, VolumeId) {
    let node = Node::create(directory).await;
    node.create_pool("rows", true).await;
    node.create_volume(NAME, OBJECTS * OBJECT).await;
    let id = node.volumes.map().volume_named(NAME).unwrap();
    (node, id)
}

/// The same, open, with what guests wrote to it.
async fn begin_used(directory: &Path) -> (Node, VolumeId, Volume, Rc<Known>) {
    let (node, id) = begin(directory).await;
    let (volume, known) = (node.open(NAME).await.unwrap(), Known::new());
    known.work_during(&volume, 100, async {}).await;
    (node, id, volume, known)
}

async fn moved(node: &Node, id: VolumeId) {
    node.until("the volume moves", |map| map.moving(id).is_none())
        .await;
}

fn how_far(node: &Node, id: VolumeId) -> Option<u64> {
    node.volumes.map().moving(id).map(|moving| moving.record.moved)
}

/// Law: what is written before, while and after a volume moves is there, on whichever side it lies.
#[test]
fn guests_work_with_a_volume_while_it_moves_to_rows_and_back_to_copies() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (node, id, volume, known) = begin_used(directory.path()).await;
        for pool in ["rows", "pool", "rows"] {
            let before = node.volumes.map().volume(id).unwrap().1.record.family;
            let moves = async {
                node.volumes.retype(NAME, pool, None).await.unwrap();
                moved(&node, id).await;
            };
            known.work_during(&volume, 50, moves).await;
            known.check(&volume).await;
            let map = node.volumes.map();
            let there = map.volume(id).unwrap().0.pool().and_then(|id| map.pool(id));
            assert_eq!(there.unwrap().record.name, pool);
            let family = map.family(before).unwrap();
            assert!(family.volumes().is_empty(), "nobody refers to what it had");
        }
        // It is a volume like any other: a snapshot is made of it, and a new owner reads the same.
        node.volumes.snapshot(NAME, "s").await.unwrap();
        volume.close().await;
        let volume = node.open(NAME).await.unwrap();
        known.check(&volume).await;
        volume.close().await;
        node.stop().await;
    });
}

/// Law: a move goes on from where it was, whoever opens the volume next, and whatever stopped.
#[test]
fn a_move_goes_on_after_its_volume_was_closed_or_its_node_restarted_at_any_point() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut node, id, mut volume, known) = begin_used(directory.path()).await;
        node.volumes.retype(NAME, "rows", Some(SLOWLY)).await.unwrap();
        let mut seen = Vec::new();
        while let Some(far) = how_far(&node, id) {
            seen.push(far);
            known.work_during(&volume, 10, async {}).await;
            if seen.len() % 2 == 0 {
                volume.close().await;
                volume = node.open(NAME).await.unwrap();
            } else {
                // The volume stays open, and finds the node again by itself.
                node.stop().await;
                node = Node::start(directory.path()).await;
                known.work_during(&volume, 10, async {}).await;
                // Each that opens it moves a step at once, and then keeps to the rate.
                volume.close().await;
                volume = node.open(NAME).await.unwrap();
            }
            let next = |map: &ClusterMap| {
                let moving = map.moving(id);
                moving.is_none_or(|moving| moving.record.moved > far)
            };
            node.until("a step is made", next).await;
        }
        assert!(seen.is_sorted(), "{seen:?}");
        assert!(
            seen.iter().filter(|far| **far > 0).count() > 2,
            "it was met on its way: {seen:?}"
        );
        known.check(&volume).await;
        volume.close().await;
        node.stop().await;
    });
}

/// Law: a volume that nobody has open is moved by `storaged`, and whoever opens it does not find it in use.
#[test]
fn a_volume_that_nobody_has_open_is_moved_and_whoever_wants_it_gets_it_meanwhile() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut node, id, volume, known) = begin_used(directory.path()).await;
        node.take_care().await;
        volume.close().await;
        node.volumes.retype(NAME, "rows", Some(SLOWLY)).await.unwrap();
        let is_ours = |map: &ClusterMap| {
            let begun = map.moving(id).is_some_and(|moving| moving.record.moved > 0);
            begun && map.owner(id).is_some()
        };
        node.until("storaged moves it", is_ours).await;
        // It does not wait at all, as whoever says that it wants the volume now or not.
        let volume = node.open(NAME).await.unwrap();
        known.work_during(&volume, 50, async {}).await;
        volume.close().await;
        assert!(how_far(&node, id).is_some(), "it was met on its way");
        node.volumes.retype(NAME, "rows", Some(1 << 30)).await.unwrap();
        moved(&node, id).await;
        node.until("it is let go", |map| map.owner(id).is_none()).await;
        let volume = node.open(NAME).await.unwrap();
        known.check(&volume).await;
        volume.close().await;

        // One that is to be deleted is not in use either.
        node.volumes.retype(NAME, "pool", Some(SLOWLY)).await.unwrap();
        node.until("storaged moves it", is_ours).await;
        node.volumes.delete(NAME, false).await.unwrap();
        node.stop().await;
    });
}

/// Law: a front end that lost its lease and took the volume again goes on with the move, and nothing that it had not had
/// answered is lost or done in the wrong place.
#[test]
fn a_volume_that_moves_is_taken_again_after_its_lease_lapsed() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (node, id, volume, known) = begin_used(directory.path()).await;
        node.volumes.retype(NAME, "rows", Some(4 << 20)).await.unwrap();
        let first = volume.generation();
        let robbed = async {
            while how_far(&node, id).is_some() {
                node.end_lease(id).await;
                let again = |map: &ClusterMap| map.owner(id).is_some() || map.moving(id).is_none();
                node.until("it is taken again", again).await;
                tokio::time::timeout(Duration::from_millis(400), moved(&node, id))
                    .await
                    .ok();
            }
        };
        known.work_during(&volume, 50, robbed).await;
        assert!(volume.generation() > first);
        known.check(&volume).await;
        volume.close().await;
        node.stop().await;
    });
}

/// Law: with a disk of both pools away the volume moves on, and is whole when the disk is back.
#[test]
fn a_volume_moves_while_a_disk_is_away() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut node, id, volume, known) = begin_used(directory.path()).await;
        node.stop_disk(DiskId(3)).await;
        // A drain that a disk holds up comes to nothing; it is out of its groups in a moment.
        let leaves = node.until("the disk leaves", |map| {
            let groups = map.groups_on(DiskId(3)).filter(|(pg, _)| pg.pool == PoolId(1));
            groups.into_iter().all(|(_, slot)| slot.state == SlotState::Down)
        });
        known.work_during(&volume, 50, leaves).await;
        let moves = async {
            node.volumes.retype(NAME, "rows", None).await.unwrap();
            moved(&node, id).await;
        };
        known.work_during(&volume, 50, moves).await;
        known.check(&volume).await;
        node.start_disk(DiskId(3)).await;
        known.work_during(&volume, 50, async {}).await;
        known.check(&volume).await;
        volume.close().await;
        node.stop().await;
    });
}

/// An older program would take what is moved for all there is.
#[test]
fn a_program_that_knows_nothing_of_moves_does_not_get_a_volume_that_moves() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (node, id) = begin(directory.path()).await;
        node.volumes.retype(NAME, "rows", Some(SLOWLY)).await.unwrap();
        assert_eq!(
            how_far(&node, id),
            Some(0),
            "whoever only brings it to rest moves nothing"
        );
        let refusal = node.open_as_older_program(NAME).await;
        assert!(refusal.contains("moves to another pool"), "{refusal}");
        let options = Options {
            read_only: true,
            ..node.options(NAME)
        };
        let volume = Volume::open(options).await.unwrap();
        assert_eq!(request::read(&volume, 0, BLOCK).await.unwrap(), bytes_of(&[0]));
        volume.close().await;
        node.stop().await;
    });
}
