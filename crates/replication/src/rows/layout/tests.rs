//! What is read through a layout is what was written last, whatever layers it lies in and however far these are merged.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::ObjectId;

use super::*;
use crate::samples::{chunk as chunk_state, object, stamp};

const BLOCKS: u32 = CHUNKS_PER_OBJECT * BLOCKS_PER_CHUNK;

fn profile() -> Profile {
    Profile::new(4, 2).unwrap()
}

fn range(start: u32, count: u32) -> BlockRange {
    BlockRange::new(start, count).unwrap()
}

fn version(count: u64, place: RowPlace) -> Version {
    Version {
        stamp: stamp(count),
        place,
        zero: false,
    }
}

#[test]
fn the_newer_of_front_and_row_counts() {
    let mut layout = Layout::empty(profile());
    assert!(layout.is_hole(BlockRange::OBJECT));
    layout.wrote_front(range(3, 2), stamp(1), false);
    assert_eq!(layout.sources(range(2, 4))[1], (range(3, 2), Source::Front));
    layout.wrote_row(Row(0), version(2, RowPlace::Even));
    let row = |blocks| Source::Row {
        row: 0,
        shard: 0,
        place: RowPlace::Even,
        blocks,
    };
    assert_eq!(layout.sources(range(2, 4)), [(range(2, 4), row(range(2, 4)))]);
    layout.wrote_front(range(3, 1), stamp(3), true);
    assert_eq!(
        layout.sources(range(2, 4)),
        [
            (range(2, 1), row(range(2, 1))),
            (range(3, 1), Source::Zero),
            (range(4, 2), row(range(4, 2)))
        ]
    );
}

#[test]
fn a_row_goes_where_its_last_version_is_not() {
    let mut layout = Layout::empty(profile());
    assert_eq!(layout.next_place(Row(1)), RowPlace::Even);
    layout.wrote_row(Row(1), version(1, RowPlace::Even));
    assert_eq!(layout.next_place(Row(1)), RowPlace::Odd);
    assert!(layout.spare_places().is_empty());
    layout.wrote_row(Row(1), version(2, RowPlace::Odd));
    assert_eq!(layout.spare_places(), [2]);
    layout.gave_back(&[2], &[]);
    assert!(layout.spare_places().is_empty());
}

#[test]
fn what_a_row_made_old_in_its_front_is_to_be_given_back() {
    let mut layout = Layout::empty(profile());
    layout.wrote_front(range(16, 4), stamp(1), false);
    layout.wrote_row(Row(0), version(2, RowPlace::Even));
    assert_eq!(layout.spare_fronts(), [1]);
    layout.wrote_front(range(17, 1), stamp(3), false);
    assert!(layout.spare_fronts().is_empty());
}

#[test]
fn a_shard_that_the_last_row_lacks_does_not_make_it_a_row_of_zeros() {
    let profile = Profile::new(3, 2).unwrap();
    let mut only = chunk_state(42, 5, u16::MAX);
    only.zero = u16::MAX;
    let rows = |layer| ObjectState {
        object: object(layer),
        stamp: stamp(5),
        chunks: vec![only.clone()],
    };
    // Row 21 has one chunk of data: shards 1 and 2 are zeros, shard 0 and the parity are not.
    let lacking = Layout::resolve(profile, LayerId(1), &[], (1, &[rows(1)]));
    assert!(!lacking.version(Row(21)).unwrap().zero);
    let first = Layout::resolve(profile, LayerId(1), &[], (0, &[rows(1)]));
    assert!(first.version(Row(21)).unwrap().zero);
}

/// A chunk's blocks, by number, and the write that it had last.
type Blocks = (Stamp, BTreeMap<u32, u32>);

/// One disk's copy of the front, and shard 0 of the rows, by layer, as a store keeps them; with a name for what each block
/// holds, 0 for zeros.
#[derive(Default)]
struct Disk {
    layers: Vec<u64>,
    fronts: BTreeMap<(u64, u32), Blocks>,
    places: BTreeMap<(u64, u32), (Stamp, Vec<u32>)>,
}

