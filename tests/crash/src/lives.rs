//! Long random lives of a disk against the model: many objects, requests under way together and
//! completed in any order, small memory, power cuts, restarts of the process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a life that breaks a promise ends in a panic that says so"
)]

use std::collections::HashMap;

use protocol::rows::rows_index;
use protocol::storage::{StorageReply, StorageRequest, StorageView};
use protocol::{BlockRange, DiskId, LayerChain, LayerId, Stamp};
use store::medium::memory::{Disk, Random};
use store::{Format, MemoryBudget, Options, Store};

use crate::model::{Doubt, Model, View};
use crate::operation::{self, BLOCK, BLOCKS, FAMILY, Kind, LAYERS};
use crate::scenario;

const INDEXES: u32 = 24;
const STEPS: u64 = 400;
/// Requests under way together.
const TOGETHER: usize = 48;
const POLLS_MAX: usize = 1_000_000;

/// One index: what it was after each request, and how many of these are there for good: because they
/// were answered, or because a read showed them.
struct Place {
    model: Model,
    views: Vec<View>,
    answered: usize,
    head: u64,
}

/// A read under way.
struct Read {
    index: usize,
    head: u64,
    /// What was known to be there when it began: it shows that or something newer.
    least: usize,
}

struct Life {
    disk: Disk,
    store: Store,
    random: Random,
    places: Vec<Place>,
    /// By token: whose request it is, and its number there.
    under_way: HashMap<u64, (usize, usize)>,
    reads: HashMap<u64, Read>,
    /// The last merge of an index: its token.
    merging: HashMap<usize, u64>,
    token: u64,
    count: u64,
}

/// So little metadata that stacks come and go all the time.
fn options() -> Options {
    let memory = MemoryBudget {
        overlay: 512 << 10,
        metadata: 24 << 10,
        blocks: 256 << 10,
        tables: 256 << 10,
    };
    Options {
        capacity_bytes: 256 << 20,
        reserve_bytes: 0,
        memory,
        ..Options::default()
    }
}

fn at_index(mut request: StorageRequest, index: u32) -> StorageRequest {
    match &mut request {
        StorageRequest::Write(write) => write.object.index |= index,
        StorageRequest::Level { delta, .. } | StorageRequest::Replace { delta, .. } => {
            delta.object.index = index;
        }
        StorageRequest::Merge { index: place, .. } => *place = index,
        StorageRequest::Drop(object) => object.index = index,
        StorageRequest::Settle(objects) => objects.iter_mut().for_each(|(object, _)| object.index = index),
        _ => {}
    }
    request
}

impl Life {
    fn new(seed: u64) -> Self {
        let disk = Disk::default();
        let format = Format {
            cluster: [1; 16],
            disk: DiskId(1),
            serial: [3; 16],
            log_bytes: 1 << 20,
        };
        Store::create_on(&mut disk.medium(), &format).unwrap();
        let store = Store::open_on(Box::new(disk.shuffled_medium(seed)), &options()).unwrap();
        let place = || Place {
            model: Model::default(),
            views: vec![Model::default().view()],
            answered: 0,
            head: 1,
        };
        Self {
            disk,
            store,
            random: Random::new(seed),
            places: (0..INDEXES).map(|_| place()).collect(),
            under_way: HashMap::new(),
            reads: HashMap::new(),
            merging: HashMap::new(),
            token: 0,
            count: 0,
        }
    }

    fn submit(&mut self, index: usize, request: StorageRequest) {
        let place = &mut self.places[index];
        place.model.apply(&request);
        place.views.push(place.model.view());
        self.under_way.insert(self.token, (index, place.views.len() - 1));
        self.store
            .submit(self.token, at_index(request, u32::try_from(index).unwrap()));
        self.token += 1;
    }

