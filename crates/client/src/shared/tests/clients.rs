//! What guests do through each of the front ends, and what they must find.

use std::cell::Cell;
use std::rc::Rc;

use super::{SECTOR, TIMES};
use crate::device::{BlockDevice, Continuation, DeviceError, Operation, Outcome};
use crate::sectors::Sectors;

/// What all clients see of one sector that they count up.
///
/// The first number is the count. Then there is, for each client, the number of its last attempt that was written: so it
/// can see whether an attempt came through of which that is not known.
pub(super) struct Counter {
    sectors: Rc<Sectors>,
    offset: u64,
    who: usize,
    attempts: Cell<u32>,
    /// The last of its attempts that it knows to have come through.
    came_through: Cell<u32>,
    successes: Cell<u32>,
}

pub(super) type Words = Vec<u32>;

pub(super) fn words_of(bytes: &[u8]) -> Words {
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| u32::from_le_bytes(*word)).collect()
}

fn bytes_of(words: &[u32]) -> bytes::Bytes {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Counter {
    pub(super) fn start(sectors: &Rc<Sectors>, offset: u64, who: usize) -> Rc<Self> {
        let counter = Rc::new(Self {
            sectors: Rc::clone(sectors),
            offset,
            who,
            attempts: Cell::new(0),
            came_through: Cell::new(0),
            successes: Cell::new(0),
        });
        Rc::clone(&counter).look(None);
        counter
    }

    /// How often it has counted.
    pub(super) fn successes(&self) -> u32 {
        self.successes.get()
    }

    /// Reads; of `doubtful` it is not known whether it came through.
    fn look(self: Rc<Self>, doubtful: Option<u32>) {
        if doubtful.is_none() && self.successes.get() == TIMES {
            return;
        }
        let read = Operation::Read {
            offset: self.offset,
            length: SECTOR,
        };
        let counter = Rc::clone(&self);
        let next: Continuation = Box::new(move |answer| {
            let Ok(Outcome::Data(pieces)) = answer else {
                panic!("a read gives data: {answer:?}")
            };
            let found = words_of(&pieces.concat());
            let mine = found[1 + counter.who];
            if doubtful == Some(mine) {
                counter.came_through.set(mine);
                counter.successes.set(counter.successes.get() + 1);
            }
            assert_eq!(
                mine,
                counter.came_through.get(),
                "what came through is lost, or came through and was said not to"
            );
            if counter.successes.get() < TIMES {
                counter.attempt(&found);
            }
        });
        self.sectors.submit(read, next);
    }

    fn attempt(self: Rc<Self>, found: &[u32]) {
        let number = self.attempts.get() + 1;
        self.attempts.set(number);
        let mut words = found.to_vec();
        words[0] += 1;
        words[1 + self.who] = number;
        let compare = Operation::CompareAndWrite {
            offset: self.offset,
            expected: bytes_of(found),
            data: bytes_of(&words),
        };
        let counter = Rc::clone(&self);
        let next: Continuation = Box::new(move |answer| match answer {
            Ok(Outcome::Done) => {
                counter.came_through.set(number);
                counter.successes.set(counter.successes.get() + 1);
                counter.look(None);
            }
            Ok(Outcome::Differs { .. }) => counter.look(None),
            Err(DeviceError::NotKnown) => counter.look(Some(number)),
            other => panic!("not an answer to a compare-and-write: {other:?}"),
        });
        self.sectors.submit(compare, next);
    }
}

/// Writes a sector of its own, again and again, and reads it between.
pub(super) struct Writer {
    sectors: Rc<Sectors>,
    offset: u64,
    written: Cell<u32>,
}

impl Writer {
    pub(super) fn start(sectors: &Rc<Sectors>, offset: u64) -> Rc<Self> {
        let writer = Rc::new(Self {
            sectors: Rc::clone(sectors),
            offset,
            written: Cell::new(0),
        });
        Rc::clone(&writer).write();
        writer
    }

    /// What it has written last.
    pub(super) fn written(&self) -> u32 {
        self.written.get()
    }

    fn write(self: Rc<Self>) {
        let number = self.written.get() + 1;
        let write = Operation::Write {
            offset: self.offset,
            data: vec![bytes_of(&[number; 128])],
        };
        let writer = Rc::clone(&self);
        let next: Continuation = Box::new(move |answer| {
            assert_eq!(answer, Ok(Outcome::Done));
            writer.written.set(number);
            writer.read();
        });
        self.sectors.submit(write, next);
    }

    fn read(self: Rc<Self>) {
        let read = Operation::Read {
            offset: self.offset,
            length: SECTOR,
        };
        let writer = Rc::clone(&self);
        let next: Continuation = Box::new(move |answer| {
            let Ok(Outcome::Data(pieces)) = answer else {
                panic!("a read gives data: {answer:?}")
            };
            let written = writer.written.get();
            assert_eq!(words_of(&pieces.concat()), [written; 128], "a sector is lost");
            if written < TIMES {
                writer.write();
            }
        });
        self.sectors.submit(read, next);
    }
}
