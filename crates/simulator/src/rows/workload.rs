//! What the user of a small world does: reads and writes of whole rows and of pieces, in the same few places, so that they
//! meet; and whether the answers are right.

use bytes::{Bytes, BytesMut};
use protocol::BLOCK_SIZE;
use protocol::rows::{Row, Rows};
use replication::owner::{Event, Failure, IoId, Operation, Outcome};

use super::{OBJECT_BLOCKS, RowWorld, Submitted, What};

/// Operations that are unanswered at once.
const DEPTH: usize = 4;
/// The rows of the first object that are used.
const ROWS_USED: u64 = 2;

impl RowWorld {
    /// Where something is done: near the beginning of the first object, or around the border of the two.
    fn draw_range(&mut self) -> (usize, usize) {
        let shape = Rows::new(self.profile);
        let row = u64::from(self.profile.data()) * 16;
        let last = shape
            .blocks(Row(shape.count() - 1))
            .map_or(row, |blocks| u64::from(blocks.count()));
        let (begin, end) = if self.chance.percent(60) {
            (0, ROWS_USED * row)
        } else {
            (OBJECT_BLOCKS - last, OBJECT_BLOCKS + row)
        };
        let borders: Vec<u64> = if begin == 0 {
            (0..=ROWS_USED).map(|number| number * row).collect()
        } else {
            vec![begin, OBJECT_BLOCKS, end]
        };
        let (mut from, mut to) = if self.chance.percent(50) {
            // Whole rows, and perhaps a little more or less.
            let first = self.chance.between(0, borders.len() as u64 - 2);
            let at = usize::try_from(first).unwrap_or(0);
            let to = self.chance.pick(&borders[at + 1..]).unwrap_or(end);
            (borders[at], to)
        } else {
            let from = self.chance.between(begin, end - 1);
            (from, from + self.chance.between(1, 20))
        };
        if self.chance.percent(30) {
            from += self.chance.between(0, 3);
            to += self.chance.between(0, 3);
        }
        let (from, to) = (from.min(end - 1), to.min(end));
        let count = to.saturating_sub(from).max(1);
        (
            usize::try_from(from).unwrap_or(0),
            usize::try_from(count).unwrap_or(1),
        )
    }

    /// Somebody submits something.
    pub(super) fn work(&mut self) -> Result<(), String> {
        if self.submitted.len() >= DEPTH {
            return Ok(());
        }
        let (first, count) = self.draw_range();
        let (offset, length) = (
            first as u64 * u64::from(BLOCK_SIZE),
            count as u64 * u64::from(BLOCK_SIZE),
        );
        let (what, operation) = match self.chance.between(0, 9) {
            0..=4 => {
                let number = self.note_write(first, count, false);
                let bytes = content(number, first, count);
                let checksums = protocol::checksum::of_blocks(&bytes);
                (
                    What::Write(number),
                    Operation::Write {
                        offset,
                        bytes,
                        checksums,
                    },
                )
            }
            5 => (
                What::Write(self.note_write(first, count, true)),
                Operation::Zero { offset, length },
            ),
            _ => (
                What::Read(self.image.floors(first, count)),
                Operation::Read { offset, length },
            ),
        };
        self.next_operation += 1;
        let id = IoId(self.next_operation);
        self.trace(|| {
            format!(
                "submit {} {first}+{count} {:?}",
                id.0,
                match &what {
                    What::Read(_) => 0,
                    What::Write(n) => *n,
                }
            )
        });
        self.submitted.insert(id, Submitted { first, count, what });
        self.feed(Event::Submit { id, operation })
    }

    fn note_write(&mut self, first: usize, count: usize, zero: bool) -> u64 {
        self.next_write += 1;
        self.image
            .write(first, count, self.next_write, self.generation, zero);
        self.next_write
    }

    /// An operation is answered: is the answer right?
    pub(super) fn completed(&mut self, id: IoId, result: Result<Outcome, Failure>) -> Result<(), String> {
        let Some(Submitted { first, count, what }) = self.submitted.remove(&id) else {
            return Err(format!("operation {} is answered twice", id.0));
        };
        self.met.operations += 1;
        self.trace(|| format!("done {}", id.0));
        match (what, result) {
            (What::Write(number), Ok(Outcome::Done)) => self.image.acknowledge(first, count, number),
            (What::Read(floors), Ok(Outcome::Data(pieces))) => {
                let values = values(&pieces.concat(), first, count)?;
                self.image.read(first, &values, &floors, self.generation)
            }
            (_, result) => Err(format!("an operation ended with {result:?}")),
        }
    }
}

/// The bytes of blocks: which write they are of, and where they belong.
fn content(number: u64, first: usize, count: usize) -> Bytes {
    let size = BLOCK_SIZE as usize;
    let mut bytes = BytesMut::zeroed(count * size);
    for (block, bytes) in (first as u64..).zip(bytes.chunks_exact_mut(size)) {
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..16].copy_from_slice(&block.to_le_bytes());
        // A sum of blocks must not look like a block, and parity is a sum of blocks.
        let noise = (number << 20 ^ block).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes[size - 8..].copy_from_slice(&(noise ^ noise >> 29).wrapping_mul(number | 1).to_le_bytes());
    }
    bytes.freeze()
}

/// The numbers of the writes that blocks are of, 0 for zeros.
fn values(bytes: &[u8], first: usize, count: usize) -> Result<Vec<u64>, String> {
    let size = BLOCK_SIZE as usize;
    if bytes.len() != count * size {
        return Err("a read is too short".to_owned());
    }
    let value = |(block, bytes): (usize, &[u8])| {
        let number = bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        let wanted = content(number, block, 1);
        let sound = if number == 0 {
            bytes.iter().all(|byte| *byte == 0)
        } else {
            bytes == wanted
        };
        sound
            .then_some(number)
            .ok_or_else(|| format!("block {block} has bytes that nobody wrote"))
    };
    (first..).zip(bytes.chunks_exact(size)).map(value).collect()
}
