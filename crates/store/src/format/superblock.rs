//! Who a disk is: written once, in two copies, when the disk is made.

use protocol::{DiskId, geometry};

use crate::format::cursor::{Append, Cursor, Malformed};
use crate::options::Format;

/// Length of one copy, in bytes.
pub(crate) const COPY: usize = 4096;
/// Length of the file: two copies.
pub(crate) const LENGTH: usize = 2 * COPY;
/// The version that this program writes.
pub(crate) const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"STGDDISK";
const CHECKSUM_AT: usize = COPY - 4;

/// Why a copy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is not what was written.
    Damaged(&'static str),
    /// It was written by another version of this program.
    Version(u16),
}

impl From<Malformed> for Unusable {
    fn from(malformed: Malformed) -> Self {
        Self::Damaged(malformed.0)
    }
}

/// Both copies.
pub(crate) fn encode(format: &Format) -> Vec<u8> {
    let mut copy = Vec::with_capacity(LENGTH);
    copy.extend_from_slice(&MAGIC);
    copy.put_u16(VERSION);
    copy.put_u16(0); // flags, none yet
    copy.put_u32(format.disk.0);
    copy.extend_from_slice(&format.cluster);
    copy.extend_from_slice(&format.serial);
    copy.put_u64(format.log_bytes);
    copy.put_u32(geometry::BLOCK_SIZE);
    copy.put_u32(geometry::CHUNK_SIZE);
    copy.put_u32(geometry::OBJECT_SIZE);
    copy.resize(CHECKSUM_AT, 0);
    let checksum = crc32c::crc32c(&copy);
    copy.put_u32(checksum);
    copy.extend_from_within(..);
    copy
}

/// Reads one copy.
pub(crate) fn decode(copy: &[u8]) -> Result<Format, Unusable> {
    let Some((body, tail)) = copy.split_at_checked(CHECKSUM_AT) else {
        return Err(Unusable::Damaged("it is too short"));
    };
    let mut cursor = Cursor::new(body);
    if cursor.bytes::<8>()? != MAGIC {
        return Err(Unusable::Damaged("it does not begin as a superblock does"));
    }
    if Cursor::new(tail).u32()? != crc32c::crc32c(body) {
        return Err(Unusable::Damaged("its checksum does not match"));
    }
    let version = cursor.u16()?;
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    if cursor.u16()? != 0 {
        return Err(Unusable::Damaged("it has flags that this version does not know"));
    }
    let disk = DiskId(cursor.u32()?);
    let cluster = cursor.bytes()?;
    let serial = cursor.bytes()?;
    let log_bytes = cursor.u64()?;
    let sizes = [cursor.u32()?, cursor.u32()?, cursor.u32()?];
    if sizes != [geometry::BLOCK_SIZE, geometry::CHUNK_SIZE, geometry::OBJECT_SIZE] {
        return Err(Unusable::Damaged("its block, chunk or object size is not ours"));
    }
    if !cursor.only_zeros() {
        return Err(Unusable::Damaged("it has fields that this version does not know"));
    }
    Ok(Format {
        cluster,
        disk,
        serial,
        log_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> Format {
        Format {
            cluster: [7; 16],
            disk: DiskId(3),
            serial: [9; 16],
            log_bytes: 1 << 20,
        }
    }

    /// Law: what was written is what is read, from either copy.
    #[test]
    fn both_copies_say_what_was_written() {
        let bytes = encode(&format());
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(decode(&bytes[..COPY]), Ok(format()));
        assert_eq!(decode(&bytes[COPY..]), Ok(format()));
    }

    /// Law: no single changed bit goes unseen.
    #[test]
    fn every_flipped_bit_of_a_superblock_is_found() {
        let bytes = encode(&format());
        for position in 0..COPY {
            for bit in 0..8 {
                let mut copy = bytes[..COPY].to_vec();
                copy[position] ^= 1 << bit;
                assert!(decode(&copy).is_err(), "byte {position} bit {bit}");
            }
        }
    }
}
