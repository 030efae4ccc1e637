//! 512-byte sectors over a device of 4 KiB blocks, for front ends whose clients need them.
//!
//! What is aligned to blocks passes through. Of a write that is not, the edge blocks are read,
//! merged and written as whole blocks (`docs/decisions/0002-whole-blocks.md`); changes of the same
//! blocks wait meanwhile, or their bytes would be lost. Reads never wait: before the answer to a
//! write either of the two is right. Where others change the device below as well, an edge block is written only if it
//! still holds what was read (`docs/decisions/0063-compare-and-write.md`). Knows nothing else of what the device below is.

mod changes;
mod merge;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use protocol::BLOCK_SIZE;
use protocol::storage::MapKind;

use crate::device::{
    BlockDevice, Continuation, DeviceError, DeviceInfo, Listener, Operation, Outcome, WriteBuffer,
};
use crate::request::{check, joined};
use changes::{Changes, Held};

/// The unit of addresses that this layer offers, in bytes.
pub const SECTOR_SIZE: u32 = 512;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// See the module.
pub struct Sectors {
    shared: Rc<Shared>,
    unit: u32,
}

struct Shared {
    device: Rc<dyn BlockDevice>,
    /// Whether others change the device too, without coming by here.
    others: bool,
    changes: RefCell<Changes>,
}

impl Sectors {
    /// Sectors on top of `device`. What changes the device must all come by here.
    pub fn new(device: Rc<dyn BlockDevice>) -> Self {
        Self::with_unit(device, SECTOR_SIZE, false)
    }

    /// Sectors on top of a device that others change at the same time, block by block or by layers like this.
    pub fn of_shared(device: Rc<dyn BlockDevice>) -> Self {
        Self::with_unit(device, SECTOR_SIZE, true)
    }

    /// As [`Sectors::new`], for clients that address single bytes, as some of NBD do.
    pub fn bytes(device: Rc<dyn BlockDevice>) -> Self {
        Self::with_unit(device, 1, false)
    }

    /// As [`Sectors::of_shared`], for clients that address single bytes.
    pub fn bytes_of_shared(device: Rc<dyn BlockDevice>) -> Self {
        Self::with_unit(device, 1, true)
    }

    fn with_unit(device: Rc<dyn BlockDevice>, unit: u32, others: bool) -> Self {
        Self {
            unit,
            shared: Rc::new(Shared {
                device,
                others,
                changes: RefCell::new(Changes::default()),
            }),
        }
    }
}

impl BlockDevice for Sectors {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            alignment: self.unit,
            ..self.shared.device.info()
        }
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        if let Err(error) = check(&operation, &self.info()) {
            return done(Err(error));
        }
        let device = &self.shared.device;
        match operation {
            Operation::Read { offset, length } if !is_whole(offset, length) => {
                let (from, until) = cover(offset, length);
                let read = Operation::Read {
                    offset: from,
                    length: until - from,
                };
                device.submit(
                    read,
                    Box::new(move |answer| done(answer.map(|o| cut_data(o, offset - from, length)))),
                );
            }
            Operation::Map { offset, length } if !is_whole(offset, length) => {
                let (from, until) = cover(offset, length);
                let map = Operation::Map {
                    offset: from,
                    length: until - from,
                };
                device.submit(
                    map,
                    Box::new(move |answer| done(answer.map(|o| cut_map(o, offset - from, length)))),
                );
            }
            Operation::Read { .. } | Operation::Map { .. } => device.submit(operation, done),
            Operation::Flush
            | Operation::Write { .. }
            | Operation::CompareAndWrite { .. }
            | Operation::WriteZeroes { .. }
            | Operation::Discard { .. } => {
                self.shared.changes.borrow_mut().hold(operation, done);
                Shared::start_what_may(&self.shared);
            }
        }
    }

    fn listen(&self, listener: Listener) {
        self.shared.device.listen(listener);
    }

    fn hurry(&self) {
        self.shared.device.hurry();
    }

    fn buffer(&self, length: usize) -> WriteBuffer {
        self.shared.device.buffer(length)
    }
}

impl Shared {
    fn start_what_may(this: &Rc<Self>) {
        loop {
            // Not borrowed while the operation starts: the device may answer at once.
            let held = this.changes.borrow_mut().next_to_start();
            let Some(held) = held else { return };
            Self::start(this, held);
        }
    }

