//! Which data of one write may come next: immediate, unsolicited, and asked for (RFC 7143 sections 4.2.5, 11.7, 11.8).
//!
//! Data comes in order, because that was agreed on: what is out of order is wrong. Refuses to know the bytes, and where they
//! are kept.

use crate::login::parameters::Parameters;
use crate::wire::header::NO_TAG;

/// Data that nobody may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongData {
    /// Its number or its place is not the next one, or it is not of the sequence that was asked for.
    #[error("data came out of order")]
    OutOfOrder,
    /// More than was agreed on.
    #[error("data came that nobody asked for")]
    Unexpected,
    /// A sequence ended early.
    #[error("less data came than was asked for")]
    TooLittle,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More of the same sequence is to come.
    Await,
    /// Ask for a sequence.
    Solicit {
        /// The number of the R2T.
        number: u32,
        /// From where, in bytes.
        offset: u32,
        /// How much, in bytes.
        length: u32,
    },
    /// Everything is there.
    Complete,
}

/// The sequence that is under way.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    target_tag: u32,
    end: u32,
    number: u32,
}

/// Data as a PDU names it: the tag of the sequence, which is the number of its R2T; the PDU's number in the sequence; and where
/// it begins, in bytes.
pub type Part = (u32, u32, u32);

/// See the module.
#[derive(Debug)]
pub struct Assembly {
    wanted: u32,
    received: u32,
    burst_max: u32,
    requests: u32,
    sequence: Option<Sequence>,
}

impl Assembly {
    /// Data of a command that came with `immediate` bytes of it. `wanted` bytes are of use in all, and `expected` were
    /// announced. `last` says that no unsolicited data follows.
    pub fn new(
        parameters: &Parameters,
        wanted: u32,
        expected: u32,
        immediate: usize,
        last: bool,
    ) -> Result<Self, WrongData> {
        let length = u32::try_from(immediate).map_err(|_| WrongData::Unexpected)?;
        let unsolicited = parameters.first_burst.min(expected);
        if length > unsolicited
            || (length > 0 && !parameters.immediate_data)
            || (!last && parameters.initial_r2t)
        {
            return Err(WrongData::Unexpected);
        }
        let mut assembly = Self {
            wanted,
            received: length,
            burst_max: parameters.burst_max,
            requests: 0,
            sequence: None,
        };
        if !last {
            assembly.sequence = Some(Sequence {
                target_tag: NO_TAG,
                end: unsolicited,
                number: 0,
            });
        }
        Ok(assembly)
    }

    /// What to do before any further data comes.
    pub fn advance(&mut self) -> Next {
        if self.sequence.is_some() {
            return Next::Await;
        }
        if self.received >= self.wanted {
            return Next::Complete;
        }
        let length = (self.wanted - self.received).min(self.burst_max);
        let number = self.requests;
        self.requests += 1;
        self.sequence = Some(Sequence {
            target_tag: number,
            end: self.received + length,
            number: 0,
        });
        Next::Solicit {
            number,
            offset: self.received,
            length,
        }
    }

    /// Where data ends, if it may come next.
    fn end(&self, (target_tag, number, offset): Part, length: usize) -> Result<u32, WrongData> {
        let sequence = self.sequence.ok_or(WrongData::Unexpected)?;
        if target_tag != sequence.target_tag || number != sequence.number || offset != self.received {
            return Err(WrongData::OutOfOrder);
        }
        let end = u32::try_from(length)
            .ok()
            .and_then(|length| offset.checked_add(length));
        end.filter(|end| *end <= sequence.end)
            .ok_or(WrongData::Unexpected)
    }

    /// Whether data of this length may come next, all of it of use.
    pub fn awaits(&self, part: Part, length: usize) -> bool {
        self.end(part, length).is_ok_and(|end| end <= self.wanted)
    }

    /// Takes note of data that came.
    pub fn take(&mut self, part: Part, last: bool, length: usize) -> Result<Next, WrongData> {
        let end = self.end(part, length)?;
        let sequence = self.sequence.as_mut().ok_or(WrongData::Unexpected)?;
        sequence.number += 1;
        if last {
            // Unsolicited data may end before its limit.
            if end != sequence.end && sequence.target_tag != NO_TAG {
                return Err(WrongData::TooLittle);
            }
            self.sequence = None;
        } else if end == sequence.end {
            // Nothing more of this sequence may come, so this should have been its last.
            return Err(WrongData::Unexpected);
        }
        self.received = end;
        Ok(self.advance())
    }
}