impl Disk {
    fn head(&self) -> u64 {
        self.layers.last().copied().unwrap_or(1)
    }

    fn newest_row(&self, layers: &[u64], row: u32) -> Stamp {
        let of = |layer: &u64| RowPlace::BOTH.map(|place| self.places.get(&(*layer, place.chunk(row))));
        let stamps = layers.iter().flat_map(of).flatten().map(|(stamp, _)| *stamp);
        stamps.max().unwrap_or(Stamp::ZERO)
    }

    fn write_front(&mut self, blocks: BlockRange, name: u32, at: Stamp, floor: Stamp) {
        let head = self.head();
        for block in blocks.blocks() {
            let chunk = self.fronts.entry((head, block / 16)).or_default();
            if chunk.0 < floor {
                chunk.1.clear();
            }
            chunk.0 = at;
            chunk.1.insert(block, name);
        }
    }

    /// The oldest layer goes into the next one, the front by the rule for what is older than its row.
    fn merge(&mut self) {
        let [parent, child, ..] = self.layers[..] else {
            return;
        };
        for chunk in 0..CHUNKS_PER_OBJECT {
            let floor = self.newest_row(&[parent, child], chunk / 4);
            let Some((at, blocks)) = self.fronts.remove(&(parent, chunk)) else {
                continue;
            };
            if at < floor {
                continue;
            }
            let ours = self.fronts.entry((child, chunk)).or_insert((at, BTreeMap::new()));
            for (block, name) in blocks {
                ours.1.entry(block).or_insert(name);
            }
        }
        for chunk in 0..CHUNKS_PER_OBJECT {
            if let Some(place) = self.places.remove(&(parent, chunk)) {
                self.places.entry((child, chunk)).or_insert(place);
            }
        }
        self.layers.remove(0);
    }

    fn states(&self) -> (Vec<ObjectState>, Vec<ObjectState>) {
        let state = |layer: &u64, chunks| ObjectState {
            object: ObjectId { ..object(*layer) },
            stamp: Stamp::ZERO,
            chunks,
        };
        let front = |layer: &u64| {
            let chunks = self.fronts.range((*layer, 0)..(*layer + 1, 0));
            let chunk = |(key, (at, blocks)): (&(u64, u32), &Blocks)| {
                let bits = |zero: bool| {
                    let wanted = blocks.iter().filter(|(_, name)| !zero || **name == 0);
                    wanted.fold(0, |bits: u16, (block, _)| bits | 1 << (block % 16))
                };
                ChunkState {
                    chunk: u8::try_from(key.1).unwrap(),
                    stamp: *at,
                    present: bits(false),
                    zero: bits(true),
                }
            };
            state(layer, chunks.map(chunk).collect())
        };
        let rows = |layer: &u64| {
            let places = self.places.range((*layer, 0)..(*layer + 1, 0));
            let chunk = |(key, (at, names)): (&(u64, u32), &(Stamp, Vec<u32>))| ChunkState {
                chunk: u8::try_from(key.1).unwrap(),
                stamp: *at,
                present: u16::MAX,
                zero: if names.iter().all(|name| *name == 0) {
                    u16::MAX
                } else {
                    0
                },
            };
            state(layer, places.map(chunk).collect())
        };
        (
            self.layers.iter().map(front).collect(),
            self.layers.iter().map(rows).collect(),
        )
    }

