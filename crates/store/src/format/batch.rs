//! A batch of records: what one write to the log holds.
//!
//! A header of 64 bytes, the records, zeros up to a multiple of 4096, then the blocks that records
//! carry inline. The header names the disk's serial number, its own place in the log and its
//! sequence number, so that a batch of another disk, place or time is never taken for this one.

use bytes::Bytes;

use crate::format::cursor::{Append, Cursor, Malformed};
use crate::format::record::Record;
use crate::medium::Buffer;

/// Length of the fixed header, in bytes.
pub(crate) const HEADER: usize = 64;
/// The unit in which batches begin and end, in bytes.
pub(crate) const UNIT: usize = 4096;
/// The most bytes of records in one batch: keeps a header area within what a recovery holds at once.
pub(crate) const RECORD_BYTES_MAX: usize = 256 * 1024;
/// The version that this program writes.
pub(crate) const VERSION: u16 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"STGL");
const CHECKSUM_AT: usize = HEADER - 4;

/// The fixed header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// The disk's serial number.
    pub(crate) serial: [u8; 16],
    /// Grows by one with each batch, from 1.
    pub(crate) sequence: u64,
    /// Where in the log the batch begins, in bytes.
    pub(crate) offset: u64,
    /// Length of the records, in bytes.
    pub(crate) record_bytes: u32,
    /// How many records.
    pub(crate) records: u32,
    /// How many inline blocks follow.
    pub(crate) blocks: u32,
    /// CRC-32C of the records.
    pub(crate) checksum: u32,
}

impl BatchHeader {
    /// Length of header and records with their padding, in bytes.
    pub(crate) fn head_bytes(&self) -> usize {
        (HEADER + self.record_bytes as usize).next_multiple_of(UNIT)
    }

    /// Length of the whole batch, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.head_bytes() as u64 + u64::from(self.blocks) * UNIT as u64
    }

    /// Reads a header, or says that there is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let header = bytes.get(..HEADER).ok_or(Malformed("it ends too early"))?;
        let mut cursor = Cursor::new(header);
        if cursor.u32()? != MAGIC {
            return Err(Malformed("it does not begin as a batch does"));
        }
        if Cursor::new(&header[CHECKSUM_AT..]).u32()? != crc32c::crc32c(&header[..CHECKSUM_AT]) {
            return Err(Malformed("its header's checksum does not match"));
        }
        if cursor.u16()? != VERSION || cursor.u16()? != 0 {
            return Err(Malformed("it has another version"));
        }
        let header = Self {
            serial: cursor.bytes()?,
            sequence: cursor.u64()?,
            offset: cursor.u64()?,
            record_bytes: cursor.u32()?,
            records: cursor.u32()?,
            blocks: cursor.u32()?,
            checksum: cursor.u32()?,
        };
        if header.record_bytes as usize > RECORD_BYTES_MAX {
            return Err(Malformed("its records are too long"));
        }
        Ok(header)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.put_u32(MAGIC);
        out.put_u16(VERSION);
        out.put_u16(0); // flags, none yet
        out.extend_from_slice(&self.serial);
        out.put_u64(self.sequence);
        out.put_u64(self.offset);
        out.put_u32(self.record_bytes);
        out.put_u32(self.records);
        out.put_u32(self.blocks);
        out.put_u32(self.checksum);
        out.resize(CHECKSUM_AT, 0);
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        out
    }
}

/// Header and records of a batch, padded, at an aligned address. `records` are encoded ones.
pub(crate) fn encode_head(
    serial: [u8; 16],
    sequence: u64,
    offset: u64,
    records: &[u8],
    count: u32,
    blocks: u32,
) -> Bytes {
    debug_assert!(
        records.len() <= RECORD_BYTES_MAX,
        "{} bytes of records",
        records.len()
    );
    let header = BatchHeader {
        serial,
        sequence,
        offset,
        record_bytes: u32::try_from(records.len()).unwrap_or(u32::MAX),
        records: count,
        blocks,
        checksum: crc32c::crc32c(records),
    };
    let mut head = Buffer::with_capacity(UNIT, header.head_bytes());
    head.extend_from_slice(&header.encode());
    head.extend_from_slice(records);
    head.resize(header.head_bytes(), 0);
    Bytes::from_owner(head)
}

/// Reads the records of a batch, without its inline blocks. `head` is header, records and padding.
pub(crate) fn decode_records(header: &BatchHeader, head: &[u8]) -> Result<Vec<Record>, Malformed> {
    let end = HEADER + header.record_bytes as usize;
    let records = head.get(HEADER..end).ok_or(Malformed("it ends too early"))?;
    if crc32c::crc32c(records) != header.checksum {
        return Err(Malformed("its records' checksum does not match"));
    }
    let mut cursor = Cursor::new(records);
    let mut list = Vec::new();
    while !cursor.is_empty() {
        list.push(Record::decode(&mut cursor)?);
    }
    let inline: usize = list.iter().map(|record| record.inline_checksums().len()).sum();
    if list.len() != header.records as usize || inline != header.blocks as usize {
        return Err(Malformed("its records are not as many as it says"));
    }
    Ok(list)
}