    fn start(this: &Rc<Self>, held: Held) {
        let Held {
            ticket,
            operation,
            done,
        } = held;
        let shared = Rc::clone(this);
        let finish: Continuation = Box::new(move |answer| {
            shared.changes.borrow_mut().finished(ticket);
            done(answer);
            Self::start_what_may(&shared);
        });
        match operation {
            Operation::Write { offset, data } => {
                let length = data.iter().map(|piece| piece.len() as u64).sum();
                if is_whole(offset, length) {
                    this.device.submit(Operation::Write { offset, data }, finish);
                } else if this.others {
                    let part = |at, length| Operation::Write {
                        offset: at,
                        data: slices(&data, at - offset, length),
                    };
                    this.in_parts(offset, length, &part, finish);
                } else {
                    rewrite(&this.device, offset, length, data, finish);
                }
            }
            Operation::CompareAndWrite {
                offset,
                expected,
                data,
            } if !is_whole(offset, data.len() as u64) => {
                merge::compare(&this.device, offset, expected, data, finish);
            }
            Operation::WriteZeroes { offset, length } => {
                let middle = |offset, length| Operation::WriteZeroes { offset, length };
                this.zero(offset, length, &middle, finish);
            }
            Operation::Discard { offset, length } => {
                let middle = |offset, length| Operation::Discard { offset, length };
                this.zero(offset, length, &middle, finish);
            }
            other => this.device.submit(other, finish),
        }
    }

    /// Zeros whole blocks by `middle`, and the parts of blocks at the edges by writing zeros.
    fn zero(&self, offset: u64, length: u64, middle: &dyn Fn(u64, u64) -> Operation, done: Continuation) {
        let change = |at, part| {
            if is_whole(at, part) {
                return middle(at, part);
            }
            Operation::Write {
                offset: at,
                data: vec![zeros(part)],
            }
        };
        self.in_parts(offset, length, &change, done);
    }

    /// Changes a range that may begin or end within a block in at most three parts: a part of a block at each end, and
    /// the whole blocks between. `change` gives what is to be done with each; of a part of a block it is a write.
    fn in_parts(&self, offset: u64, length: u64, change: &dyn Fn(u64, u64) -> Operation, done: Continuation) {
        let parts = parts(offset, length);
        let joint = split(done, parts.len());
        for ((at, length), done) in parts.into_iter().zip(joint) {
            match change(at, length) {
                Operation::Write { offset, data } if !is_whole(at, length) => {
                    if self.others {
                        merge::write(&self.device, offset, joined(data), done);
                    } else {
                        rewrite(&self.device, offset, length, data, done);
                    }
                }
                whole => self.device.submit(whole, done),
            }
        }
    }
}

/// A range as the part of a block that it begins with, whole blocks, and the part of one that it ends with: first byte
/// and length of each that there is.
fn parts(offset: u64, length: u64) -> Vec<(u64, u64)> {
    let end = offset + length;
    let (first, last) = (offset.next_multiple_of(BLOCK), end / BLOCK * BLOCK);
    if first > last {
        // All within one block.
        return vec![(offset, length)];
    }
    let parts = [(offset, first), (first, last), (last, end)].into_iter();
    parts
        .filter(|(from, to)| from < to)
        .map(|(from, to)| (from, to - from))
        .collect()
}

