//! Changes of a part of a block by compare-and-writes of whole blocks: nobody else's bytes in the same block are lost,
//! whoever changes them meanwhile.
//!
//! The blocks are read, the part is put in, and the whole is written if the blocks still hold what was read. If they do
//! not, somebody else has got on meanwhile, and it begins anew.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::{cover, slices, within_block};
use crate::device::{BlockDevice, Continuation, DeviceError, Operation, Outcome};
use crate::request::{first_difference, joined};

/// How often a change of a part of a block is begun before it fails. Each time but the last somebody else's change of the
/// same block came through, so only a block that very many fight for comes to this.
pub(super) const ROUNDS_MAX: u32 = 256;

/// A part of some blocks, and what is to be done with it.
struct Part {
    device: Rc<dyn BlockDevice>,
    offset: u64,
    /// What must be there; nothing if it is written whatever is there.
    expected: Option<Bytes>,
    data: Bytes,
}

/// Writes a part of one block.
pub(super) fn write(device: &Rc<dyn BlockDevice>, offset: u64, data: Bytes, done: Continuation) {
    let part = Part {
        device: Rc::clone(device),
        offset,
        expected: None,
        data,
    };
    // The block holds exactly what was to be written, and has what others put into the rest of it: whoever wrote that,
    // one more write of it would change nothing.
    let settled: Continuation = Box::new(move |answer| {
        done(match answer {
            Err(DeviceError::NotKnown) => Ok(Outcome::Done),
            other => other,
        });
    });
    part.begin(1, settled);
}

/// Writes a part of some blocks if it holds what is expected.
pub(super) fn compare(
    device: &Rc<dyn BlockDevice>,
    offset: u64,
    expected: Bytes,
    data: Bytes,
    done: Continuation,
) {
    let part = Part {
        device: Rc::clone(device),
        offset,
        expected: Some(expected),
        data,
    };
    part.begin(1, done);
}

impl Part {
    fn begin(self, round: u32, done: Continuation) {
        let (from, until) = cover(self.offset, self.data.len() as u64);
        let read = Operation::Read {
            offset: from,
            length: until - from,
        };
        let device = Rc::clone(&self.device);
        let merge: Continuation = Box::new(move |answer| match answer {
            Ok(Outcome::Data(pieces)) => self.put(round, from, joined(pieces), done),
            other => done(other),
        });
        device.submit(read, merge);
    }

    /// Puts the part into the blocks that begin at `from` and were found to hold `found`.
    fn put(self, round: u32, from: u64, found: Bytes, done: Continuation) {
        let skip = self.offset - from;
        let length = self.data.len() as u64;
        if let Some(expected) = &self.expected {
            let here = joined(slices(std::slice::from_ref(&found), skip, length));
            if let Some(at) = first_difference(&here, expected) {
                let offset = self.offset + at;
                return done(Ok(Outcome::Differs { offset }));
            }
        }
        let place = within_block(skip);
        let mut merged = BytesMut::from(&found[..]);
        let Some(part) = merged.get_mut(place..place + self.data.len()) else {
            // The device gave less than it was asked for, which none does.
            return done(Err(DeviceError::NotComparable));
        };
        part.copy_from_slice(&self.data);
        let device = Rc::clone(&self.device);
        let change = Operation::CompareAndWrite {
            offset: from,
            expected: found,
            data: merged.freeze(),
        };
        let next: Continuation = Box::new(move |answer| match answer {
            Ok(Outcome::Differs { .. }) if round >= ROUNDS_MAX => {
                done(Err(DeviceError::Contended { rounds: round }));
            }
            Ok(Outcome::Differs { .. }) => self.begin(round + 1, done),
            other => done(other),
        });
        device.submit(change, next);
    }
}
