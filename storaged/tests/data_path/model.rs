//! Law: whatever is done to a volume, the real stack shows what a list of numbers shows.
//!
//! The model of a volume is one number a block, and a snapshot is a copy of the list. After every
//! step a part of the volume is compared; at the end all of it, each snapshot and each clone.

use std::path::Path;

use bytes::Bytes;
use client::device::BlockDevice;
use client::request;
use client::volume::Volume;
use proptest::prelude::*;
use protocol::storage::MapKind;

use crate::node::Node;
use crate::{BLOCK, on_one_thread};

/// Two objects and a bit, so that requests cross their borders.
const BLOCKS: u64 = 2 * 1024 + 5;
const NAME: &str = "alpha";

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, count: u64 },
    Zero { at: u64, count: u64, discard: bool },
    Grow { blocks: u64 },
    Snapshot,
    DeleteSnapshot { which: prop::sample::Index },
    RollBack { which: prop::sample::Index },
    Clone { which: prop::sample::Index },
    Retype { slowly: bool },
    Reopen,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Near the borders of objects and chunks more often than elsewhere.
    let at = || prop_oneof![0..BLOCKS, 1000u64..1048, 2040..BLOCKS, 0u64..40];
    let count = || prop_oneof![4 => 1u64..20, 1 => 200u64..1400];
    let which = || any::<prop::sample::Index>();
    let step = prop_oneof![
        8 => (at(), count()).prop_map(|(at, count)| Step::Write { at, count }),
        4 => (at(), count(), any::<bool>()).prop_map(|(at, count, discard)| Step::Zero { at, count, discard }),
        1 => (1u64..2000).prop_map(|blocks| Step::Grow { blocks }),
        3 => Just(Step::Snapshot),
        1 => which().prop_map(|which| Step::DeleteSnapshot { which }),
        1 => which().prop_map(|which| Step::RollBack { which }),
        1 => which().prop_map(|which| Step::Clone { which }),
        1 => any::<bool>().prop_map(|slowly| Step::Retype { slowly }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..25)
}

/// The real stack and the model, side by side.
struct Pair {
    node: Node,
    volume: Volume,
    blocks: Vec<u32>,
    snapshots: Vec<(String, Vec<u32>)>,
    clones: Vec<(String, Vec<u32>)>,
    next: u32,
}

impl Pair {
    async fn create(directory: &Path, kept: Kept) -> Self {
        let node = match kept {
            Kept::Copies => Node::create(directory).await,
            Kept::Rows => Node::encoded(directory).await,
        };
        node.create_pool("other", matches!(kept, Kept::Copies)).await;
        node.create_volume(NAME, BLOCKS * BLOCK).await;
        let volume = node.open(NAME).await.unwrap();
        let blocks = vec![0; usize::try_from(BLOCKS).unwrap()];
        Self {
            node,
            volume,
            blocks,
            snapshots: Vec::new(),
            clones: Vec::new(),
            next: 1,
        }
    }

    fn area(&self, at: u64, count: u64) -> std::ops::Range<usize> {
        let start = usize::try_from(at).unwrap().min(self.blocks.len() - 1);
        start..self.blocks.len().min(start + usize::try_from(count).unwrap())
    }

    async fn apply(mut self, directory: &Path, step: &Step) -> Self {
        match step {
            Step::Write { at, count } => {
                let area = self.area(*at, *count);
                self.blocks[area.clone()].fill(self.next);
                self.next += 1;
                let data = bytes_of(&self.blocks[area.clone()]);
                request::write(&self.volume, area.start as u64 * BLOCK, data)
                    .await
                    .unwrap();
                self.compare(area).await;
            }
            Step::Zero { at, count, discard } => {
                let area = self.area(*at, *count);
                self.blocks[area.clone()].fill(0);
                let (offset, length) = (area.start as u64 * BLOCK, area.len() as u64 * BLOCK);
                if *discard {
                    request::discard(&self.volume, offset, length).await.unwrap();
                } else {
                    request::write_zeroes(&self.volume, offset, length).await.unwrap();
                }
                self.compare(area).await;
            }
            Step::Grow { blocks } => {
                let size = self.blocks.len() + usize::try_from(*blocks).unwrap();
                self.blocks.resize(size, 0);
                let bytes = (size as u64 * BLOCK).into();
                self.node.volumes.resize(NAME, &bytes, false).await.unwrap();
                self.until_size(size as u64 * BLOCK).await;
            }
            // They wait until a volume is where it goes.
            Step::Snapshot | Step::DeleteSnapshot { .. } | Step::RollBack { .. } | Step::Clone { .. }
                if self.moves() => {}
            Step::Retype { slowly } if self.snapshots.is_empty() => self.retype(*slowly).await,
            Step::Snapshot => {
                let name = format!("snapshot-{}", self.next);
                self.next += 1;
                self.node.volumes.snapshot(NAME, &name).await.unwrap();
                self.snapshots.push((name, self.blocks.clone()));
            }
            Step::DeleteSnapshot { which } if !self.snapshots.is_empty() => {
                let (name, _) = self.snapshots.remove(which.index(self.snapshots.len()));
                self.node.volumes.delete_snapshot(NAME, &name).await.unwrap();
            }
            Step::RollBack { which } if !self.snapshots.is_empty() => {
                let (name, blocks) = self.snapshots[which.index(self.snapshots.len())].clone();
                self.volume.close().await;
                self.node.volumes.roll_back(NAME, &name).await.unwrap();
                self.blocks = blocks;
                self.volume = self.node.open(NAME).await.unwrap();
            }
            Step::Clone { which } if !self.snapshots.is_empty() => {
                let (snapshot, blocks) = self.snapshots[which.index(self.snapshots.len())].clone();
                let name = format!("clone-{}", self.next);
                self.next += 1;
                self.node
                    .volumes
                    .clone_snapshot(NAME, &snapshot, &name)
                    .await
                    .unwrap();
                self.clones.push((name, blocks));
            }
            Step::DeleteSnapshot { .. }
            | Step::RollBack { .. }
            | Step::Clone { .. }
            | Step::Retype { .. } => {}
            Step::Reopen => {
                self.volume.close().await;
                self.volume = self.node.open(NAME).await.unwrap();
            }
            Step::Restart => {
                // The volume stays open, as a guest's does: it finds the node again by itself.
                let Self {
                    node,
                    volume,
                    blocks,
                    snapshots,
                    clones,
                    next,
                } = self;
                node.stop().await;
                let node = Node::start(directory).await;
                self = Self {
                    node,
                    volume,
                    blocks,
                    snapshots,
                    clones,
                    next,
                };
            }
        }
        self
    }

