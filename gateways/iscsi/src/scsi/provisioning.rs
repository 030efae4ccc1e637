//! What a thin disk tells of its blocks, and how blocks are given back (SBC-3 clauses 5.6, 5.15, 5.16 and 5.28).

use protocol::storage::MapKind;

use crate::scsi::command::Area;
use crate::scsi::fields::{length32, u16_at, u32_at, u64_at};
use crate::scsi::inquiry::{RANGE_MAX, UNMAP_DESCRIPTORS_MAX};
use crate::scsi::mode::Medium;
use crate::scsi::sense::Sense;

/// The answer to READ CAPACITY (10): the last block, or the most that four bytes can tell.
pub fn capacity(medium: Medium) -> Vec<u8> {
    let last = u32::try_from(medium.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    [last.to_be_bytes(), medium.block_size.to_be_bytes()].concat()
}

/// The answer to READ CAPACITY (16).
pub fn capacity_long(medium: Medium) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[..8].copy_from_slice(&medium.blocks.saturating_sub(1).to_be_bytes());
    bytes[8..12].copy_from_slice(&medium.block_size.to_be_bytes());
    // Eight blocks of 512 bytes are one of the cluster's.
    bytes[13] = if medium.block_size == 512 { 3 } else { 0 };
    // Provisioning is managed; unmapped blocks read as zeros.
    bytes[14] = 0xc0;
    bytes
}

/// The blocks that an UNMAP names.
pub fn unmap(parameters: &[u8], medium: Medium) -> Result<Vec<Area>, Sense> {
    if parameters.is_empty() {
        return Ok(Vec::new());
    }
    if parameters.len() < 8 {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let named = usize::from(u16_at(parameters, 2));
    let descriptors = parameters[8..].chunks_exact(16).take(named / 16);
    let most = RANGE_MAX / u64::from(medium.block_size);
    let areas: Vec<Area> = descriptors
        .map(|descriptor| Area {
            block: u64_at(descriptor, 0),
            count: u32_at(descriptor, 8).into(),
        })
        .collect();
    let sum: u64 = areas.iter().map(|area| area.count).sum();
    if sum > most || areas.len() > UNMAP_DESCRIPTORS_MAX as usize {
        return Err(Sense::INVALID_PARAMETER);
    }
    let beyond = |area: &&Area| {
        area.block
            .checked_add(area.count)
            .is_none_or(|end| end > medium.blocks)
    };
    if let Some(area) = areas.iter().find(beyond) {
        return Err(Sense::OUT_OF_RANGE.at(area.block));
    }
    Ok(areas)
}

/// The answer to GET LBA STATUS: runs from `block` on, lengths in bytes.
pub fn status(block: u64, runs: &[(u64, MapKind)], block_size: u32) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    let mut at = block;
    for (length, kind) in runs {
        let blocks = length / u64::from(block_size);
        bytes.extend_from_slice(&at.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&[u8::from(*kind != MapKind::Data), 0, 0, 0]);
        at += blocks;
    }
    let length = length32(bytes.len() - 4);
    bytes[..4].copy_from_slice(&length);
    bytes
}

#[cfg(test)]
mod tests {
    //! Golden bytes, and ranges that no unit has.
    use super::*;
    use proptest::prelude::*;

    const MEDIUM: Medium = Medium {
        blocks: 2048,
        block_size: 512,
        read_only: false,
    };

    #[test]
    fn capacities() {
        assert_eq!(capacity(MEDIUM), [0, 0, 7, 0xff, 0, 0, 2, 0]);
        let huge = Medium {
            blocks: 1 << 40,
            ..MEDIUM
        };
        assert_eq!(capacity(huge)[..4], [0xff; 4]);
        assert_eq!(
            capacity_long(huge)[..16],
            [0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0]
        );
    }

    #[test]
    fn an_unmap_names_blocks_inside_the_unit() {
        let mut bytes = vec![0, 22, 0, 16, 0, 0, 0, 0];
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0, 0, 0]);
        assert_eq!(unmap(&bytes, MEDIUM), Ok(vec![Area { block: 8, count: 16 }]));
        bytes[8] = 0xff;
        assert!(unmap(&bytes, MEDIUM).is_err_and(|sense| sense.code == Sense::OUT_OF_RANGE.code));
        assert_eq!(unmap(&bytes[..4], MEDIUM), Err(Sense::PARAMETER_LENGTH));
    }

    #[test]
    fn runs_are_told_one_after_another() {
        let bytes = status(8, &[(512, MapKind::Data), (1024, MapKind::Hole)], 512);
        assert_eq!(bytes[..8], [0, 0, 0, 36, 0, 0, 0, 0]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[24..40], [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 1, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_parameters_name_blocks_beyond_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for area in unmap(&bytes, MEDIUM).unwrap_or_default() {
                prop_assert!(area.block + area.count <= MEDIUM.blocks);
            }
        }
    }
}
