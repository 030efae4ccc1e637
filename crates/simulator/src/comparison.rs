//! The real store against the model of a store: random changes to a few fronts and their rows, one after the other, and
//! after each the same answers from both. A power cut and a checkpoint now and then change nothing of that.

use std::sync::Arc;

use bytes::Bytes;
use protocol::rows::{RowPlace, rows_index};
use protocol::storage::{
    Change, ChunkState, ObjectDelta, ObjectState, ObjectWrite, StorageError, StorageReply, StorageRequest,
};
use protocol::{BlockRange, DiskId, FamilyId, Generation, LayerChain, LayerId, ObjectId, Stamp};
use store::medium::memory::Disk;
use store::{Format, Options, Store};

use crate::chance::Chance;
use crate::model_store::{ModelStore, Taken};

const SEEDS: u64 = 6;
const STEPS: u64 = 150;
const FAMILY: FamilyId = FamilyId(1);
const INDEXES: u32 = 2;
/// Layers that there may be at a time, each the child of the one before.
const LAYERS: u64 = 3;
/// Chunks that are used.
const CHUNKS: u32 = 6;
const ROW: u8 = 2;
/// Polls in which a request is answered.
const POLLS_LIMIT: usize = 10_000;

struct Pair {
    disk: Disk,
    real: Store,
    model: ModelStore,
    chance: Chance,
    count: u64,
    /// The oldest layer of each index that may be there.
    oldest: u64,
    head: u64,
}

fn stamp(count: u64) -> Stamp {
    Stamp {
        generation: Generation(u64::from(count > 0)),
        count,
    }
}

fn filled(blocks: u32, count: u64) -> Change {
    let mut bytes = Vec::new();
    for block in 0..u64::from(blocks) {
        bytes.extend(
            (count << 16 | block)
                .to_le_bytes()
                .repeat(protocol::BLOCK_SIZE as usize / 8),
        );
    }
    let checksums: Arc<[u32]> = bytes
        .chunks(protocol::BLOCK_SIZE as usize)
        .map(crc32c::crc32c)
        .collect();
    Change::Data {
        bytes: Bytes::from(bytes),
        checksums,
    }
}

impl Pair {
    fn new(seed: u64) -> Self {
        let disk = Disk::default();
        let format = Format {
            cluster: [1; 16],
            disk: DiskId(1),
            serial: [3; 16],
            log_bytes: store::options::LOG_BYTES_MIN,
        };
        Store::create_on(&mut disk.medium(), &format).expect("a disk in memory");
        let real = Store::open_on(Box::new(disk.medium()), &Options::default()).expect("a new disk");
        Self {
            disk,
            real,
            model: ModelStore::default(),
            chance: Chance::new(seed),
            count: 0,
            oldest: 1,
            head: 1,
        }
    }

    fn real(&mut self, request: &StorageRequest) -> Result<StorageReply, StorageError> {
        self.real.submit(1, request.clone());
        let mut answers = Vec::new();
        for _ in 0..POLLS_LIMIT {
            self.real.kick();
            self.real.poll(&mut answers);
            if let Some((_, answer)) = answers.pop() {
                return answer;
            }
        }
        panic!("{request:?} is never answered");
    }

    fn model(&mut self, request: &StorageRequest) -> Result<StorageReply, StorageError> {
        match self.model.take(request) {
            Taken::Queued => {
                self.model.make_durable();
                Ok(StorageReply::Done)
            }
            Taken::Look => self.model.look(request),
            Taken::Answered(answer) => answer,
        }
    }

    /// Both do it, and say the same.
    fn both(&mut self, request: &StorageRequest) -> StorageReply {
        let (real, model) = (self.real(request), self.model(request));
        assert_eq!(real, model, "step {}: {request:?}", self.count);
        real.expect("neither refuses it")
    }

    fn column(&mut self, index: u32) -> Vec<ObjectState> {
        let request = StorageRequest::Column {
            family: FAMILY,
            index,
        };
        match self.both(&request) {
            StorageReply::Listed { objects, .. } => objects,
            other => panic!("{other:?}"),
        }
    }

    fn stamp_of(&mut self, object: ObjectId) -> Stamp {
        let column = self.column(object.index);
        let mut found = column.iter().filter(|state| state.object == object);
        found.next().map_or(Stamp::ZERO, |state| state.stamp)
    }