    fn step(&mut self) {
        self.count += 1;
        let index = usize::try_from(self.random.below(u64::from(INDEXES))).unwrap();
        let place = &self.places[index];
        let (head, stamp) = (place.head, place.model.stamp(place.head));
        let oldest = place.model.layers.keys().next().copied().unwrap_or(1);
        // Writes overtake a merge, so its index is left alone until it is answered.
        let alone = !self.under_way.values().any(|(other, _)| *other == index);
        if self
            .merging
            .get(&index)
            .is_some_and(|token| self.under_way.contains_key(token))
        {
            return;
        }
        match self.random.below(22) {
            0..8 => {
                let kinds = [
                    Kind::WriteSmall,
                    Kind::WriteUnaligned,
                    Kind::WriteLarge,
                    Kind::WriteFresh,
                ];
                let kind = kinds[usize::try_from(self.random.below(4)).unwrap()];
                // Of what was written in the last steps some is above it and some is not.
                let floor = operation::stamp(self.count - self.random.below(self.count.min(200)));
                self.submit(
                    index,
                    operation::write(kind, head, (stamp, floor), self.count).unwrap(),
                );
            }
            8..10 => {
                let kinds = [Kind::ZeroSmall, Kind::ZeroChunk, Kind::ZeroSmall, Kind::ZeroAll];
                let kind = kinds[usize::try_from(self.random.below(4)).unwrap()];
                let stamps = (stamp, Stamp::ZERO);
                self.submit(index, operation::write(kind, head, stamps, self.count).unwrap());
            }
            10 => self.places[index].head = LAYERS.min(head + 1),
            11 => self.submit(index, operation::level(head, stamp, self.count)),
            12 if oldest < head && alone => {
                self.merging.insert(index, self.token);
                let parents = [oldest, head - 1];
                let parent = parents[usize::try_from(self.random.below(2)).unwrap()];
                let row_chunks = (self.random.below(2) == 0).then_some(operation::ROW_CHUNKS);
                self.submit(index, operation::merge(parent, row_chunks));
            }
            13 if oldest < head => {
                self.submit(index, StorageRequest::Drop(operation::object(oldest)));
            }
            14 => self.store.checkpoint(),
            15 => {
                let settle = StorageRequest::Settle(vec![(operation::object(head), stamp)]);
                // At once, for whatever was accepted by now: all states may lack the doubt.
                let place = &mut self.places[index];
                place.model.apply(&settle);
                place.views.iter_mut().for_each(|view| view.settle(head));
                self.store
                    .submit(u64::MAX, at_index(settle, u32::try_from(index).unwrap()));
            }
            16 => {
                let stamps = (place.model.rows_stamp(head), Stamp::ZERO);
                self.submit(
                    index,
                    operation::write(Kind::WriteRow, head, stamps, self.count).unwrap(),
                );
            }
            _ => self.read(index),
        }
    }

    fn read(&mut self, index: usize) {
        let head = self.places[index].head;
        let request = StorageRequest::Read {
            chain: LayerChain::new((1..=head).rev().map(LayerId).collect()),
            family: FAMILY,
            index: u32::try_from(index).unwrap(),
            ranges: BlockRange::new(0, BLOCKS).unwrap().into(),
        };
        let least = self.places[index].answered;
        self.reads.insert(self.token, Read { index, head, least });
        self.store.submit(self.token, request);
        self.token += 1;
    }

    fn poll(&mut self) {
        let mut answers = Vec::new();
        self.store.kick();
        self.store.poll(&mut answers);
        for (token, answer) in answers {
            let reply = answer.unwrap_or_else(|error| panic!("request {token}: {error}"));
            if let Some((index, number)) = self.under_way.remove(&token) {
                let place = &mut self.places[index];
                place.answered = place.answered.max(number);
            } else if let Some(read) = self.reads.remove(&token) {
                let StorageReply::Data { bytes, .. } = reply else {
                    panic!("{reply:?}")
                };
                self.check_read(&read, &bytes);
            }
        }
    }

    /// What was read is one state as a whole, not older than what was known when the read began.
    /// From now on nothing older may be seen: not by a later read, and not after a power cut.
    fn check_read(&mut self, read: &Read, bytes: &[u8]) {
        let blocks = bytes.chunks(BLOCK).map(|block| operation::value(block).unwrap());
        let values: Vec<u64> = blocks.collect();
        let chain = usize::try_from(read.head - 1).unwrap();
        let place = &mut self.places[read.index];
        let states = place.views.iter().enumerate().skip(read.least);
        let mut shown = states.filter(|(_, view)| view.chains[chain] == values);
        let Some((number, _)) = shown.next() else {
            panic!(
                "index {}: a read shows nothing from {} to {}",
                read.index,
                read.least,
                place.views.len() - 1
            );
        };
        place.answered = place.answered.max(number);
    }

    fn settle(&mut self) {
        for _ in 0..POLLS_MAX {
            self.poll();
            if self.under_way.is_empty() && self.reads.is_empty() {
                return;
            }
        }
        panic!("{} requests are never answered", self.under_way.len());
    }

