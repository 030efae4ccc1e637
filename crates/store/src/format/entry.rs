//! Keys and values of the metadata tables.
//!
//! Keys are big endian, so that their order as bytes is their order as values. Values begin with
//! their version. Their checksum is that of the page that they lie in (`page`).

use protocol::{FamilyId, LayerId, ObjectId, Stamp, geometry};

use crate::format::cursor::{Append, Cursor, Malformed};
use crate::format::record::{self, Slot};

/// Length of an object's key.
pub(crate) const OBJECT_KEY: usize = 20;
/// Length of a chunk's key: the object's and the chunk's number.
pub(crate) const CHUNK_KEY: usize = OBJECT_KEY + 1;
/// Slots in one page of the allocation table.
pub(crate) const SLOTS_PER_PAGE: u64 = ALLOCATION_PAGE as u64 * 8;
/// Bytes of one page of the allocation table.
pub(crate) const ALLOCATION_PAGE: usize = 1024;

const VERSION: u8 = 1;

/// What the tables say of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectEntry {
    pub(crate) stamp: Stamp,
    pub(crate) merged: Vec<LayerId>,
}

/// What the tables say of a chunk. `checksums` has one for each block with bytes, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub(crate) stamp: Stamp,
    pub(crate) present: u16,
    pub(crate) zero: u16,
    pub(crate) slot: Option<Slot>,
    pub(crate) checksums: Vec<u32>,
}

/// Where the log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogStart {
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
}

pub(crate) fn object_key(object: ObjectId) -> [u8; OBJECT_KEY] {
    let mut key = [0; OBJECT_KEY];
    key[..8].copy_from_slice(&object.family.0.to_be_bytes());
    key[8..12].copy_from_slice(&object.index.to_be_bytes());
    key[12..].copy_from_slice(&object.layer.0.to_be_bytes());
    key
}

pub(crate) fn chunk_key(object: ObjectId, chunk: u8) -> [u8; CHUNK_KEY] {
    let mut key = [0; CHUNK_KEY];
    key[..OBJECT_KEY].copy_from_slice(&object_key(object));
    key[OBJECT_KEY] = chunk;
    key
}

pub(crate) fn parse_object_key(key: &[u8]) -> Result<ObjectId, Malformed> {
    let mut cursor = Cursor::new(key);
    let family = FamilyId(u64::from_be_bytes(cursor.bytes()?));
    let index = u32::from_be_bytes(cursor.bytes()?);
    let layer = LayerId(u64::from_be_bytes(cursor.bytes()?));
    cursor.finish()?;
    Ok(ObjectId { family, index, layer })
}

pub(crate) fn parse_chunk_key(key: &[u8]) -> Result<(ObjectId, u8), Malformed> {
    let (object, chunk) = key
        .split_at_checked(OBJECT_KEY)
        .ok_or(Malformed("a chunk's key is too short"))?;
    match chunk {
        [chunk] if u32::from(*chunk) < geometry::CHUNKS_PER_OBJECT => Ok((parse_object_key(object)?, *chunk)),
        _ => Err(Malformed("a chunk's key has no chunk's number")),
    }
}

impl ObjectEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        record::put_stamp(&mut out, self.stamp);
        record::put_layers(&mut out, &self.merged);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        if cursor.u8()? != VERSION {
            return Err(Malformed("an object's entry has another version"));
        }
        let entry = Self {
            stamp: record::stamp(&mut cursor)?,
            merged: record::layers(&mut cursor)?,
        };
        cursor.finish()?;
        Ok(entry)
    }
}

impl ChunkEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 4 * self.checksums.len());
        out.push(VERSION);
        record::put_stamp(&mut out, self.stamp);
        out.put_u16(self.present);
        out.put_u16(self.zero);
        record::put_slot(&mut out, self.slot);
        out.put_u32s(&self.checksums);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        if cursor.u8()? != VERSION {
            return Err(Malformed("a chunk's entry has another version"));
        }
        let stamp = record::stamp(&mut cursor)?;
        let (present, zero, slot) = (cursor.u16()?, cursor.u16()?, record::slot(&mut cursor)?);
        let data = present & !zero;
        if zero & !present != 0 || present == 0 || slot.is_some() != (data != 0) {
            return Err(Malformed("a chunk's entry contradicts itself"));
        }
        let checksums = cursor.u32s(data.count_ones() as usize)?;
        cursor.finish()?;
        Ok(Self {
            stamp,
            present,
            zero,
            slot,
            checksums,
        })
    }
}

impl LogStart {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_u64(self.offset);
        out.put_u64(self.sequence);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        if cursor.u8()? != VERSION {
            return Err(Malformed("the log's place has another version"));
        }
        let start = Self {
            offset: cursor.u64()?,
            sequence: cursor.u64()?,
        };
        cursor.finish()?;
        Ok(start)
    }
}

pub(crate) fn encode_stamp(stamp: Stamp) -> Vec<u8> {
    let mut out = vec![VERSION];
    record::put_stamp(&mut out, stamp);
    out
}

pub(crate) fn decode_stamp(value: &[u8]) -> Result<Stamp, Malformed> {
    let mut cursor = Cursor::new(value);
    if cursor.u8()? != VERSION {
        return Err(Malformed("a doubt's entry has another version"));
    }
    let stamp = record::stamp(&mut cursor)?;
    cursor.finish()?;
    Ok(stamp)
}
