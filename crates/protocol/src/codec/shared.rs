//! What those who share a volume say to each other in words of their own, in bytes. `docs/protocol/wire.md` has the table.

use bytes::{BufMut, Bytes, BytesMut};

use super::field::{Reader, put_checksums, put_range};
use crate::frame::{Kind, WireError};
use crate::id::VolumeId;
use crate::shared::{COMPARE_MAX, CompareAndWrite, Compared};

const WRITTEN: u8 = 1;
const DIFFERS: u8 = 2;
const NOT_KNOWN: u8 = 3;

/// Appends the body of a compare-and-write; gives its payload.
pub(super) fn put_compare(out: &mut BytesMut, compare: &CompareAndWrite) -> (Kind, Bytes) {
    out.put_u64_le(compare.volume.0);
    out.put_u32_le(compare.index);
    put_range(out, compare.range);
    put_checksums(out, &compare.checksums);
    (Kind::Compare, compare.bytes.clone())
}

pub(super) fn read_compare(kind: Kind, body: &[u8], payload: Bytes) -> Result<CompareAndWrite, WireError> {
    let mut reader = Reader::new(kind, body);
    let (volume, index, range) = (VolumeId(reader.u64()?), reader.u32()?, reader.range()?);
    if range.byte_len() > COMPARE_MAX as usize {
        return Err(reader.wrong("range of a compare-and-write"));
    }
    let checksums = reader.checksums(2 * range.count() as usize)?;
    if payload.len() != 2 * range.byte_len() {
        return Err(reader.wrong("length of the payload"));
    }
    reader.end()?;
    Ok(CompareAndWrite {
        volume,
        index,
        range,
        checksums,
        bytes: payload,
    })
}

/// Appends the body of what became of one.
pub(super) fn put_compared(out: &mut BytesMut, compared: Compared) -> (Kind, Bytes) {
    match compared {
        Compared::Written => out.put_u8(WRITTEN),
        Compared::Differs { offset } => {
            out.put_u8(DIFFERS);
            out.put_u64_le(offset);
        }
        Compared::NotKnown => out.put_u8(NOT_KNOWN),
    }
    (Kind::Compared, Bytes::new())
}

pub(super) fn read_compared(kind: Kind, body: &[u8]) -> Result<Compared, WireError> {
    let mut reader = Reader::new(kind, body);
    let compared = match reader.u8()? {
        WRITTEN => Compared::Written,
        DIFFERS => Compared::Differs {
            offset: reader.u64()?,
        },
        NOT_KNOWN => Compared::NotKnown,
        _ => return Err(reader.wrong("outcome of a compare-and-write")),
    };
    reader.end()?;
    Ok(compared)
}
