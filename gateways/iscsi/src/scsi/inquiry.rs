//! INQUIRY: what a unit says of itself (SPC-4 clauses 6.6 and 7.8, SBC-3 clause 6.6).

use crate::scsi::fields::{ascii, length16, length32};
use crate::scsi::identification::{Identity, PRODUCT, VENDOR};
use crate::scsi::sense::Sense;

/// The most blocks of one transfer, in bytes.
pub const TRANSFER_MAX: u64 = 32 << 20;
/// The most that one UNMAP covers, in bytes: a million blocks of 512, more than which no initiator takes for sane.
pub const RANGE_MAX: u64 = 512 << 20;
/// The most that one WRITE SAME covers, in bytes: it may have to write them.
pub const SAME_MAX: u64 = 64 << 20;
/// Descriptors of one UNMAP.
pub const UNMAP_DESCRIPTORS_MAX: u32 = 256;
/// Blocks of one COMPARE AND WRITE at most: what a volume does as one step, and what the field can tell.
pub fn compare_max(block_size: u32) -> u8 {
    u8::try_from(client::device::COMPARE_MAX / block_size.max(1)).unwrap_or(u8::MAX)
}

/// Bytes of the blocks that the cluster keeps.
const GRAIN: u32 = 4096;
/// What a transfer is best not longer than, in bytes.
const TRANSFER_BEST: u32 = 1 << 20;

/// Pages of vital product data.
const PAGES: [u8; 7] = [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2];

/// What a unit that is there says.
pub fn standard() -> Vec<u8> {
    let mut bytes = vec![0; 96];
    // SPC-4; HISUP and the format 2.
    bytes[2..4].copy_from_slice(&[0x06, 0x12]);
    bytes[4] = 91;
    // Implicit asymmetric access, third-party copies, and command queuing.
    bytes[5] = 0x18;
    bytes[7] = 0x02;
    bytes[8..16].copy_from_slice(&ascii(VENDOR, 8));
    bytes[16..32].copy_from_slice(&ascii(PRODUCT, 16));
    bytes[32..36].copy_from_slice(&ascii(env!("CARGO_PKG_VERSION"), 4));
    // SAM-5, iSCSI, SPC-4, SBC-3.
    bytes[58..66].copy_from_slice(&[0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0]);
    bytes
}

/// What is said where no unit is: the qualifier says that none can be.
pub fn absent() -> Vec<u8> {
    let mut bytes = standard();
    bytes[0] = 0x7f;
    bytes
}

/// A page of vital product data of a unit with this block size in bytes.
pub fn page(page: u8, identity: &Identity, block_size: u32) -> Result<Vec<u8>, Sense> {
    let body = match page {
        0x00 => PAGES.to_vec(),
        0x80 => identity.serial.as_bytes().to_vec(),
        0x83 => identity.designators(),
        0x86 => {
            let mut body = vec![0; 60];
            // Head of queue, ordered and simple tasks.
            body[1] = 0x07;
            body
        }
        0xb0 => block_limits(block_size),
        0xb1 => {
            let mut body = vec![0; 60];
            // Not a rotating medium.
            body[1] = 1;
            body
        }
        // UNMAP and both WRITE SAME unmap; unmapped blocks read as zeros; thin.
        0xb2 => vec![0, 0xe4, 0x02, 0],
        _ => return Err(Sense::cdb(2)),
    };
    Ok([&[0, page][..], &length16(body.len()), &body].concat())
}

fn block_limits(block_size: u32) -> Vec<u8> {
    let blocks = |bytes: u64| bytes / u64::from(block_size);
    let blocks32 = |bytes: u64| length32(usize::try_from(blocks(bytes)).unwrap_or(usize::MAX));
    let grain = GRAIN / block_size;
    let mut body = vec![0; 60];
    // WSNZ: a WRITE SAME names how many blocks.
    body[0] = 1;
    body[1] = compare_max(block_size);
    body[2..4].copy_from_slice(&length16(grain as usize));
    body[4..8].copy_from_slice(&blocks32(TRANSFER_MAX));
    body[8..12].copy_from_slice(&blocks32(TRANSFER_BEST.into()));
    body[12..16].copy_from_slice(&blocks32(TRANSFER_MAX));
    body[16..20].copy_from_slice(&blocks32(RANGE_MAX));
    body[20..24].copy_from_slice(&UNMAP_DESCRIPTORS_MAX.to_be_bytes());
    body[24..28].copy_from_slice(&grain.to_be_bytes());
    // UGAVALID, and an alignment of zero.
    body[28] = 0x80;
    body[32..40].copy_from_slice(&blocks(SAME_MAX).to_be_bytes());
    body
}

#[cfg(test)]
mod tests {
    //! Golden pages.
    use super::*;

    fn identity() -> Identity {
        Identity::new("stgd0000000000000001", "iqn.2026-01.example:t", 1)
    }

    #[test]
    fn each_page_says_its_length_and_names_are_lasting() {
        for number in PAGES {
            let page = page(number, &identity(), 512).unwrap();
            assert_eq!(page[1], number);
            assert_eq!(
                usize::from(u16::from_be_bytes([page[2], page[3]])),
                page.len() - 4
            );
        }
        assert_eq!(page(0x99, &identity(), 512), Err(Sense::cdb(2)));
        let designators = page(0x83, &identity(), 512).unwrap();
        assert_eq!(designators[4..9], [0x01, 0x03, 0, 8, designators[8]]);
        assert_eq!(designators[8] >> 4, 3);
    }

    #[test]
    fn limits_are_in_blocks() {
        assert_eq!((compare_max(512), compare_max(4096)), (255, 64));
        let limits = page(0xb0, &identity(), 512).unwrap();
        assert_eq!(limits[6..12], [0, 8, 0, 1, 0, 0]);
        let limits = page(0xb0, &identity(), 4096).unwrap();
        assert_eq!(limits[6..12], [0, 1, 0, 0, 0x20, 0]);
    }

    #[test]
    fn no_unit_says_so() {
        assert_eq!((absent()[0], standard()[0], standard().len()), (0x7f, 0, 96));
        assert_eq!(standard()[5], 0x18);
    }
}