    /// What both have of an index: its states, and what each chain shows.
    fn look(&mut self, index: u32) {
        for index in [index, rows_index(index)] {
            self.column(index);
            for head in 1..=self.head {
                let request = StorageRequest::Read {
                    chain: LayerChain::new((1..=head).rev().map(LayerId).collect()),
                    family: FAMILY,
                    index,
                    ranges: BlockRange::new(0, CHUNKS * 16).expect("a range").into(),
                };
                let (real, model) = (self.real(&request), self.model(&request));
                let bytes = |reply| match reply {
                    Ok(StorageReply::Data { stamp, bytes, .. }) => (stamp, bytes),
                    other => panic!("{other:?}"),
                };
                assert!(
                    bytes(real) == bytes(model),
                    "step {}: chain {head} of {index}",
                    self.count
                );
            }
        }
    }

    fn write(&mut self, object: ObjectId, range: BlockRange, floor: Stamp) -> StorageRequest {
        let change = if self.chance.between(0, 4) == 0 {
            Change::Zero
        } else {
            filled(range.count(), self.count)
        };
        StorageRequest::Write(ObjectWrite {
            object,
            follows: self.stamp_of(object),
            stamp: stamp(self.count),
            range,
            change,
            use_reserve: false,
            floor,
        })
    }

    /// A level that brings some blocks of one chunk.
    fn level(&mut self, object: ObjectId) -> StorageRequest {
        let chunk = u8::try_from(self.chance.between(0, u64::from(CHUNKS) - 1)).unwrap_or(0);
        let Change::Data { bytes, checksums } = filled(2, self.count) else {
            panic!("not data")
        };
        let state = ChunkState {
            chunk,
            stamp: stamp(self.count),
            present: 0b111,
            zero: 0b100,
        };
        let delta = ObjectDelta {
            object,
            stamp: stamp(self.count),
            merged: Vec::new(),
            chunks: vec![state],
            checksums,
            bytes,
        };
        let follows = self.stamp_of(object);
        StorageRequest::Level { follows, delta }
    }

    fn step(&mut self) {
        self.count += 1;
        let index = u32::try_from(self.chance.between(0, u64::from(INDEXES) - 1)).unwrap_or(0);
        let front = ObjectId {
            family: FAMILY,
            index,
            layer: LayerId(self.head),
        };
        let rows = ObjectId {
            index: rows_index(index),
            ..front
        };
        match self.chance.between(0, 15) {
            0..=7 => {
                let start = self.chance.between(0, u64::from(CHUNKS) * 16 - 1);
                let count = self.chance.between(1, u64::from(CHUNKS) * 16 - start);
                let narrow = |number: u64| u32::try_from(number).unwrap_or(0);
                let range = BlockRange::new(narrow(start), narrow(count)).expect("a range");
                let floor = stamp(self.chance.between(0, self.count));
                let write = self.write(front, range, floor);
                self.both(&write);
            }
            8..=10 => {
                let row = u32::try_from(self.chance.between(0, 2)).unwrap_or(0);
                let place = self.chance.pick(&RowPlace::BOTH).unwrap_or_default();
                let range = place.blocks(row).expect("a row");
                let write = self.write(rows, range, Stamp::ZERO);
                self.both(&write);
            }
            11 => {
                let level = self.level(front);
                self.both(&level);
            }
            12 if self.head - self.oldest + 1 < LAYERS => self.head += 1,
            12 | 13 if self.oldest < self.head => self.merge(),
            14 => self.real.checkpoint(),
            15 => {
                self.disk.cut_power(self.count);
                let medium = Box::new(self.disk.medium());
                self.real = Store::open_on(medium, &Options::default()).expect("it opens again");
            }
            _ => {}
        }
        self.look(index);
    }

    /// The oldest layer is merged into the next: fronts and rows, in any order.
    fn merge(&mut self) {
        let row_chunks = self.chance.pick(&[Some(ROW), Some(ROW), None]).flatten();
        let (parent, child) = (LayerId(self.oldest), LayerId(self.oldest + 1));
        let fronts = 0..INDEXES;
        let mut indexes: Vec<u32> = fronts.flat_map(|index| [index, rows_index(index)]).collect();
        if self.chance.between(0, 1) == 0 {
            indexes.reverse();
        }
        for index in indexes {
            self.both(&StorageRequest::Merge {
                family: FAMILY,
                index,
                parent,
                child,
                row_chunks,
            });
        }
        self.oldest += 1;
    }
}

/// Law: the store does what the model of it says, floors and rows included.
#[test]
fn the_real_store_answers_as_its_model_does() {
    for seed in 1..=SEEDS {
        println!("seed {seed}");
        let mut pair = Pair::new(seed);
        for _ in 0..STEPS {
            pair.step();
        }
    }
}