/// Writes `data`, which begins or ends within a block, as whole blocks.
fn rewrite(device: &Rc<dyn BlockDevice>, offset: u64, length: u64, data: Vec<Bytes>, done: Continuation) {
    let end = offset + length;
    let (from, until) = cover(offset, length);
    let edges: Vec<u64> = match (offset > from, end < until, until - from == BLOCK) {
        (true, true, false) => vec![from, until - BLOCK],
        (false, true, _) => vec![until - BLOCK],
        _ => vec![from],
    };
    let blocks: Rc<RefCell<Vec<Option<Bytes>>>> = Rc::new(RefCell::new(vec![None; edges.len()]));
    let (below, read) = (Rc::clone(device), Rc::clone(&blocks));
    let merge: Continuation = Box::new(move |answer| {
        if let Err(error) = answer {
            return done(Err(error));
        }
        let mut blocks: Vec<Bytes> = read.borrow_mut().iter_mut().filter_map(Option::take).collect();
        let mut pieces = Vec::with_capacity(data.len() + 2);
        // Both are less than a block.
        let (head, tail) = (within_block(offset - from), within_block(until - end));
        if let Some(first) = blocks.first().filter(|_| head > 0) {
            pieces.push(first.slice(..head));
        }
        pieces.extend(data);
        if let Some(last) = blocks.pop().filter(|_| tail > 0) {
            pieces.push(last.slice(BLOCK_SIZE as usize - tail..));
        }
        below.submit(
            Operation::Write {
                offset: from,
                data: pieces,
            },
            done,
        );
    });
    for ((place, at), part) in edges.iter().enumerate().zip(split(merge, edges.len())) {
        let blocks = Rc::clone(&blocks);
        let keep: Continuation = Box::new(move |answer| {
            part(answer.map(|outcome| {
                if let Outcome::Data(pieces) = outcome {
                    blocks.borrow_mut()[place] = Some(joined(pieces));
                }
                Outcome::Done
            }));
        });
        device.submit(
            Operation::Read {
                offset: *at,
                length: BLOCK,
            },
            keep,
        );
    }
}

/// Makes one continuation into `count`, of which the last to run runs it, with the first error.
fn split(done: Continuation, count: usize) -> Vec<Continuation> {
    struct Joint {
        left: usize,
        result: Result<Outcome, DeviceError>,
        done: Option<Continuation>,
    }
    let joint = Rc::new(RefCell::new(Joint {
        left: count,
        result: Ok(Outcome::Done),
        done: Some(done),
    }));
    let part = || -> Continuation {
        let joint = Rc::clone(&joint);
        Box::new(move |answer| {
            let mut state = joint.borrow_mut();
            state.left -= 1;
            if let (Err(error), Ok(_)) = (answer, &state.result) {
                state.result = Err(error);
            }
            if state.left == 0
                && let Some(done) = state.done.take()
            {
                let result = std::mem::replace(&mut state.result, Ok(Outcome::Done));
                drop(state);
                done(result);
            }
        })
    };
    (0..count).map(|_| part()).collect()
}

fn is_whole(offset: u64, length: u64) -> bool {
    offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK)
}

/// First and end byte of the blocks that a range touches.
fn cover(offset: u64, length: u64) -> (u64, u64) {
    (offset / BLOCK * BLOCK, (offset + length).next_multiple_of(BLOCK))
}

fn within_block(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

fn zeros(length: u64) -> Bytes {
    static ZEROS: [u8; BLOCK_SIZE as usize] = [0; BLOCK_SIZE as usize];
    Bytes::from_static(&ZEROS[..within_block(length.min(BLOCK))])
}

/// `length` bytes from `skip` on of the data that covers them.
fn cut_data(outcome: Outcome, skip: u64, length: u64) -> Outcome {
    match outcome {
        Outcome::Data(pieces) => Outcome::Data(slices(&pieces, skip, length)),
        other => other,
    }
}

/// `length` bytes from `skip` on of pieces that have at least so many.
fn slices(pieces: &[Bytes], skip: u64, length: u64) -> Vec<Bytes> {
    let (mut skip, mut left) = (skip, length);
    let mut kept = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let size = piece.len() as u64;
        let from = skip.min(size);
        let until = size.min(from + left);
        if from < until {
            // Both are at most the piece's length.
            kept.push(piece.slice(usize::try_from(from).unwrap_or(0)..usize::try_from(until).unwrap_or(0)));
        }
        skip -= from;
        left -= until - from;
    }
    kept
}

/// The runs of `length` bytes from `skip` on of a map that covers them.
fn cut_map(outcome: Outcome, skip: u64, length: u64) -> Outcome {
    let Outcome::Map(runs) = outcome else {
        return outcome;
    };
    let (mut skip, mut left) = (skip, length);
    let mut kept: Vec<(u64, MapKind)> = Vec::with_capacity(runs.len());
    for (size, kind) in runs {
        let from = skip.min(size);
        let part = left.min(size - from);
        if part > 0 {
            kept.push((part, kind));
        }
        skip -= from;
        left -= part;
    }
    Outcome::Map(kept)
}

#[cfg(test)]
mod tests;