#[cfg(test)]
mod tests {
    //! Every mix of immediate, unsolicited and solicited data, and data out of order.
    use super::*;
    use crate::login::parameters::Parameters;
    use proptest::prelude::*;

    fn parameters(initial_r2t: bool, immediate_data: bool) -> Parameters {
        Parameters {
            initial_r2t,
            immediate_data,
            first_burst: 1024,
            burst_max: 2048,
            ..Parameters::new(false)
        }
    }

    #[test]
    fn a_write_without_immediate_data_is_asked_for_in_bursts() {
        let mut assembly = Assembly::new(&parameters(true, true), 3000, 3000, 0, true).unwrap();
        assert_eq!(
            assembly.advance(),
            Next::Solicit {
                number: 0,
                offset: 0,
                length: 2048
            }
        );
        assert_eq!(assembly.take((0, 0, 0), false, 1024), Ok(Next::Await));
        let next = assembly.take((0, 1, 1024), true, 1024);
        assert_eq!(
            next,
            Ok(Next::Solicit {
                number: 1,
                offset: 2048,
                length: 952
            })
        );
        assert_eq!(assembly.take((1, 0, 2048), true, 952), Ok(Next::Complete));
    }

    #[test]
    fn wrong_numbers_places_and_tags_are_out_of_order() {
        for (tag, number, offset) in [(1, 0, 0), (0, 27, 0), (0, u32::MAX, 0), (0, 0, 512)] {
            let mut assembly = Assembly::new(&parameters(true, true), 1024, 1024, 0, true).unwrap();
            assembly.advance();
            assert_eq!(
                assembly.take((tag, number, offset), true, 512),
                Err(WrongData::OutOfOrder)
            );
        }
    }

    #[test]
    fn more_or_less_than_asked_for_is_wrong() {
        let new = || {
            let mut assembly = Assembly::new(&parameters(true, true), 1024, 1024, 0, true).unwrap();
            assembly.advance();
            assembly
        };
        assert_eq!(new().take((0, 0, 0), true, 1025), Err(WrongData::Unexpected));
        assert_eq!(new().take((0, 0, 0), true, 512), Err(WrongData::TooLittle));
        assert_eq!(new().take((0, 0, 0), false, 1024), Err(WrongData::Unexpected));
        let not_agreed = Assembly::new(&parameters(true, false), 1024, 1024, 512, true);
        assert_eq!(not_agreed.unwrap_err(), WrongData::Unexpected);
        let too_long = Assembly::new(&parameters(true, true), 4096, 4096, 2000, true);
        assert_eq!(too_long.unwrap_err(), WrongData::Unexpected);
    }

    #[test]
    fn what_is_of_no_use_is_taken_and_dropped() {
        let mut assembly = Assembly::new(&parameters(false, true), 512, 1024, 512, false).unwrap();
        assert_eq!(assembly.advance(), Next::Await);
        let rest = (NO_TAG, 0, 512);
        assert!(!assembly.awaits(rest, 512), "it is of no use");
        assert_eq!(assembly.take(rest, true, 512), Ok(Next::Complete));
    }

    proptest! {
        #[test]
        fn any_mix_gives_the_data(
            initial_r2t in any::<bool>(), immediate in 0u32..1500, unsolicited in 0u32..1500, total in 1u32..9000,
            cut in 1u32..700,
        ) {
            let parameters = parameters(initial_r2t, true);
            let data: Vec<u8> = (0..total).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut room = Vec::new();
            let burst = parameters.first_burst.min(total);
            let mut at = immediate.min(burst);
            let until = (at + unsolicited).min(burst);
            let last = initial_r2t || until == at;
            let mut assembly = Assembly::new(&parameters, total, total, at as usize, last).unwrap();
            room.extend_from_slice(&data[..at as usize]);
            let mut next = assembly.advance();
            let (mut tag, mut end, mut number) = (NO_TAG, until, 0);
            while next != Next::Complete {
                if let Next::Solicit { number: request, offset, length } = next {
                    prop_assert_eq!(offset, at);
                    (tag, end, number) = (request, offset + length, 0);
                }
                let to = (at + cut).min(end);
                let length = (to - at) as usize;
                prop_assert!(assembly.awaits((tag, number, at), length));
                prop_assert_eq!(at as usize, room.len());
                room.extend_from_slice(&data[at as usize..to as usize]);
                next = assembly.take((tag, number, at), to == end, length).unwrap();
                (at, number) = (to, number + 1);
            }
            prop_assert_eq!(room, data);
        }
    }
}
