//! What is said of a compare-and-write that a former owner may have done and that does not find what it expects. Pure.
//!
//! Nobody else was let at its range until its answer was confirmed, so its doing is still there, block by block, unless
//! writes that were sent again too went over it, whose turn may as well have been the second.

use bytes::Bytes;
use protocol::BLOCK_SIZE;

use crate::device::{DeviceError, Operation, Outcome};
use crate::request::first_difference;

/// A compare-and-write that is done again.
#[derive(Clone)]
pub(super) struct Redo {
    pub(super) offset: u64,
    pub(super) expected: Bytes,
    pub(super) data: Bytes,
}

/// What is to be done with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was not done; now it can be.
    Do,
    /// It has an answer.
    Answer(Result<Outcome, DeviceError>),
}

impl Redo {
    /// Of an operation that is one.
    pub(super) fn of(operation: &Operation) -> Option<Self> {
        match operation {
            Operation::CompareAndWrite {
                offset,
                expected,
                data,
            } => Some(Self {
                offset: *offset,
                expected: expected.clone(),
                data: data.clone(),
            }),
            _ => None,
        }
    }

    /// As an operation.
    pub(super) fn operation(&self) -> Operation {
        Operation::CompareAndWrite {
            offset: self.offset,
            expected: self.expected.clone(),
            data: self.data.clone(),
        }
    }

    /// What is to be done with it if its range holds this.
    pub(super) fn judge(&self, found: &[u8]) -> Verdict {
        match first_difference(found, &self.expected) {
            None => Verdict::Do,
            Some(_) if self.may_be_done(self.offset, found) => Verdict::Answer(Err(DeviceError::NotKnown)),
            Some(at) => Verdict::Answer(Ok(Outcome::Differs {
                offset: self.offset + at,
            })),
        }
    }

    /// Whether it may have been done, as far as blocks tell that were found from byte `start` of the volume on.
    ///
    /// A block that holds what was to be written, and not what was expected, may be its own doing. It may have been so
    /// before as well: that cannot be told apart.
    pub(super) fn may_be_done(&self, start: u64, found: &[u8]) -> bool {
        let block = BLOCK_SIZE as usize;
        let wanted = self.expected.chunks(block).zip(self.data.chunks(block));
        let places = (self.offset..).step_by(block);
        places.zip(wanted).any(|(at, (expected, data))| {
            let place = at.checked_sub(start).and_then(|skip| usize::try_from(skip).ok());
            let found = place.and_then(|place| found.get(place..)?.get(..data.len()));
            found.is_some_and(|found| found == data && found != expected)
        })
    }
}

#[cfg(test)]
mod tests {
    //! What may be its own doing is never called another's.
    use super::*;

    fn blocks(values: &[u8]) -> Bytes {
        let blocks: Vec<Vec<u8>> = values.iter().map(|value| vec![*value; 4096]).collect();
        blocks.concat().into()
    }

    #[test]
    fn a_block_with_what_was_to_be_written_may_be_its_own_doing_and_any_other_is_not() {
        let differs = |offset| Verdict::Answer(Ok(Outcome::Differs { offset }));
        let not_known = || Verdict::Answer(Err(DeviceError::NotKnown));
        for (expected, data, found, said) in [
            (&[1, 1], &[2, 2], &[1, 1], Verdict::Do),
            (&[1, 1], &[1, 1], &[1, 1], Verdict::Do),
            (&[1, 1], &[2, 2], &[2, 2], not_known()),
            // Half of it was overwritten by a write that was sent again, or never came to the disks.
            (&[1, 1], &[2, 2], &[3, 2], not_known()),
            (&[1, 1], &[2, 2], &[1, 2], not_known()),
            (&[1, 1], &[2, 2], &[3, 3], differs(8192)),
            (&[1, 1], &[2, 2], &[1, 3], differs(12288)),
            // The first block was not to be changed: that it is as it was says nothing.
            (&[1, 1], &[1, 2], &[1, 3], differs(12288)),
            (&[1, 1], &[1, 2], &[1, 2], not_known()),
        ] {
            let redo = Redo {
                offset: 8192,
                expected: blocks(expected),
                data: blocks(data),
            };
            assert_eq!(redo.judge(&blocks(found)), said);
        }
    }

    #[test]
    fn of_another_one_only_the_blocks_that_were_found_say_anything() {
        let redo = Redo {
            offset: 8192,
            expected: blocks(&[1, 1]),
            data: blocks(&[2, 2]),
        };
        assert!(redo.may_be_done(4096, &blocks(&[9, 2])));
        assert!(redo.may_be_done(12288, &blocks(&[2, 9])));
        assert!(!redo.may_be_done(0, &blocks(&[2, 2])));
        assert!(!redo.may_be_done(16384, &blocks(&[2])));
    }
}
