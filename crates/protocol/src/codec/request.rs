//! Requests from an owner to a replica, in bytes. `docs/protocol/wire.md` has the tables.

use bytes::{BufMut, Bytes, BytesMut};

use super::delta::{put_delta, read_delta};
use super::field::{Reader, put_checksums, put_object, put_range, put_scope, put_stamp};
use super::ranges::{put_ranges, read_ranges};
use super::recovery::{put_cursor, put_question, read_cursor, read_question};
use super::vouch::{put_vouch, read_vouch};
use crate::frame::{Kind, WireError};
use crate::geometry::BlockRange;
use crate::id::{DiskId, FamilyId, LayerId};
use crate::message::{Request, Scope};
use crate::stamp::Stamp;
use crate::storage::{Change, ObjectWrite};

const CHANGE_DATA: u8 = 1;
const CHANGE_ZERO: u8 = 2;

/// Appends the body of a request; gives its kind and its payload.
pub(super) fn put_request(out: &mut BytesMut, request: &Request) -> (Kind, Bytes) {
    match request {
        Request::Hello {
            version_min,
            version_max,
            cluster,
            disk,
        } => {
            out.put_u16_le(*version_min);
            out.put_u16_le(*version_max);
            out.put_u32_le(disk.0);
            out.put_slice(cluster);
            (Kind::Hello, Bytes::new())
        }
        Request::Fence { scope, family, after } => {
            put_scope(out, scope);
            out.put_u64_le(family.0);
            put_cursor(out, *after);
            (Kind::Fence, Bytes::new())
        }
        Request::Read {
            scope,
            family,
            layer,
            index,
            range,
        }
        | Request::Map {
            scope,
            family,
            layer,
            index,
            range,
        }
        | Request::Places {
            scope,
            family,
            layer,
            index,
            range,
        } => {
            put_area(out, scope, *family, *layer, *index, *range);
            (area_kind(request), Bytes::new())
        }
        Request::ReadSeveral {
            scope,
            family,
            layer,
            index,
            ranges,
        } => {
            put_object_in(out, scope, (*family, *layer, *index));
            put_ranges(out, ranges);
            (Kind::ReadSeveral, Bytes::new())
        }
        Request::Share => (Kind::Share, Bytes::new()),
        Request::Area { descriptor } => {
            out.put_u32_le(*descriptor);
            (Kind::Area, Bytes::new())
        }
        Request::WriteShared { scope, write, at } => {
            put_scope(out, scope);
            out.put_u64_le(*at);
            put_write(out, write);
            (Kind::WriteShared, Bytes::new())
        }
        Request::Write { scope, write } => put_floored(out, scope, write),
        Request::Pull { scope, object, above } => {
            put_scope(out, scope);
            put_object(out, *object);
            put_stamp(out, *above);
            (Kind::Pull, Bytes::new())
        }
        Request::Level {
            scope,
            follows,
            delta,
        }
        | Request::Replace {
            scope,
            follows,
            delta,
        } => {
            put_scope(out, scope);
            put_stamp(out, *follows);
            put_delta(out, delta);
            let level = matches!(request, Request::Level { .. });
            let kind = if level { Kind::Level } else { Kind::Replace };
            (kind, delta.bytes.clone())
        }
        Request::Column {
            scope,
            family,
            layer,
            index,
        } => {
            put_object_in(out, scope, (*family, *layer, *index));
            (Kind::Column, Bytes::new())
        }
        Request::Complete { scope, up_to } => {
            put_scope(out, scope);
            out.put_u64_le(*up_to);
            (Kind::Complete, Bytes::new())
        }
        Request::Question(question) => {
            put_question(out, question);
            (Kind::Question, Bytes::new())
        }
        Request::Ping { scope } => {
            put_scope(out, scope);
            (Kind::Ping, Bytes::new())
        }
        Request::Vouch(vouch) => {
            put_vouch(out, vouch);
            (Kind::Vouch, Bytes::new())
        }
    }
}

/// Which of the requests about an area it is.
fn area_kind(request: &Request) -> Kind {
    match request {
        Request::Map { .. } => Kind::Map,
        Request::Places { .. } => Kind::Places,
        _ => Kind::Read,
    }
}

fn put_area(
    out: &mut BytesMut,
    scope: &Scope,
    family: FamilyId,
    layer: LayerId,
    index: u32,
    range: BlockRange,
) {
    put_object_in(out, scope, (family, layer, index));
    put_range(out, range);
}

fn put_object_in(out: &mut BytesMut, scope: &Scope, (family, layer, index): (FamilyId, LayerId, u32)) {
    put_scope(out, scope);
    out.put_u64_le(family.0);
    out.put_u64_le(layer.0);
    out.put_u32_le(index);
}

/// A write, ahead of it the floor of one that has one.
fn put_floored(out: &mut BytesMut, scope: &Scope, write: &ObjectWrite) -> (Kind, Bytes) {
    put_scope(out, scope);
    if write.floor == Stamp::ZERO {
        return (Kind::Write, put_write(out, write));
    }
    put_stamp(out, write.floor);
    (Kind::WriteFront, put_write(out, write))
}

fn put_write(out: &mut BytesMut, write: &ObjectWrite) -> Bytes {
    put_object(out, write.object);
    put_stamp(out, write.follows);
    put_stamp(out, write.stamp);
    put_range(out, write.range);
    out.put_u8(write.use_reserve.into());
    match &write.change {
        Change::Data { bytes, checksums } => {
            out.put_u8(CHANGE_DATA);
            put_checksums(out, checksums);
            bytes.clone()
        }
        Change::Zero => {
            out.put_u8(CHANGE_ZERO);
            Bytes::new()
        }
    }
}

