//! What disks that come back ask, and what they are told, in bytes. `docs/protocol/wire.md` has the tables.

use bytes::{BufMut, Bytes, BytesMut};

use super::chunks::{put_chunks, read_chunks};
use super::delta::{put_delta, read_delta};
use super::field::{OBJECT_LEN, Reader, STAMP_LEN, put_count, put_object, put_pg, put_stamp};
use crate::frame::WireError;
use crate::id::{DiskId, FamilyId, Generation, Interval, ObjectId, VolumeId};
use crate::recovery::{Ask, Question, Told};
use crate::storage::ObjectState;

const TABLE: u8 = 1;
const LIST: u8 = 2;
const COLUMN: u8 = 3;
const DIFFERENCE: u8 = 4;

/// Of a volume in a table: identity, generation, whether it served.
const VOLUME_LEN: usize = 17;
/// The least that an object of a list takes: identity, stamp, number of chunks.
const STATE_LEN: usize = OBJECT_LEN + STAMP_LEN + 4;

pub(super) fn put_question(out: &mut BytesMut, question: &Question) {
    put_pg(out, question.pg);
    out.put_u64_le(question.interval.0);
    out.put_u32_le(question.from.0);
    match &question.ask {
        Ask::Table => out.put_u8(TABLE),
        Ask::List { after } => {
            out.put_u8(LIST);
            put_cursor(out, *after);
        }
        Ask::Column { family, index } => {
            out.put_u8(COLUMN);
            out.put_u64_le(family.0);
            out.put_u32_le(*index);
        }
        Ask::Difference { object, have } => {
            out.put_u8(DIFFERENCE);
            put_object(out, *object);
            put_chunks(out, have);
        }
    }
}

pub(super) fn read_question(reader: &mut Reader<'_>) -> Result<Question, WireError> {
    let (pg, interval, from) = (reader.pg()?, Interval(reader.u64()?), DiskId(reader.u32()?));
    let ask = match reader.u8()? {
        TABLE => Ask::Table,
        LIST => Ask::List {
            after: read_cursor(reader)?,
        },
        COLUMN => Ask::Column {
            family: FamilyId(reader.u64()?),
            index: reader.u32()?,
        },
        DIFFERENCE => Ask::Difference {
            object: reader.object()?,
            have: read_chunks(reader)?,
        },
        _ => return Err(reader.wrong("kind of question")),
    };
    Ok(Question {
        pg,
        interval,
        from,
        ask,
    })
}

pub(super) fn put_told(out: &mut BytesMut, told: &Told) -> Bytes {
    match told {
        Told::Table(volumes) => {
            out.put_u8(TABLE);
            put_count(out, volumes.len());
            for (volume, generation, served) in volumes {
                out.put_u64_le(volume.0);
                out.put_u64_le(generation.0);
                out.put_u8((*served).into());
            }
            Bytes::new()
        }
        Told::Listed { objects, next } => {
            out.put_u8(LIST);
            put_cursor(out, *next);
            put_states(out, objects);
            Bytes::new()
        }
        Told::Difference { delta, doubt } => {
            out.put_u8(DIFFERENCE);
            out.put_u8((*doubt).into());
            put_delta(out, delta);
            delta.bytes.clone()
        }
    }
}

pub(super) fn read_told(reader: &mut Reader<'_>, payload: Bytes) -> Result<Told, WireError> {
    let kind = reader.u8()?;
    if kind != DIFFERENCE && !payload.is_empty() {
        return Err(reader.wrong("length of the payload"));
    }
    Ok(match kind {
        TABLE => {
            let count = reader.entries(VOLUME_LEN)?;
            let volume = |reader: &mut Reader<'_>| {
                let (volume, generation) = (VolumeId(reader.u64()?), Generation(reader.u64()?));
                Ok((volume, generation, reader.flag("served")?))
            };
            Told::Table((0..count).map(|_| volume(reader)).collect::<Result<_, _>>()?)
        }
        LIST => {
            let next = read_cursor(reader)?;
            let objects = read_states(reader)?;
            Told::Listed { objects, next }
        }
        DIFFERENCE => {
            let doubt = reader.flag("doubt")?;
            let delta = read_delta(reader, payload)?;
            Told::Difference { delta, doubt }
        }
        _ => return Err(reader.wrong("kind of answer")),
    })
}

/// What there is of some objects.
pub(super) fn put_states(out: &mut BytesMut, objects: &[ObjectState]) {
    put_count(out, objects.len());
    for state in objects {
        put_object(out, state.object);
        put_stamp(out, state.stamp);
        put_chunks(out, &state.chunks);
    }
}

pub(super) fn read_states(reader: &mut Reader<'_>) -> Result<Vec<ObjectState>, WireError> {
    let count = reader.entries(STATE_LEN)?;
    (0..count).map(|_| read_state(reader)).collect()
}

fn read_state(reader: &mut Reader<'_>) -> Result<ObjectState, WireError> {
    Ok(ObjectState {
        object: reader.object()?,
        stamp: reader.stamp()?,
        chunks: read_chunks(reader)?,
    })
}

/// An object that something goes on after, or nothing.
pub(super) fn put_cursor(out: &mut BytesMut, after: Option<ObjectId>) {
    out.put_u8(after.is_some().into());
    put_object(out, after.unwrap_or_default());
}

pub(super) fn read_cursor(reader: &mut Reader<'_>) -> Result<Option<ObjectId>, WireError> {
    let (given, object) = (reader.flag("after")?, reader.object()?);
    // One way only to say nothing.
    if !given && object != ObjectId::default() {
        return Err(reader.wrong("after"));
    }
    Ok(given.then_some(object))
}
