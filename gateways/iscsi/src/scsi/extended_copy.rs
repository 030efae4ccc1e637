//! The parameter list of EXTENDED COPY with short list identifiers: which blocks of which unit are copied where (SPC-4
//! clauses 6.4.3 to 6.4.6 and 6.5).
//!
//! | byte of the list | |
//! | --- | --- |
//! | 0 | the list's name |
//! | 1 | order hint (bit 5), usage of the name (bits 4 and 3), priority |
//! | 2, 3 | bytes of descriptors of units |
//! | 8 to 11 | bytes of descriptors of segments |
//! | 12 to 15 | bytes of data that the list holds itself |
//! | 16 on | descriptors of units, of 32 bytes, then of segments, of 28 |
//!
//! Refuses to know units: whether there is one of a name, and how long it is, is judged by whoever copies.

use crate::scsi::fields::{u16_at, u32_at, u64_at};
use crate::scsi::sense::Sense;

/// Units that one list names. A clone needs two; some initiators name one for each extent.
pub const TARGETS_MAX: u16 = 8;
/// Segments of one list. QEMU sends one.
pub const SEGMENTS_MAX: u16 = 8;
/// Bytes of one segment. QEMU asks for 2 MiB; hypervisors' documents speak of 4 MiB, and of 16 at most. Whoever wants more
/// sends further commands, so that none runs for long.
pub const SEGMENT_BYTES_MAX: u32 = 16 << 20;
/// Bytes of all descriptors of one list: 32 for each unit, and 28 for each segment.
pub const DESCRIPTORS_MAX: u32 = TARGETS_MAX as u32 * 32 + SEGMENTS_MAX as u32 * 28;
/// Bytes of a list that are taken from an initiator: what is longer than any list that can be good is not even looked at.
pub const PARAMETERS_MAX: usize = 4096;

/// A unit named by a designator (SPC-4 clause 6.4.5.6).
pub const IDENTIFICATION: u8 = 0xe4;
/// Blocks of a disk to a disk (SPC-4 clause 6.4.6.4).
pub const BLOCKS_TO_BLOCKS: u8 = 0x02;

const HEADER_BYTES: usize = 16;
const TARGET_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 28;
/// What a descriptor of a segment says of its length: what follows the field.
const SEGMENT_LENGTH: u16 = 0x18;
/// The unit that the command came to (SPC-4 table 148).
const RECEIVER: u16 = 0xffff;

/// What is to be copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyRequest {
    /// What the initiator calls it when it asks for its status; nothing if it will not ask.
    pub list: Option<u8>,
    /// In order.
    pub segments: Vec<Segment>,
}

/// Blocks that are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its position among all.
    pub number: u16,
    /// Where its descriptor is in the list.
    pub at: u16,
    /// From where.
    pub source: Place,
    /// Where to.
    pub destination: Place,
    /// How many blocks.
    pub count: u16,
    /// Whether they are the destination's blocks; else the source's.
    pub by_destination: bool,
}

/// A block of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The unit; nothing for the one that the command came to.
    pub target: Option<Target>,
    /// The block.
    pub block: u64,
    /// Where the list says which block it is.
    pub at: u16,
}

/// A unit as a list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where its descriptor is in the list.
    pub at: u16,
    /// Its NAA name; nothing if it is named in another way, which no unit here can be.
    pub naa: Option<u64>,
    /// Bytes of its blocks; 0 if that is not told.
    pub block_size: u32,
    /// The kind of device: 0 is a disk.
    kind: u8,
}

/// Reads a list of `named` bytes, as the CDB says. No list is a good list, with which nothing is copied.
pub fn parse(parameters: &[u8], named: usize) -> Result<CopyRequest, Sense> {
    if named == 0 {
        return Ok(CopyRequest::default());
    }
    let list = parameters.get(..named).ok_or(Sense::PARAMETER_LENGTH)?;
    let header = list.get(..HEADER_BYTES).ok_or(Sense::PARAMETER_LENGTH)?;
    let name = name(header)?;
    let (targets, segments) = (u32::from(u16_at(header, 2)), u32_at(header, 8));
    let descriptors = targets.saturating_add(segments);
    if descriptors > DESCRIPTORS_MAX {
        return Err(Sense::PARAMETER_LENGTH);
    }
    if u32_at(header, 12) != 0 {
        return Err(Sense::INLINE_DATA_LENGTH.about(12));
    }
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let descriptors = list[HEADER_BYTES..]
        .get(..descriptors)
        .ok_or(Sense::PARAMETER_LENGTH)?;
    // It fits: it is part of what was just found to be there.
    let (targets, segments) = descriptors.split_at(usize::try_from(targets).unwrap_or(usize::MAX));
    let targets = parse_targets(targets)?;
    Ok(CopyRequest {
        list: name,
        segments: parse_segments(segments, &targets)?,
    })
}

