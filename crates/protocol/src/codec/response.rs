//! Answers of a replica to an owner, in bytes. `docs/protocol/wire.md` has the tables.

use bytes::{BufMut, Bytes, BytesMut};

use super::delta::{put_delta, read_delta};
use super::field::{
    OBJECT_LEN, Reader, STAMP_LEN, put_checksums, put_count, put_object, put_range, put_stamp,
};
use super::place::{put_placed, put_shared, read_placed, read_shared};
use super::recovery::{put_states, put_told, read_states, read_told};
use super::vouch::{put_standing, read_standing};
use crate::frame::{Kind, WireError};
use crate::geometry::{BLOCK_SIZE, BLOCKS_PER_OBJECT};
use crate::id::{DiskId, Generation, Interval, TreeRevision};
use crate::message::{Refusal, Response};
use crate::storage::{MapKind, MapRun};

const RUN_LEN: usize = 5;

/// Appends the body of an answer; gives its kind and its payload.
pub(super) fn put_response(out: &mut BytesMut, response: &Response) -> (Kind, Bytes) {
    match response {
        Response::Welcome { version, disk } => {
            out.put_u16_le(*version);
            out.put_u32_le(disk.0);
            (Kind::Welcome, Bytes::new())
        }
        Response::Ok => (Kind::Ok, Bytes::new()),
        Response::Doubt { objects, more } => {
            out.put_u8((*more).into());
            put_count(out, objects.len());
            for (object, stamp) in objects {
                put_object(out, *object);
                put_stamp(out, *stamp);
            }
            (Kind::Doubt, Bytes::new())
        }
        Response::Data {
            stamp,
            checksums,
            bytes,
        } => {
            put_stamp(out, *stamp);
            put_count(out, checksums.len());
            put_checksums(out, checksums);
            (Kind::Data, bytes.clone())
        }
        Response::Map { stamp, runs } => {
            put_stamp(out, *stamp);
            put_count(out, runs.len());
            for run in runs {
                put_range(out, run.range);
                out.put_u8(map_kind_number(run.kind));
            }
            (Kind::Runs, Bytes::new())
        }
        Response::Delta(delta) => {
            put_delta(out, delta);
            (Kind::Delta, delta.bytes.clone())
        }
        Response::Shared { directory, opening } => {
            put_shared(out, directory, opening);
            (Kind::Shared, Bytes::new())
        }
        Response::Placed { admission, chunks } => {
            put_placed(out, *admission, chunks);
            (Kind::Placed, Bytes::new())
        }
        Response::Told(told) => (Kind::Told, put_told(out, told)),
        Response::Standing { refused } => {
            put_standing(out, refused);
            (Kind::Standing, Bytes::new())
        }
        Response::Column { objects } => {
            put_states(out, objects);
            (Kind::Columns, Bytes::new())
        }
        Response::Refused(refusal) => {
            put_refusal(out, refusal);
            (Kind::Refused, Bytes::new())
        }
    }
}

