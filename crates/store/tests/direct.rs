//! What the witness vouches for: as long as it counts no move, a block's place holds what a read gives.
//!
//! A disk in memory lives through random changes, checkpoints and reclaim, its completions in any order,
//! and every place that was ever told and is still vouched for is looked at after each step.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test, in the shared functions as well"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use direct::witness::Witness;
use protocol::place::{ChunkPlaces, Place};
use protocol::storage::{Change, ObjectWrite, StorageError, StorageReply, StorageRequest};
use protocol::{BlockRange, DiskId, FamilyId, Generation, LayerChain, LayerId, ObjectId, Stamp};
use store::medium::memory::{Disk, Random};
use store::medium::{File, Medium};
use store::{Format, MemoryBudget, Options, Store};

const BLOCK: usize = 4096;
const FAMILY: FamilyId = FamilyId(1);
const INDEXES: u32 = 5;
const STEPS: u32 = 600;
/// Blocks of an object that are used: few, so that they are written over again and again.
const BLOCKS: u32 = 64;

/// One object of the volume: what each layer holds, oldest first; a block's value, 0 for zeros.
#[derive(Default)]
struct Object {
    layers: BTreeMap<u64, BTreeMap<u32, u32>>,
    stamps: BTreeMap<u64, u64>,
    head: u64,
}

impl Object {
    fn chain(&self, from: u64) -> Vec<u64> {
        let below = self.layers.range(..=from).map(|(layer, _)| *layer);
        below.rev().collect()
    }

    /// What the layers from one down show.
    fn shows(&self, from: u64, block: u32) -> u32 {
        let held = self
            .chain(from)
            .into_iter()
            .find_map(|layer| self.layers[&layer].get(&block));
        held.copied().unwrap_or(0)
    }
}

/// A chunk's places as they were told, for the layers from one down.
struct Told {
    index: u32,
    layer: u64,
    places: ChunkPlaces,
}

struct Life {
    store: Store,
    /// Another pair of eyes on the same files.
    eyes: Box<dyn Medium>,
    random: Random,
    objects: Vec<Object>,
    told: Vec<Told>,
    values: u32,
    looked_at: u64,
}

fn contents(value: u32) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK / 4)
}

