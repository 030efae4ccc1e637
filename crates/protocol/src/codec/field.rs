//! The fields that bodies are made of: fixed widths, little endian, every length checked.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::frame::{Kind, WireError};
use crate::geometry::BlockRange;
use crate::id::{FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, TreeRevision, VolumeId};
use crate::message::Scope;
use crate::stamp::Stamp;

/// Reads fields off the front of a body, and never past its end.
pub(super) struct Reader<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(kind: Kind, body: &'a [u8]) -> Self {
        Self { kind, rest: body }
    }

    /// An error about a field of this frame.
    pub(super) fn wrong(&self, field: &'static str) -> WireError {
        WireError::Field {
            kind: self.kind,
            field,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Short(self.kind))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn array16(&mut self) -> Result<[u8; 16], WireError> {
        self.take()
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong(field)),
        }
    }

    /// A number of entries of `entry` bytes each; refused unless the body still holds as many, so
    /// that a wrong number reserves no memory.
    pub(super) fn entries(&mut self, entry: usize) -> Result<usize, WireError> {
        let count = self.u32()? as usize;
        match count.checked_mul(entry) {
            Some(length) if length <= self.rest.len() => Ok(count),
            _ => Err(WireError::Short(self.kind)),
        }
    }

    pub(super) fn stamp(&mut self) -> Result<Stamp, WireError> {
        Ok(Stamp {
            generation: Generation(self.u64()?),
            count: self.u64()?,
        })
    }

    pub(super) fn object(&mut self) -> Result<ObjectId, WireError> {
        Ok(ObjectId {
            family: FamilyId(self.u64()?),
            layer: LayerId(self.u64()?),
            index: self.u32()?,
        })
    }

    pub(super) fn range(&mut self) -> Result<BlockRange, WireError> {
        let (start, count) = (self.u16()?, self.u16()?);
        BlockRange::new(start.into(), count.into()).ok_or(self.wrong("range of blocks"))
    }

    pub(super) fn pg(&mut self) -> Result<PgId, WireError> {
        Ok(PgId {
            pool: PoolId(self.u32()?),
            number: self.u32()?,
        })
    }

    pub(super) fn scope(&mut self) -> Result<Scope, WireError> {
        Ok(Scope {
            pg: self.pg()?,
            interval: Interval(self.u64()?),
            volume: VolumeId(self.u64()?),
            generation: Generation(self.u64()?),
            revision: TreeRevision(self.u64()?),
        })
    }

    /// `count` checksums.
    pub(super) fn checksums(&mut self, count: usize) -> Result<Arc<[u32]>, WireError> {
        let length = count.checked_mul(4).ok_or(WireError::Short(self.kind))?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(WireError::Short(self.kind))?;
        self.rest = rest;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .collect())
    }

    /// Checks that nothing is left over.
    pub(super) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Long(self.kind))
        }
    }
}

/// Length of an object's identity in bytes.
pub(super) const OBJECT_LEN: usize = 20;
/// Length of a stamp in bytes.
pub(super) const STAMP_LEN: usize = 16;

pub(super) fn put_stamp(out: &mut BytesMut, stamp: Stamp) {
    out.put_u64_le(stamp.generation.0);
    out.put_u64_le(stamp.count);
}

pub(super) fn put_object(out: &mut BytesMut, object: ObjectId) {
    out.put_u64_le(object.family.0);
    out.put_u64_le(object.layer.0);
    out.put_u32_le(object.index);
}

/// A range of blocks; both numbers are at most 1024, which [`BlockRange`] keeps.
pub(super) fn put_range(out: &mut BytesMut, range: BlockRange) {
    for number in [range.start(), range.count()] {
        let [low, high, ..] = number.to_le_bytes();
        out.put_slice(&[low, high]);
    }
}

pub(super) fn put_pg(out: &mut BytesMut, pg: PgId) {
    out.put_u32_le(pg.pool.0);
    out.put_u32_le(pg.number);
}

pub(super) fn put_scope(out: &mut BytesMut, scope: &Scope) {
    put_pg(out, scope.pg);
    out.put_u64_le(scope.interval.0);
    out.put_u64_le(scope.volume.0);
    out.put_u64_le(scope.generation.0);
    out.put_u64_le(scope.revision.0);
}

pub(super) fn put_checksums(out: &mut BytesMut, checksums: &[u32]) {
    for checksum in checksums {
        out.put_u32_le(*checksum);
    }
}

/// A number of entries. No list that is encoded has 2^32 entries; one that had would not be read
/// back, because its body is longer than frames may be.
pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}