/// The list's name, by its usage (SPC-4 table 129).
fn name(header: &[u8]) -> Result<Option<u8>, Sense> {
    match (header[1] >> 3 & 3, header[0]) {
        (0 | 2, name) => Ok(Some(name)),
        (3, 0) => Ok(None),
        (3, _) => Err(Sense::parameter(0)),
        _ => Err(Sense::parameter(1)),
    }
}

fn parse_targets(list: &[u8]) -> Result<Vec<Target>, Sense> {
    let descriptors = list
        .chunks(TARGET_BYTES)
        .zip((HEADER_BYTES..).step_by(TARGET_BYTES));
    let mut targets = Vec::new();
    for (descriptor, at) in descriptors {
        if targets.len() == usize::from(TARGETS_MAX) {
            return Err(Sense::TOO_MANY_TARGETS);
        }
        let at = offset(at);
        if descriptor[0] != IDENTIFICATION {
            return Err(Sense::UNSUPPORTED_TARGET.about(at));
        }
        if descriptor.len() < TARGET_BYTES {
            return Err(Sense::parameter(2));
        }
        // A binary name of the NAA kind and of eight bytes, of a logical unit.
        let is_naa = descriptor[4] & 0x0f == 1 && descriptor[5] & 0x3f == 3 && descriptor[7] == 8;
        targets.push(Target {
            at,
            naa: is_naa.then(|| u64_at(descriptor, 8)),
            block_size: u32_at(descriptor, 28) & 0x00ff_ffff,
            kind: descriptor[1] & 0x1f,
        });
    }
    Ok(targets)
}

fn parse_segments(list: &[u8], targets: &[Target]) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    let first = HEADER_BYTES + targets.len() * TARGET_BYTES;
    // Each is as long as the only kind that is taken.
    let descriptors = list.chunks(SEGMENT_BYTES).zip((first..).step_by(SEGMENT_BYTES));
    for ((descriptor, at), number) in descriptors.zip(0..) {
        if number == SEGMENTS_MAX {
            return Err(Sense::TOO_MANY_SEGMENTS);
        }
        let at = offset(at);
        if descriptor[0] != BLOCKS_TO_BLOCKS {
            return Err(Sense::UNSUPPORTED_SEGMENT.about(at));
        }
        if descriptor.len() < SEGMENT_BYTES || u16_at(descriptor, 2) != SEGMENT_LENGTH {
            return Err(Sense::parameter(at + 2));
        }
        let place = |target: usize, block: usize| {
            let id_at = at + offset(target);
            let found = find(u16_at(descriptor, target), targets, id_at);
            found.map(|target| Place {
                target,
                block: u64_at(descriptor, block),
                at: at + offset(block),
            })
        };
        segments.push(Segment {
            number,
            at,
            source: place(4, 12).map_err(|sense| sense.of_segment(number))?,
            destination: place(6, 20).map_err(|sense| sense.of_segment(number))?,
            count: u16_at(descriptor, 10),
            by_destination: descriptor[1] & 0x02 != 0,
        });
    }
    Ok(segments)
}

/// The unit that a segment names by its place among all (SPC-4 table 148).
fn find(id: u16, targets: &[Target], at: u16) -> Result<Option<Target>, Sense> {
    if id == RECEIVER {
        return Ok(None);
    }
    let target = targets.get(usize::from(id));
    let target = target.ok_or(Sense::UNREACHABLE_COPY_TARGET.about(at))?;
    if target.kind != 0 {
        return Err(Sense::WRONG_COPY_TARGET.about(target.at));
    }
    Ok(Some(*target))
}

/// An offset in the list, which is far shorter than its number can tell.
fn offset(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