    /// What a read of a block gives that goes by a layout. Reads go through the layers from the head on.
    fn read(&self, layout: &Layout, block: u32) -> u32 {
        let newest =
            |found: &dyn Fn(u64) -> Option<u32>| self.layers.iter().rev().find_map(|layer| found(*layer));
        match layout.source(block) {
            Source::Hole | Source::Zero => 0,
            Source::Front => {
                newest(&|layer| self.fronts.get(&(layer, block / 16))?.1.get(&block).copied()).unwrap()
            }
            Source::Row { row, place, .. } => {
                let names = newest(&|layer| {
                    let (_, names) = self.places.get(&(layer, place.chunk(row)))?;
                    names.get((block % 64) as usize).copied()
                });
                names.unwrap()
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Front(u32, u32, bool),
    Row(u32, bool),
    Seal,
    Merge,
}

fn step() -> impl Strategy<Value = Step> {
    // Two rows of four chunks are enough to get in each other's way.
    let front = (0u32..128, 1u32..20, any::<bool>());
    prop_oneof![
        6 => front.prop_map(|(start, count, zero)| Step::Front(start, count.min(64 - start % 64), zero)),
        4 => (0u32..2, any::<bool>()).prop_map(|(row, zero)| Step::Row(row, zero)),
        1 => Just(Step::Seal),
        1 => Just(Step::Merge),
    ]
}

proptest! {
    /// Law: an owner that followed all writes, and one that asks a disk, read what was written last.
    #[test]
    fn a_layout_shows_what_was_written_last(steps in prop::collection::vec(step(), 0..40)) {
        let mut disk = Disk { layers: vec![1], ..Disk::default() };
        let mut followed = Layout::empty(profile());
        let mut written = vec![0; BLOCKS as usize];
        for (count, step) in (1u32..).zip(steps) {
            let at = stamp(u64::from(count));
            match step {
                Step::Front(start, blocks, zero) => {
                    let (blocks, name) = (range(start, blocks), if zero { 0 } else { count });
                    disk.write_front(blocks, name, at, followed.floor(Row(start / 64)));
                    followed.wrote_front(blocks, at, zero);
                    blocks.blocks().for_each(|block| written[block as usize] = name);
                }
                Step::Row(row, zero) => {
                    let (place, name) = (followed.next_place(Row(row)), if zero { 0 } else { count });
                    disk.places.insert((disk.head(), place.chunk(row)), (at, vec![name; 64]));
                    followed.wrote_row(Row(row), Version { stamp: at, place, zero });
                    (row * 64..row * 64 + 64).for_each(|block| written[block as usize] = name);
                }
                Step::Seal => disk.layers.push(disk.head() + 1),
                Step::Merge => disk.merge(),
            }
            let (front, rows) = disk.states();
            let asked = Layout::resolve(profile(), LayerId(disk.head()), &front, (0, &rows));
            for block in 0..128 {
                let wanted = written[block as usize];
                prop_assert_eq!(disk.read(&followed, block), wanted, "followed, block {}", block);
                prop_assert_eq!(disk.read(&asked, block), wanted, "asked, block {}", block);
            }
        }
    }
}

#[test]
fn a_row_is_worth_encoding_when_its_fronts_in_the_head_take_more_room_than_it_would() {
    // 4+2: a row takes six chunks, a front three for each that it has something of.
    let mut layout = Layout::empty(profile());
    let write = |layout: &mut Layout, chunk: u32, count| {
        layout.wrote_front(range(chunk * 16 + 3, 2), stamp(count), false);
    };
    write(&mut layout, 0, 1);
    write(&mut layout, 1, 2);
    assert!(!layout.pays(Row(0)), "six for six");
    write(&mut layout, 2, 3);
    assert_eq!(layout.rows_that_pay(), [Row(0)], "nine for six");
    layout.wrote_row(Row(0), version(4, RowPlace::Even));
    assert!(layout.rows_that_pay().is_empty(), "nothing in the front counts");
    write(&mut layout, 2, 5);
    assert!(layout.pays(Row(0)), "the version before goes, too");
}

#[test]
fn what_lies_in_a_parent_is_not_set_free_by_a_row_in_the_head() {
    let front = |layer| {
        let state = ObjectState {
            object: object(layer),
            stamp: stamp(1),
            chunks: (0..4).map(|number| chunk_state(number, 1, u16::MAX)).collect(),
        };
        Layout::resolve(profile(), LayerId(2), &[state], (0, &[]))
    };
    assert!(front(2).pays(Row(0)));
    assert!(!front(1).pays(Row(0)));
}
