//! Laws: no byte of a neighbour is lost, whatever overlaps in flight; a flush covers what came
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
    Submit { kind: u8, start: u64, count: u64 },
    Release { position: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (0u8..5, 0..SECTORS, 1u64..20).prop_map(|(kind, start, count)| Step::Submit {
        kind,
        start,
        count: count.min(SECTORS - start),
    });
    let release = (0usize..8).prop_map(|position| Step::Release { position });
    prop::collection::vec(prop_oneof![submit, release], 1..120)
}

/// Runs steps on sectors over a held device, answers what is left over, and gives the history.
fn run(steps: &[Step]) -> Vec<Record> {
    let device = Rc::new(MemoryDevice::held(SECTORS * 512));
    let sectors = Sectors::new(Rc::clone(&device) as Rc<dyn BlockDevice>);
    let history: Rc<RefCell<Vec<Record>>> = Rc::default();
    let clock = Rc::new(Cell::new(0u32));
    let tick = |clock: &Cell<u32>| {
        clock.set(clock.get() + 1);
        clock.get()
    };
    let submit = |kind: u8, start: u64, count: u64| {
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
        sectors.submit(operation, done);
    };
    for step in steps {
        match *step {
            Step::Submit { kind, start, count } => submit(kind, start, count),
            Step::Release { position } => {
                device.release(position.min(device.waiting().saturating_sub(1)));
            }
        }
    }
    while device.waiting() > 0 {
        assert!(device.release(0));
    }
    submit(0, 0, SECTORS);
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

proptest! {
    #[test]
    fn no_byte_of_a_neighbour_is_lost_whatever_overlaps_in_flight(steps in steps()) {
        let history = run(&steps);
        for record in &history {
            prop_assert!(record.answered > 0, "never answered: {record:?}");
            for (sector, value) in record.sectors.clone().zip(&record.found) {
                prop_assert!(
                    may_find(&history, record, sector, *value),
                    "sector {sector} has {value} in {record:?}\n{history:#?}"
                );
            }
        }
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