/// Reads an answer from its body and payload.
pub(super) fn read_response(kind: Kind, body: &[u8], payload: Bytes) -> Result<Response, WireError> {
    let mut reader = Reader::new(kind, body);
    let response = match kind {
        Kind::Welcome => Response::Welcome {
            version: reader.u16()?,
            disk: DiskId(reader.u32()?),
        },
        Kind::Ok => Response::Ok,
        Kind::Doubt => {
            let more = reader.flag("more")?;
            let count = reader.entries(OBJECT_LEN + STAMP_LEN)?;
            let objects = (0..count)
                .map(|_| Ok((reader.object()?, reader.stamp()?)))
                .collect::<Result<_, WireError>>()?;
            Response::Doubt { objects, more }
        }
        Kind::Data => {
            let stamp = reader.stamp()?;
            let count = reader.entries(4)?;
            if count > BLOCKS_PER_OBJECT as usize || payload.len() != count * BLOCK_SIZE as usize {
                return Err(reader.wrong("length of the payload"));
            }
            Response::Data {
                stamp,
                checksums: reader.checksums(count)?,
                bytes: payload,
            }
        }
        Kind::Runs => {
            let stamp = reader.stamp()?;
            let count = reader.entries(RUN_LEN)?;
            let runs = (0..count)
                .map(|_| read_run(&mut reader))
                .collect::<Result<_, _>>()?;
            Response::Map { stamp, runs }
        }
        Kind::Delta => Response::Delta(read_delta(&mut reader, payload)?),
        Kind::Shared => read_shared(&mut reader)?,
        Kind::Placed => read_placed(&mut reader)?,
        Kind::Told => Response::Told(read_told(&mut reader, payload)?),
        Kind::Standing => Response::Standing {
            refused: read_standing(&mut reader)?,
        },
        Kind::Columns => Response::Column {
            objects: read_states(&mut reader)?,
        },
        Kind::Refused => Response::Refused(read_refusal(&mut reader)?),
        _ => return Err(WireError::Unexpected(kind)),
    };
    reader.end()?;
    Ok(response)
}

fn map_kind_number(kind: MapKind) -> u8 {
    match kind {
        MapKind::Data => 1,
        MapKind::Zero => 2,
        MapKind::Hole => 3,
    }
}

fn read_run(reader: &mut Reader<'_>) -> Result<MapRun, WireError> {
    let range = reader.range()?;
    let kind = match reader.u8()? {
        1 => MapKind::Data,
        2 => MapKind::Zero,
        3 => MapKind::Hole,
        _ => return Err(reader.wrong("kind of run")),
    };
    Ok(MapRun { range, kind })
}

pub(super) fn put_refusal(out: &mut BytesMut, refusal: &Refusal) {
    match refusal {
        Refusal::Stranger => out.put_u8(1),
        Refusal::Interval(interval) => {
            out.put_u8(2);
            out.put_u64_le(interval.0);
        }
        Refusal::Revision(revision) => {
            out.put_u8(3);
            out.put_u64_le(revision.0);
        }
        Refusal::Fenced(generation) => {
            out.put_u8(4);
            out.put_u64_le(generation.0);
        }
        Refusal::Sealed => out.put_u8(5),
        Refusal::NotInSync => out.put_u8(6),
        Refusal::Gap(stamp) => {
            out.put_u8(7);
            put_stamp(out, *stamp);
        }
        Refusal::Mismatch => out.put_u8(8),
        Refusal::Full => out.put_u8(9),
        Refusal::Busy => out.put_u8(10),
        Refusal::Damaged { index, block } => {
            out.put_u8(11);
            out.put_u32_le(*index);
            out.put_u32_le(*block);
        }
        Refusal::Poisoned => out.put_u8(12),
        Refusal::Invalid => out.put_u8(13),
        Refusal::Version { lowest, highest } => {
            out.put_u8(14);
            out.put_u16_le(*lowest);
            out.put_u16_le(*highest);
        }
    }
}

pub(super) fn read_refusal(reader: &mut Reader<'_>) -> Result<Refusal, WireError> {
    Ok(match reader.u8()? {
        1 => Refusal::Stranger,
        2 => Refusal::Interval(Interval(reader.u64()?)),
        3 => Refusal::Revision(TreeRevision(reader.u64()?)),
        4 => Refusal::Fenced(Generation(reader.u64()?)),
        5 => Refusal::Sealed,
        6 => Refusal::NotInSync,
        7 => Refusal::Gap(reader.stamp()?),
        8 => Refusal::Mismatch,
        9 => Refusal::Full,
        10 => Refusal::Busy,
        11 => Refusal::Damaged {
            index: reader.u32()?,
            block: reader.u32()?,
        },
        12 => Refusal::Poisoned,
        13 => Refusal::Invalid,
        14 => Refusal::Version {
            lowest: reader.u16()?,
            highest: reader.u16()?,
        },
        _ => return Err(reader.wrong("kind of refusal")),
    })
}