impl Life {
    fn new(seed: u64, witness: Witness) -> Self {
        let disk = Disk::default();
        let format = Format {
            cluster: [1; 16],
            disk: DiskId(1),
            serial: [3; 16],
            log_bytes: 1 << 20,
        };
        Store::create_on(&mut disk.medium(), &format).unwrap();
        let memory = MemoryBudget {
            overlay: 256 << 10,
            metadata: 8 << 10,
            blocks: 64 << 10,
            tables: 256 << 10,
        };
        let options = Options {
            capacity_bytes: 64 << 20,
            reserve_bytes: 0,
            memory,
            ..Options::default()
        };
        let mut store = Store::open_on(Box::new(disk.shuffled_medium(seed)), &options).unwrap();
        store.set_witness(witness);
        let object = || Object {
            layers: BTreeMap::from([(1, BTreeMap::new())]),
            head: 1,
            ..Object::default()
        };
        Self {
            store,
            eyes: Box::new(disk.medium()),
            random: Random::new(seed),
            objects: (0..INDEXES).map(|_| object()).collect(),
            told: Vec::new(),
            values: 0,
            looked_at: 0,
        }
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.random.below(limit.into())).unwrap()
    }

    fn ask(&mut self, request: StorageRequest) -> Result<StorageReply, StorageError> {
        self.store.submit(1, request);
        let mut answers = Vec::new();
        while answers.is_empty() {
            self.store.kick();
            self.store.poll(&mut answers);
            // Between any two completions somebody may be reading.
            self.look();
        }
        answers.pop().unwrap().1
    }

    /// Looks at all that was told and is vouched for. What is about to change is not, from the moment
    /// on at which the store accepted the change.
    fn look(&mut self) {
        let witness = self.store.witness().unwrap();
        self.told
            .retain(|told| witness.count(FAMILY, told.index, told.places.chunk) == told.places.moves);
        for told in &self.told {
            for (number, place) in (0..).zip(&told.places.places) {
                let block = u32::from(told.places.chunk) * 16 + number;
                let expected = self.objects[told.index as usize].shows(told.layer, block);
                let found = match place {
                    Place::Unknown => continue,
                    Place::Zero => vec![0; BLOCK],
                    Place::At { block, checksum } => {
                        let mut bytes = vec![0; BLOCK];
                        self.eyes
                            .read_now(File::Data, block * BLOCK as u64, &mut bytes)
                            .unwrap();
                        assert_eq!(crc32c::crc32c(&bytes), *checksum);
                        bytes
                    }
                };
                assert_eq!(found, contents(expected), "index {} block {block}", told.index);
                self.looked_at += 1;
            }
        }
    }

    fn write(&mut self, index: u32) {
        let start = self.below(BLOCKS);
        let longest = (BLOCKS - start).min(if self.below(3) == 0 { BLOCKS } else { 3 });
        let range = BlockRange::new(start, 1 + self.below(longest)).unwrap();
        let zero = self.below(4) == 0;
        self.values += 1;
        let value = if zero { 0 } else { self.values };
        let object = &mut self.objects[index as usize];
        let head = object.head;
        let follows = object.stamps.get(&head).copied().unwrap_or(0);
        let stamp = |count| match count {
            0 => Stamp::ZERO,
            count => Stamp {
                generation: Generation(1),
                count,
            },
        };
        let change = if zero {
            Change::Zero
        } else {
            let bytes = contents(value).repeat(range.count() as usize);
            let checksums: Arc<[u32]> = bytes.chunks(BLOCK).map(crc32c::crc32c).collect();
            Change::Data {
                bytes: Bytes::from(bytes),
                checksums,
            }
        };
        object.stamps.insert(head, follows + 1);
        let layer = object.layers.get_mut(&head).unwrap();
        layer.extend(range.blocks().map(|block| (block, value)));
        let write = ObjectWrite {
            object: id(index, head),
            follows: stamp(follows),
            stamp: stamp(follows + 1),
            range,
            change,
            use_reserve: false,
            floor: Stamp::ZERO,
        };
        assert_eq!(self.ask(StorageRequest::Write(write)), Ok(StorageReply::Done));
    }

    /// Merges the oldest layer into the next.
    fn merge(&mut self, index: u32) {
        let object = &self.objects[index as usize];
        let mut layers = object.layers.keys().copied();
        let (Some(parent), Some(child)) = (layers.next(), layers.next()) else {
            return;
        };
        // Nobody reads at a layer that goes; the replica sees to that.
        self.told
            .retain(|told| told.index != index || told.layer != parent);
        let request = StorageRequest::Merge {
            family: FAMILY,
            index,
            parent: LayerId(parent),
            child: LayerId(child),
            row_chunks: None,
        };
        assert_eq!(self.ask(request), Ok(StorageReply::Done));
        let object = &mut self.objects[index as usize];
        let mut merged = object.layers.remove(&parent).unwrap();
        merged.extend(object.layers[&child].clone());
        object.layers.insert(child, merged);
        if let Some(StorageReply::Map { stamp, .. }) = self.stamp(index, child) {
            self.objects[index as usize].stamps.insert(child, stamp.count);
        }
    }

    fn stamp(&mut self, index: u32, layer: u64) -> Option<StorageReply> {
        let map = StorageRequest::Map {
            chain: LayerChain::new(vec![LayerId(layer)]),
            family: FAMILY,
            index,
            range: BlockRange::OBJECT,
        };
        self.ask(map).ok()
    }

    /// Throws the head away, as a rollback does, and goes on in a new layer.
    fn roll_back(&mut self, index: u32) {
        let head = self.objects[index as usize].head;
        self.told.retain(|told| told.index != index || told.layer != head);
        assert_eq!(
            self.ask(StorageRequest::Drop(id(index, head))),
            Ok(StorageReply::Done)
        );
        let object = &mut self.objects[index as usize];
        object.layers.remove(&head);
        object.layers.insert(head + 1, BTreeMap::new());
        object.head = head + 1;
    }

    fn ask_for_places(&mut self, index: u32) {
        let object = &self.objects[index as usize];
        let layers: Vec<u64> = object.layers.keys().copied().collect();
        let layer = layers[usize::try_from(self.random.below(layers.len() as u64)).unwrap()];
        let chain = self.objects[index as usize].chain(layer);
        let request = StorageRequest::Places {
            chain: LayerChain::new(chain.into_iter().map(LayerId).collect()),
            family: FAMILY,
            index,
            range: BlockRange::new(0, BLOCKS).unwrap(),
        };
        let Ok(StorageReply::Placed { chunks, admission }) = self.ask(request) else {
            panic!("no places");
        };
        assert_eq!(admission, self.store.witness().unwrap().admission());
        self.told
            .extend(chunks.into_iter().map(|places| Told { index, layer, places }));
    }

    fn step(&mut self) {
        let index = self.below(INDEXES);
        match self.below(24) {
            0..8 => self.write(index),
            8..18 => self.ask_for_places(index),
            18 => {
                let object = &mut self.objects[index as usize];
                object.head += 1;
                object.layers.insert(object.head, BTreeMap::new());
            }
            19 => self.merge(index),
            20 if self.objects[index as usize].layers.len() > 1 => self.roll_back(index),
            21..23 => self.store.checkpoint(),
            _ => {
                let mut answers = Vec::new();
                self.store.kick();
                self.store.poll(&mut answers);
                assert_eq!(answers, []);
            }
        }
        self.look();
    }
}

fn id(index: u32, layer: u64) -> ObjectId {
    ObjectId {
        family: FAMILY,
        index,
        layer: LayerId(layer),
    }
}

/// Law: a reader of the file who finds the counts unchanged has read what a read would have given.
#[test]
fn a_place_that_is_vouched_for_holds_what_a_read_gives() {
    let mut looked_at = 0;
    for seed in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let witness = Witness::open(directory.path(), [1; 16]).unwrap();
        let mut life = Life::new(seed, witness);
        for _ in 0..STEPS {
            life.step();
        }
        looked_at += life.looked_at;
    }
    assert!(looked_at > 100_000, "only {looked_at} blocks were looked at");
}

/// Law: what is not durable is not shown, and a block whose bytes are in the log only has no place.
#[test]
fn a_block_has_a_place_when_it_is_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let witness = Witness::open(directory.path(), [1; 16]).unwrap();
    let mut life = Life::new(1, witness);
    let places = |life: &mut Life| {
        life.told.clear();
        life.ask_for_places(0);
        life.told[0].places.places[0]
    };
    assert_eq!(places(&mut life), Place::Zero);
    while life.objects[0].shows(1, 0) == 0 {
        life.write(0);
    }
    assert_eq!(places(&mut life), Place::Unknown);
    // The first may be one that was under way, and began before the last write.
    while life.store.has_background_work() {
        life.store.checkpoint();
        life.store.drain(&mut Vec::new());
    }
    assert!(matches!(places(&mut life), Place::At { .. }));
}