    fn moves(&self) -> bool {
        self.node.volumes.map().moves().next().is_some()
    }

    /// Lets the volume move to the other pool, or go on faster or more slowly. The next steps meet it on its way.
    async fn retype(&self, slowly: bool) {
        let map = self.node.volumes.map();
        let id = map.volume_named(NAME).unwrap();
        let pool = map.volume(id).unwrap().0.pool().unwrap();
        let here = map.pool(pool).unwrap().record.name.clone();
        let other = if here == "pool" { "other" } else { "pool" };
        let to = if self.moves() { here.as_str() } else { other };
        let rate = if slowly { 1 << 20 } else { 1 << 30 };
        // It may be there meanwhile.
        if let Err(error) = self.node.volumes.retype(NAME, to, Some(rate)).await {
            assert!(error.to_string().contains("already"), "{error}");
        }
    }

    /// Waits until the front end has heard of another size.
    async fn until_size(&self, size: u64) {
        let heard = std::rc::Rc::new(tokio::sync::Notify::new());
        let teller = heard.clone();
        self.volume.listen(Box::new(move |_| teller.notify_one()));
        while self.volume.info().size != size {
            heard.notified().await;
        }
    }

    async fn compare(&self, area: std::ops::Range<usize>) {
        compare(&self.volume, &self.blocks, area).await;
    }

    async fn compare_all(self) {
        self.compare(0..self.blocks.len()).await;
        self.volume.close().await;
        for (snapshot, blocks) in &self.snapshots {
            let mut options = self.node.options(NAME);
            options.snapshot = Some(snapshot.clone());
            let volume = Volume::open(options).await.unwrap();
            assert!(volume.info().read_only);
            compare(&volume, blocks, 0..blocks.len()).await;
            volume.close().await;
        }
        for (clone, blocks) in &self.clones {
            let volume = self.node.open(clone).await.unwrap();
            compare(&volume, blocks, 0..blocks.len()).await;
            volume.close().await;
        }
        self.node.stop().await;
    }
}

pub(crate) fn bytes_of(blocks: &[u32]) -> Bytes {
    blocks
        .iter()
        .flat_map(|number| number.to_le_bytes().repeat(1024))
        .collect()
}

/// Holds a part of a volume, and its map of data, against the model.
pub(crate) async fn compare(volume: &Volume, blocks: &[u32], area: std::ops::Range<usize>) {
    let (offset, length) = (area.start as u64 * BLOCK, area.len() as u64 * BLOCK);
    let read = request::read(volume, offset, length).await.unwrap();
    for (found, expected) in read.chunks_exact(4096).zip(area.clone()) {
        let number = blocks[expected];
        assert!(
            found == bytes_of(&[number]),
            "block {expected} should hold {number}"
        );
    }
    let mut at = area.start;
    for (length, kind) in request::map(volume, offset, length).await.unwrap() {
        let end = at + usize::try_from(length / BLOCK).unwrap();
        let zero = blocks[at..end].iter().all(|number| *number == 0);
        assert!(
            kind == MapKind::Data || zero,
            "blocks {at}..{end} are no {kind:?}"
        );
        at = end;
    }
    assert_eq!(at, area.end);
}

/// How the pool keeps data.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Copies,
    Rows,
}

fn run(kept: Kept, steps: &[Step]) {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let mut pair = Pair::create(directory.path(), kept).await;
        for step in steps {
            pair = pair.apply(directory.path(), step).await;
        }
        pair.compare_all().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn the_real_stack_shows_what_the_model_shows(steps in steps()) {
        run(Kept::Copies, &steps);
    }
}

proptest! {
    // What is special about rows the simulator tries far more often.
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn the_real_stack_shows_it_in_a_pool_of_rows_too(steps in steps()) {
        run(Kept::Rows, &steps);
    }
}
