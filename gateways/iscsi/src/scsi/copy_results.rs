//! The answers to RECEIVE COPY OPERATING PARAMETERS and RECEIVE COPY STATUS: what EXTENDED COPY takes, and how far one is
//! (SPC-4 clauses 6.22 and 6.25).
//!
//! Refuses to know who copies.

use crate::scsi::extended_copy::{
    BLOCKS_TO_BLOCKS, DESCRIPTORS_MAX, IDENTIFICATION, SEGMENT_BYTES_MAX, SEGMENTS_MAX, TARGETS_MAX,
};

/// Copies at once, as told: each holds 2 MiB of the 64 MiB that a connection may have under way. One more is told that
/// the task set is full.
const CONCURRENT: u8 = 32;
/// The binary logarithm of the shortest data that can be copied, in bytes: a block of 512.
const GRANULARITY: u8 = 9;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What became of it.
    pub state: State,
    /// Segments that were begun.
    pub segments: u16,
    /// Bytes that were written.
    pub bytes: u32,
}

/// What became of a copy (SPC-4 table 254).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    UnderWay,
    /// All was copied.
    Done,
    /// Not all was copied.
    Failed,
}

/// What EXTENDED COPY takes.
///
/// | byte | |
/// | --- | --- |
/// | 0 to 3 | bytes that follow |
/// | 4 | 1: a list needs no name |
/// | 8, 9 and 10, 11 | units and segments of one list |
/// | 12 to 15 and 16 to 19 | bytes of all descriptors, and of what one segment copies |
/// | 20 to 31 | data in lists, data kept for the initiator, transfers of tapes: none |
/// | 34, 35 and 36 | copies at once, all and with these lists |
/// | 37 to 39 | granularity of segments; of the data that there is none of |
/// | 43 on | kinds of descriptors: how many, and which |
pub fn operating_parameters() -> Vec<u8> {
    let mut bytes = vec![0; 46];
    bytes[3] = 42;
    bytes[4] = 1;
    bytes[8..10].copy_from_slice(&TARGETS_MAX.to_be_bytes());
    bytes[10..12].copy_from_slice(&SEGMENTS_MAX.to_be_bytes());
    bytes[12..16].copy_from_slice(&DESCRIPTORS_MAX.to_be_bytes());
    bytes[16..20].copy_from_slice(&SEGMENT_BYTES_MAX.to_be_bytes());
    bytes[35] = CONCURRENT;
    bytes[36] = CONCURRENT;
    bytes[37] = GRANULARITY;
    bytes[43..46].copy_from_slice(&[2, BLOCKS_TO_BLOCKS, IDENTIFICATION]);
    bytes
}

/// How far a copy is: 8, the state, segments in two bytes, the unit of the last number (0: bytes), and the bytes in four.
pub fn status(progress: Progress) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 8];
    bytes.push(match progress.state {
        State::UnderWay => 0,
        State::Done => 1,
        State::Failed => 2,
    });
    bytes.extend_from_slice(&progress.segments.to_be_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&progress.bytes.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    //! Golden answers.
    use super::*;

    #[test]
    fn limits_are_told() {
        let golden = [
            0, 0, 0, 42, 1, 0, 0, 0, 0, 8, 0, 8, 0, 0, 1, 0xe0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 32, 32, 9, 0, 0, 0, 0, 0, 2, 0x02, 0xe4,
        ];
        assert_eq!(operating_parameters(), golden);
    }

    #[test]
    fn a_status_is_told() {
        let progress = Progress {
            state: State::Failed,
            segments: 3,
            bytes: 0x0010_0200,
        };
        assert_eq!(status(progress), [0, 0, 0, 8, 2, 0, 3, 0, 0, 0x10, 2, 0]);
    }
}