/// Reads a request from its body and payload.
pub(super) fn read_request(kind: Kind, body: &[u8], payload: Bytes) -> Result<Request, WireError> {
    let mut reader = Reader::new(kind, body);
    let request = match kind {
        Kind::Hello => {
            let (version_min, version_max) = (reader.u16()?, reader.u16()?);
            let disk = DiskId(reader.u32()?);
            Request::Hello {
                version_min,
                version_max,
                cluster: reader.array16()?,
                disk,
            }
        }
        Kind::Fence => {
            let (scope, family) = (reader.scope()?, FamilyId(reader.u64()?));
            Request::Fence {
                scope,
                family,
                after: read_cursor(&mut reader)?,
            }
        }
        Kind::Read => {
            let (scope, family, layer, index, range) = read_area(&mut reader)?;
            Request::Read {
                scope,
                family,
                layer,
                index,
                range,
            }
        }
        Kind::ReadSeveral => Request::ReadSeveral {
            scope: reader.scope()?,
            family: FamilyId(reader.u64()?),
            layer: LayerId(reader.u64()?),
            index: reader.u32()?,
            ranges: read_ranges(&mut reader)?,
        },
        Kind::Map => {
            let (scope, family, layer, index, range) = read_area(&mut reader)?;
            Request::Map {
                scope,
                family,
                layer,
                index,
                range,
            }
        }
        Kind::Share => Request::Share,
        Kind::Area => Request::Area {
            descriptor: reader.u32()?,
        },
        Kind::WriteShared => {
            let (scope, at) = (reader.scope()?, reader.u64()?);
            let write = read_write(&mut reader, None)?;
            if !write.range.has_whole_chunk() || !matches!(write.change, Change::Data { .. }) {
                return Err(reader.wrong("range of a shared write"));
            }
            Request::WriteShared { scope, write, at }
        }
        Kind::Places => {
            let (scope, family, layer, index, range) = read_area(&mut reader)?;
            Request::Places {
                scope,
                family,
                layer,
                index,
                range,
            }
        }
        Kind::Write => {
            let scope = reader.scope()?;
            Request::Write {
                scope,
                write: read_write(&mut reader, Some(&payload))?,
            }
        }
        Kind::WriteFront => read_front_write(&mut reader, &payload)?,
        Kind::Column => Request::Column {
            scope: reader.scope()?,
            family: FamilyId(reader.u64()?),
            layer: LayerId(reader.u64()?),
            index: reader.u32()?,
        },
        Kind::Replace => {
            let (scope, follows) = (reader.scope()?, reader.stamp()?);
            let delta = read_delta(&mut reader, payload)?;
            Request::Replace {
                scope,
                follows,
                delta,
            }
        }
        Kind::Pull => Request::Pull {
            scope: reader.scope()?,
            object: reader.object()?,
            above: reader.stamp()?,
        },
        Kind::Level => {
            let (scope, follows) = (reader.scope()?, reader.stamp()?);
            Request::Level {
                scope,
                follows,
                delta: read_delta(&mut reader, payload)?,
            }
        }
        Kind::Complete => Request::Complete {
            scope: reader.scope()?,
            up_to: reader.u64()?,
        },
        Kind::Question => Request::Question(read_question(&mut reader)?),
        Kind::Ping => Request::Ping {
            scope: reader.scope()?,
        },
        Kind::Vouch => Request::Vouch(read_vouch(&mut reader)?),
        _ => return Err(WireError::Unexpected(kind)),
    };
    reader.end()?;
    Ok(request)
}

fn read_front_write(reader: &mut Reader<'_>, payload: &Bytes) -> Result<Request, WireError> {
    let (scope, floor) = (reader.scope()?, reader.stamp()?);
    if floor == Stamp::ZERO {
        return Err(reader.wrong("floor of a write"));
    }
    let write = read_write(reader, Some(payload))?;
    let write = ObjectWrite { floor, ..write };
    Ok(Request::Write { scope, write })
}

fn read_area(reader: &mut Reader<'_>) -> Result<(Scope, FamilyId, LayerId, u32, BlockRange), WireError> {
    let scope = reader.scope()?;
    let (family, layer) = (FamilyId(reader.u64()?), LayerId(reader.u64()?));
    Ok((scope, family, layer, reader.u32()?, reader.range()?))
}

/// Reads a write; without a payload if its bytes are elsewhere.
fn read_write(reader: &mut Reader<'_>, payload: Option<&Bytes>) -> Result<ObjectWrite, WireError> {
    let object = reader.object()?;
    let (follows, stamp) = (reader.stamp()?, reader.stamp()?);
    let range = reader.range()?;
    let use_reserve = reader.flag("use of the reserve")?;
    let (change, length) = match reader.u8()? {
        CHANGE_DATA => {
            let checksums = reader.checksums(range.count() as usize)?;
            (
                Change::Data {
                    bytes: payload.cloned().unwrap_or_default(),
                    checksums,
                },
                range.byte_len(),
            )
        }
        CHANGE_ZERO => (Change::Zero, 0),
        _ => return Err(reader.wrong("kind of change")),
    };
    if payload.is_some_and(|payload| payload.len() != length) {
        return Err(reader.wrong("length of the payload"));
    }
    Ok(ObjectWrite {
        object,
        follows,
        stamp,
        range,
        change,
        use_reserve,
        floor: Stamp::ZERO,
    })
}
