//! Laws: no byte of a neighbour is lost, whatever overlaps in flight and whoever else is there; a flush covers what came
//! before it; nothing waits for ever.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::memory::MemoryDevice;

const SECTORS: u64 = 48;

/// One operation of the front end and what became of it. Times count submissions and answers.
#[derive(Clone, Debug)]
struct Record {
    sectors: std::ops::Range<u64>,
    /// What a change leaves in each of its sectors; nothing for a read.
    value: Option<u32>,
    submitted: u32,
    answered: u32,
    /// What a read found, by sector.
    found: Vec<u32>,
}

#[derive(Clone, Debug)]
enum Step {
    Submit {
        layer: usize,
        kind: u8,
        start: u64,
        count: u64,
    },
    Release {
        position: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit =
        (0..2usize, 0u8..5, 0..SECTORS, 1u64..20).prop_map(|(layer, kind, start, count)| Step::Submit {
            layer,
            kind,
            start,
            count: count.min(SECTORS - start),
        });
    let release = (0usize..8).prop_map(|position| Step::Release { position });
    prop::collection::vec(prop_oneof![submit, release], 1..120)
}

/// One layer that has the device to itself.
fn alone(device: &Rc<MemoryDevice>) -> Vec<Sectors> {
    vec![Sectors::new(Rc::clone(device) as Rc<dyn BlockDevice>)]
}

/// Two layers on one device, as two front ends that share a volume have them.
fn sharing(device: &Rc<MemoryDevice>) -> Vec<Sectors> {
    let layer = || Sectors::of_shared(Rc::clone(device) as Rc<dyn BlockDevice>);
    vec![layer(), layer()]
}

/// Runs steps on layers over a held device, answers what is left over, and gives the history.
fn run(steps: &[Step], layers: fn(&Rc<MemoryDevice>) -> Vec<Sectors>) -> Vec<Record> {
    let device = Rc::new(MemoryDevice::held(SECTORS * 512));
    let layers = layers(&device);
    let history: Rc<RefCell<Vec<Record>>> = Rc::default();
    let clock = Rc::new(Cell::new(0u32));
    let tick = |clock: &Cell<u32>| {
        clock.set(clock.get() + 1);
        clock.get()
    };
    let submit = |layer: usize, kind: u8, start: u64, count: u64| {
        let id = history.borrow().len();
        let value = u32::try_from(id).unwrap() + 1;
        let (offset, length) = (start * 512, count * 512);
        let word = value.to_le_bytes();
        let data = vec![Bytes::from(word.repeat(128)); usize::try_from(count).unwrap()];
        let (operation, value) = match kind {
            0 => (Operation::Read { offset, length }, None),
            1 => (Operation::WriteZeroes { offset, length }, Some(0)),
            2 => (Operation::Discard { offset, length }, Some(0)),
            _ => (Operation::Write { offset, data }, Some(value)),
        };
        let submitted = tick(&clock);
        let record = Record {
            sectors: start..start + count,
            value,
            submitted,
            answered: 0,
            found: Vec::new(),
        };
        history.borrow_mut().push(record);
        let (history, clock) = (Rc::clone(&history), Rc::clone(&clock));
        let done: Continuation = Box::new(move |answer| {
            let mut history = history.borrow_mut();
            assert_eq!(history[id].answered, 0, "answered twice");
            history[id].answered = tick(&clock);
            if let Outcome::Data(pieces) = answer.unwrap() {
                let whole = joined(pieces);
                assert_eq!(whole.len() as u64, length);
                let words = |sector: &[u8]| {
                    let words: Vec<&[u8]> = sector.chunks_exact(4).collect();
                    assert!(words.iter().all(|word| *word == words[0]), "a torn sector");
                    u32::from_le_bytes(words[0].try_into().unwrap())
                };
                history[id].found = whole.chunks_exact(512).map(words).collect();
            }
        });
        layers[layer % layers.len()].submit(operation, done);
    };
    for step in steps {
        match *step {
            Step::Submit {
                layer,
                kind,
                start,
                count,
            } => submit(layer, kind, start, count),
            Step::Release { position } => {
                device.release(position.min(device.waiting().saturating_sub(1)));
            }
        }
    }
    while device.waiting() > 0 {
        assert!(device.release(0));
    }
    submit(0, 0, 0, SECTORS);
    assert!(device.release(0));
    history.take()
}

/// Whether a read may find what `write` left: the write began before the read ended, and no other
/// change of the sector lies wholly between the two.
fn may_find(history: &[Record], read: &Record, sector: u64, value: u32) -> bool {
    let changes = || {
        history
            .iter()
            .filter(|r| r.value.is_some() && r.sectors.contains(&sector))
    };
    let overwritten =
        |answered: u32| changes().any(|w| w.submitted > answered && w.answered < read.submitted);
    let initial = value == 0 && !overwritten(0);
    let fits = |w: &Record| w.value == Some(value) && w.submitted < read.answered && !overwritten(w.answered);
    initial || changes().any(fits)
}

fn judge(history: &[Record]) -> Result<(), TestCaseError> {
    for record in history {
        prop_assert!(record.answered > 0, "never answered: {record:?}");
        for (sector, value) in record.sectors.clone().zip(&record.found) {
            prop_assert!(
                may_find(history, record, sector, *value),
                "sector {sector} has {value} in {record:?}\n{history:#?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_byte_of_a_neighbour_is_lost_whatever_overlaps_in_flight(steps in steps()) {
        judge(&run(&steps, alone))?;
    }

    #[test]
    fn no_byte_is_lost_when_others_change_the_same_blocks(steps in steps()) {
        judge(&run(&steps, sharing))?;
    }

    #[test]
    fn no_increment_by_compare_and_write_is_lost(order in prop::collection::vec(0usize..8, 0..200)) {
        for layers in [alone, sharing] {
            let device = Rc::new(MemoryDevice::held(2 * 4096));
            let layers = layers(&device);
            // Three clients for each of two neighbours in one block, and one whose sectors lie in two blocks.
            let clients: Vec<Rc<Counter>> = [512, 1024, 512, 1024, 512, 1024, 3584, 3584]
                .iter()
                .enumerate()
                .map(|(number, offset)| Counter::start(&layers[number % layers.len()], *offset))
                .collect();
            let mut order = order.iter();
            while device.waiting() > 0 {
                let position = order.next().copied().unwrap_or(0);
                device.release(position.min(device.waiting() - 1));
            }
            for client in &clients {
                prop_assert_eq!(client.left.get(), 0);
            }
            for (offset, count) in [(512, 3), (1024, 3), (3584, 2)] {
                prop_assert_eq!(Counter::value(&layers[0], &device, offset), count * Counter::TIMES);
            }
        }
    }
}

/// A client that counts two sectors up by compare-and-writes, again and again.
struct Counter {
    device: Sectors,
    offset: u64,
    left: Cell<u32>,
}

impl Counter {
    const TIMES: u32 = 4;

    fn start(device: &Sectors, offset: u64) -> Rc<Self> {
        let device = Sectors {
            shared: Rc::clone(&device.shared),
            unit: device.unit,
        };
        let counter = Rc::new(Self {
            device,
            offset,
            left: Cell::new(Self::TIMES),
        });
        Rc::clone(&counter).attempt(Bytes::from(vec![0; Self::length(offset)]));
        counter
    }

    /// One sector in the middle of a block, two where they lie in two blocks.
    fn length(offset: u64) -> usize {
        if offset == 3584 { 1024 } else { 512 }
    }

    fn attempt(self: Rc<Self>, expected: Bytes) {
        if self.left.get() == 0 {
            return;
        }
        let before = u32::from_le_bytes(expected[..4].try_into().unwrap());
        let data = Bytes::from((before + 1).to_le_bytes().repeat(expected.len() / 4));
        let compare = Operation::CompareAndWrite {
            offset: self.offset,
            expected,
            data: data.clone(),
        };
        let counter = Rc::clone(&self);
        let next: Continuation = Box::new(move |answer| match answer.unwrap() {
            Outcome::Done => {
                counter.left.set(counter.left.get() - 1);
                counter.attempt(data);
            }
            Outcome::Differs { offset } => {
                assert_eq!(offset, counter.offset, "all bytes of a sector change together");
                counter.look();
            }
            other => panic!("not an answer to a compare-and-write: {other:?}"),
        });
        self.device.submit(compare, next);
    }

    fn look(self: Rc<Self>) {
        let read = Operation::Read {
            offset: self.offset,
            length: Self::length(self.offset) as u64,
        };
        let counter = Rc::clone(&self);
        let next: Continuation = Box::new(move |answer| {
            let Outcome::Data(pieces) = answer.unwrap() else {
                panic!("a read gives data")
            };
            counter.attempt(joined(pieces));
        });
        self.device.submit(read, next);
    }

    fn value(layer: &Sectors, device: &MemoryDevice, offset: u64) -> u32 {
        let found = Rc::new(Cell::new(0));
        let place = Rc::clone(&found);
        layer.submit(
            Operation::Read { offset, length: 512 },
            Box::new(move |answer| {
                if let Ok(Outcome::Data(pieces)) = answer {
                    place.set(u32::from_le_bytes(joined(pieces)[..4].try_into().unwrap()));
                }
            }),
        );
        while device.waiting() > 0 {
            device.release(0);
        }
        found.get()
    }
}

/// A device on which others change each block between a read and a write of it.
struct Restless {
    changes: Cell<u32>,
}

impl BlockDevice for Restless {
    fn info(&self) -> DeviceInfo {
        MemoryDevice::new(8192).info()
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        self.changes.set(self.changes.get() + 1);
        done(Ok(match operation {
            Operation::Read { length, .. } => {
                let bytes = self.changes.get().to_le_bytes().repeat(within_block(length) / 4);
                Outcome::Data(vec![Bytes::from(bytes)])
            }
            Operation::CompareAndWrite { offset, .. } => Outcome::Differs { offset },
            other => panic!("a part of a block is changed by nothing else: {other:?}"),
        }));
    }

    fn listen(&self, _: Listener) {}
}

/// Law: who never gets on is told so, and does not try for ever.
#[test]
fn a_block_that_others_change_all_the_time_is_given_up() {
    let device = Rc::new(Restless {
        changes: Cell::new(0),
    });
    let sectors = Sectors::of_shared(Rc::clone(&device) as Rc<dyn BlockDevice>);
    let answer = Rc::new(RefCell::new(None));
    let place = Rc::clone(&answer);
    let write = Operation::Write {
        offset: 512,
        data: vec![Bytes::from(vec![1; 512])],
    };
    sectors.submit(write, Box::new(move |result| *place.borrow_mut() = Some(result)));
    let rounds = merge::ROUNDS_MAX;
    assert_eq!(answer.take(), Some(Err(DeviceError::Contended { rounds })));
    assert_eq!(device.changes.get(), 2 * rounds);
}

/// Law: whoever wrote it, a block that holds what was to be written was written.
#[test]
fn it_need_not_be_known_who_wrote_a_part_of_a_block_but_who_compared_it_is_told() {
    struct Doubtful(MemoryDevice);
    impl BlockDevice for Doubtful {
        fn info(&self) -> DeviceInfo {
            self.0.info()
        }
        fn submit(&self, operation: Operation, done: Continuation) {
            match operation {
                Operation::CompareAndWrite { .. } => done(Err(DeviceError::NotKnown)),
                other => self.0.submit(other, done),
            }
        }
        fn listen(&self, _: Listener) {}
    }
    let sectors = Sectors::of_shared(Rc::new(Doubtful(MemoryDevice::new(8192))));
    let run = |operation| {
        let answer = Rc::new(RefCell::new(None));
        let place = Rc::clone(&answer);
        sectors.submit(
            operation,
            Box::new(move |result| *place.borrow_mut() = Some(result)),
        );
        answer.take().unwrap()
    };
    let sector = Bytes::from(vec![0; 512]);
    let data = vec![sector.clone()];
    assert_eq!(run(Operation::Write { offset: 512, data }), Ok(Outcome::Done));
    let compare = Operation::CompareAndWrite {
        offset: 512,
        expected: sector.clone(),
        data: sector,
    };
    assert_eq!(run(compare), Err(DeviceError::NotKnown));
}

/// Law: what cannot be compared at once is refused before anything is done, wherever it begins in a block.
#[test]
fn a_compare_and_write_has_a_longest_length_and_lies_in_one_object() {
    let object = u64::from(protocol::OBJECT_SIZE);
    let sectors = Sectors::new(Rc::new(MemoryDevice::new(2 * object)));
    let limit = crate::device::COMPARE_MAX as usize;
    for (offset, length, other, fits) in [
        (0, limit, limit, true),
        (512, 255 * 512, 255 * 512, true),
        (512, limit, limit, false),
        (0, limit + 512, limit + 512, false),
        (object - 512, 512, 512, true),
        (object - 512, 1024, 1024, false),
        (0, 1024, 512, false),
    ] {
        let expected = Bytes::from(vec![0; other]);
        let data = Bytes::from(vec![0; length]);
        let operation = Operation::CompareAndWrite {
            offset,
            expected,
            data,
        };
        let answer = Rc::new(RefCell::new(None));
        let place = Rc::clone(&answer);
        sectors.submit(
            operation,
            Box::new(move |result| *place.borrow_mut() = Some(result)),
        );
        let wanted = if fits {
            Ok(Outcome::Done)
        } else {
            Err(DeviceError::NotComparable)
        };
        assert_eq!(answer.take(), Some(wanted), "{length} bytes from {offset}");
    }
}

/// Law: a flush is answered after each write that was submitted before it, held ones included.
#[test]
fn a_flush_waits_for_writes_that_wait_themselves() {
    let device = Rc::new(MemoryDevice::held(8192));
    let sectors = Sectors::new(Rc::clone(&device) as Rc<dyn BlockDevice>);
    let order: Rc<RefCell<Vec<&str>>> = Rc::default();
    let note = |name: &'static str| -> Continuation {
        let order = Rc::clone(&order);
        Box::new(move |_| order.borrow_mut().push(name))
    };
    let sector = || vec![Bytes::from(vec![1; 512])];
    sectors.submit(
        Operation::Write {
            offset: 0,
            data: sector(),
        },
        note("first"),
    );
    sectors.submit(
        Operation::Write {
            offset: 512,
            data: sector(),
        },
        note("second"),
    );
    sectors.submit(Operation::Flush, note("flush"));
    while device.waiting() > 0 {
        device.release(device.waiting() - 1);
    }
    assert_eq!(*order.borrow(), ["first", "second", "flush"]);
}

/// Law: writes of whole blocks cost nothing here: they reach the device at once and side by side.
#[test]
fn whole_blocks_pass_at_once() {
    let device = Rc::new(MemoryDevice::held(8192));
    let sectors = Sectors::new(Rc::clone(&device) as Rc<dyn BlockDevice>);
    for _ in 0..3 {
        let data = vec![Bytes::from(vec![1; 4096])];
        sectors.submit(Operation::Write { offset: 0, data }, Box::new(|_| ()));
    }
    assert_eq!(device.waiting(), 3);
}

/// Defect guarded: a map of half a block must not tell of the other half.
#[test]
fn a_map_covers_exactly_what_was_asked() {
    let device = Rc::new(MemoryDevice::new(3 * 4096));
    let sectors = Sectors::new(Rc::clone(&device) as Rc<dyn BlockDevice>);
    let map = Rc::new(RefCell::new(None));
    sectors.submit(
        Operation::Write {
            offset: 512,
            data: vec![Bytes::from(vec![1; 512])],
        },
        Box::new(|_| ()),
    );
    let place = Rc::clone(&map);
    let keep: Continuation = Box::new(move |answer| *place.borrow_mut() = Some(answer));
    sectors.submit(
        Operation::Map {
            offset: 1024,
            length: 4096,
        },
        keep,
    );
    assert_eq!(
        map.take().unwrap(),
        Ok(Outcome::Map(vec![(3072, MapKind::Data), (1024, MapKind::Hole)]))
    );
}