    fn look(&mut self, index: usize) -> View {
        let mut chains = Vec::new();
        for head in 1..=LAYERS {
            let request = StorageRequest::Read {
                chain: LayerChain::new((1..=head).rev().map(LayerId).collect()),
                family: FAMILY,
                index: u32::try_from(index).unwrap(),
                ranges: BlockRange::new(0, BLOCKS).unwrap().into(),
            };
            let reply = scenario::ask(&mut self.store, &request).unwrap().unwrap();
            let StorageReply::Data { bytes, .. } = reply else {
                panic!("{reply:?}")
            };
            chains.push(
                bytes
                    .chunks(BLOCK)
                    .map(|block| operation::value(block).unwrap())
                    .collect(),
            );
        }
        let object = |layer| protocol::ObjectId {
            index: u32::try_from(index).unwrap(),
            ..operation::object(layer)
        };
        let stamps = (1..=LAYERS)
            .map(|layer| self.store.stamp(object(layer)).unwrap())
            .collect();
        let rows_object = |layer| protocol::ObjectId {
            index: rows_index(u32::try_from(index).unwrap()),
            ..operation::object(layer)
        };
        let rows = (1..=LAYERS)
            .map(|layer| self.store.stamp(rows_object(layer)).unwrap())
            .collect();
        View {
            chains,
            stamps,
            rows,
            doubts: scenario::doubts_of(&self.store, u32::try_from(index).unwrap()),
            ..View::default()
        }
    }

    /// Ends the process, maybe with the power, and opens the disk again. Each index shows a state
    /// from the last answered one on; that is where it goes on from.
    fn restart(&mut self, power: bool) {
        let seed = self.random.next();
        if power {
            self.disk.cut_power(seed);
        } else {
            self.disk.end_process();
        }
        self.under_way.clear();
        self.reads.clear();
        let problems = store::check::check_medium(&self.disk.medium()).unwrap().problems;
        assert_eq!(problems, Vec::<String>::new());
        self.store = Store::open_on(Box::new(self.disk.shuffled_medium(seed)), &options()).unwrap();
        for index in 0..self.places.len() {
            let seen = self.look(index);
            let place = &mut self.places[index];
            let found = (place.answered..place.views.len())
                .rev()
                .find(|number| place.views[*number].allows(&seen));
            let Some(found) = found else {
                panic!(
                    "index {index} shows nothing from {} to {}: {}",
                    place.answered,
                    place.views.len() - 1,
                    place.views[place.answered..]
                        .iter()
                        .map(|view| view.difference(&seen))
                        .collect::<Vec<_>>()
                        .join("; ")
                );
            };
            self.become_state(index, found, seen);
        }
    }

    /// Requests that were lost never were.
    fn become_state(&mut self, index: usize, number: usize, seen: View) {
        let place = &mut self.places[index];
        if number + 1 < place.views.len() {
            let model = self.rebuild(index);
            self.places[index].model = model;
        }
        let place = &mut self.places[index];
        let certain = seen.doubts.keys().map(|layer| (*layer, Doubt::Certain));
        place.model.doubts = certain.collect();
        place.views = vec![seen];
        place.answered = 0;
    }

    /// The model of a state whose requests are not known any more: two pulls a layer.
    fn rebuild(&mut self, index: usize) -> Model {
        let mut model = Model::default();
        let front = u32::try_from(index).unwrap();
        for (layer, index) in (1..=LAYERS).flat_map(|layer| [(layer, front), (layer, rows_index(front))]) {
            let object = protocol::ObjectId {
                index,
                ..operation::object(layer)
            };
            let request = StorageRequest::Pull {
                object,
                above: protocol::Stamp::ZERO,
            };
            let reply = scenario::ask(&mut self.store, &request).unwrap().unwrap();
            let StorageReply::Delta(delta) = reply else {
                panic!("{reply:?}")
            };
            if !delta.chunks.is_empty() {
                model.apply(&StorageRequest::Level {
                    follows: delta.stamp,
                    delta,
                });
            }
        }
        model
    }
}

/// Lives the life of a seed. Law: whatever is under way together, in whatever order it completes,
/// wherever it is cut: every object shows a state that it had, not older than the last one that was
/// acknowledged; the disk's books balance; and nothing waits for ever. Panics where the law is broken.
pub fn live(seed: u64) {
    let mut life = Life::new(seed);
    for step in 1..=STEPS {
        life.step();
        if life.under_way.len() + life.reads.len() >= TOGETHER || life.random.below(8) == 0 {
            life.poll();
        }
        if life.random.below(150) == 0 {
            let power = life.random.below(2) == 0;
            life.restart(power);
        } else if step % 100 == 0 {
            life.settle();
            for index in 0..life.places.len() {
                let seen = life.look(index);
                let last = life.places[index].views.last().unwrap();
                assert!(last.allows(&seen), "index {index}: {seen:?}, not {last:?}");
            }
        }
    }
    life.settle();
    life.restart(false);
    life.store.close().unwrap();
    life.disk.end_process();
}
