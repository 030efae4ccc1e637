//! The words between peers: pieces as the requests that owners have for disks, and answers as theirs.

use bytes::Bytes;
use protocol::codec::Message;
use protocol::geometry::extents;
use protocol::message::{Refusal, Request, Response, Scope};
use protocol::shared::{CompareAndWrite, Compared};
use protocol::storage::{Change, MapRun, ObjectWrite};
use protocol::{
    BLOCK_SIZE, BlockRange, FamilyId, Generation, LayerId, OBJECT_SIZE, ObjectId, Stamp, VolumeId, checksum,
};

use super::gate::Access;
use crate::device::{DeviceError, Operation, Outcome};
use crate::pieces::{Piece, What};

/// What an owner answers.
pub(super) enum Answer {
    /// As a disk would.
    Response(Response),
    /// To a compare-and-write.
    Compared(Compared),
}

/// What a peer asks for.
pub(super) struct Asked {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) access: Access,
    pub(super) operation: Operation,
}

/// What a piece has to do with its range.
pub(super) fn access(what: &What) -> Access {
    match what {
        What::Read | What::Map => Access::Read,
        What::Write(_) | What::Zero => Access::Write,
        What::CompareAndWrite { .. } => Access::Compare,
    }
}

/// A piece as a request. Nothing if it is no whole number of blocks in one object, which cannot be.
pub(super) fn request(volume: VolumeId, generation: Generation, piece: &Piece) -> Option<Message> {
    let extent = extents(piece.offset, piece.length).next()?;
    let scope = Scope {
        pg: protocol::PgId::default(),
        interval: protocol::Interval::default(),
        volume,
        generation,
        revision: protocol::TreeRevision::default(),
    };
    let (family, layer) = (FamilyId::default(), LayerId::default());
    let (index, range) = (extent.index, extent.range);
    let change = match &piece.what {
        What::Read => {
            return Some(Message::Request(Request::Read {
                scope,
                family,
                layer,
                index,
                range,
            }));
        }
        What::Map => {
            return Some(Message::Request(Request::Map {
                scope,
                family,
                layer,
                index,
                range,
            }));
        }
        What::Zero => Change::Zero,
        What::CompareAndWrite { expected, data } => {
            let bytes: Bytes = [&expected[..], &data[..]].concat().into();
            return Some(Message::Compare(CompareAndWrite {
                volume,
                index,
                range,
                checksums: checksum::of_blocks(&bytes),
                bytes,
            }));
        }
        What::Write(bytes) => Change::Data {
            bytes: bytes.clone(),
            checksums: checksum::of_blocks(bytes),
        },
    };
    let write = ObjectWrite {
        object: ObjectId { family, index, layer },
        follows: Stamp::ZERO,
        stamp: Stamp::ZERO,
        range,
        change,
        use_reserve: false,
        floor: Stamp::ZERO,
    };
    Some(Message::Request(Request::Write { scope, write }))
}

/// First byte and length of blocks of an object.
fn place(index: u32, range: BlockRange) -> (u64, u64) {
    let offset = u64::from(index) * u64::from(OBJECT_SIZE) + u64::from(range.start()) * u64::from(BLOCK_SIZE);
    (offset, range.byte_len() as u64)
}

/// A compare-and-write of a peer of this volume.
pub(super) fn compare(volume: VolumeId, compare: &CompareAndWrite) -> Result<Asked, Refusal> {
    if compare.volume != volume {
        return Err(Refusal::Stranger);
    }
    checksum::verify(&compare.bytes, &compare.checksums).map_err(|_| Refusal::Mismatch)?;
    let (offset, length) = place(compare.index, compare.range);
    let middle = compare.range.byte_len().min(compare.bytes.len());
    let operation = Operation::CompareAndWrite {
        offset,
        expected: compare.bytes.slice(..middle),
        data: compare.bytes.slice(middle..),
    };
    Ok(Asked {
        offset,
        length,
        access: Access::Compare,
        operation,
    })
}

/// A request of a peer about this volume.
pub(super) fn asked(volume: VolumeId, request: Request) -> Result<Asked, Refusal> {
    let (scope, index, range) = match &request {
        Request::Read {
            scope, index, range, ..
        }
        | Request::Map {
            scope, index, range, ..
        } => (scope, *index, *range),
        Request::Write { scope, write } => (scope, write.object.index, write.range),
        _ => return Err(Refusal::Invalid),
    };
    if scope.volume != volume {
        return Err(Refusal::Stranger);
    }
    let (offset, length) = place(index, range);
    let operation = match request {
        Request::Read { .. } => Operation::Read { offset, length },
        Request::Map { .. } => Operation::Map { offset, length },
        Request::Write { write, .. } => match write.change {
            Change::Zero => Operation::WriteZeroes { offset, length },
            Change::Data { bytes, checksums } => {
                checksum::verify(&bytes, &checksums).map_err(|_| Refusal::Mismatch)?;
                let data = vec![bytes];
                Operation::Write { offset, data }
            }
        },
        _ => return Err(Refusal::Invalid),
    };
    let writes = matches!(operation, Operation::Write { .. } | Operation::WriteZeroes { .. });
    Ok(Asked {
        offset,
        length,
        access: if writes { Access::Write } else { Access::Read },
        operation,
    })
}

/// An answer to a request that begins at this byte of the volume.
pub(super) fn answer(offset: u64, access: Access, result: Result<Outcome, DeviceError>) -> Message {
    Message::Compared(match result {
        Ok(Outcome::Done) if access == Access::Compare => Compared::Written,
        Ok(Outcome::Differs { offset }) => Compared::Differs { offset },
        Err(DeviceError::NotKnown) => Compared::NotKnown,
        other => return Message::Response(response(offset, other)),
    })
}

fn response(offset: u64, result: Result<Outcome, DeviceError>) -> Response {
    match result {
        Ok(Outcome::Done) => Response::Ok,
        Ok(Outcome::Data(pieces)) => {
            let bytes = joined(pieces);
            Response::Data {
                stamp: Stamp::ZERO,
                checksums: checksum::of_blocks(&bytes),
                bytes,
            }
        }
        Ok(Outcome::Differs { .. }) => Response::Refused(Refusal::Invalid),
        Ok(Outcome::Map(runs)) => map(offset, &runs).unwrap_or(Response::Refused(Refusal::Invalid)),
        Err(error) => Response::Refused(refusal(&error)),
    }
}

fn map(offset: u64, runs: &[(u64, protocol::storage::MapKind)]) -> Option<Response> {
    let mut at = offset;
    let mut told = Vec::with_capacity(runs.len());
    for (length, kind) in runs {
        let range = extents(at, *length).next()?.range;
        told.push(MapRun { range, kind: *kind });
        at += length;
    }
    Some(Response::Map {
        stamp: Stamp::ZERO,
        runs: told,
    })
}

fn refusal(error: &DeviceError) -> Refusal {
    match error {
        DeviceError::ReadOnly => Refusal::Sealed,
        DeviceError::Damaged { offset } => {
            let object = u64::from(OBJECT_SIZE);
            let (index, block) = (offset / object, offset % object / u64::from(BLOCK_SIZE));
            Refusal::Damaged {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                block: u32::try_from(block).unwrap_or(u32::MAX),
            }
        }
        DeviceError::Full => Refusal::Full,
        DeviceError::Invalid { .. }
        | DeviceError::NotComparable
        | DeviceError::NotKnown
        | DeviceError::OlderOwner
        | DeviceError::Contended { .. }
        | DeviceError::Lost
        | DeviceError::Closed => Refusal::Invalid,
    }
}

/// What an answer says of a piece of a volume of this size. Nothing if it was damaged on the way: it is asked again.
pub(super) fn result(answer: Answer, size: u64) -> Option<Result<Outcome, DeviceError>> {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Compared(Compared::Written) => return Some(Ok(Outcome::Done)),
        Answer::Compared(Compared::Differs { offset }) => return Some(Ok(Outcome::Differs { offset })),
        Answer::Compared(Compared::NotKnown) => return Some(Err(DeviceError::NotKnown)),
    };
    Some(match response {
        Response::Ok => Ok(Outcome::Done),
        Response::Data { checksums, bytes, .. } => {
            checksum::verify(&bytes, &checksums).ok()?;
            Ok(Outcome::Data(vec![bytes]))
        }
        Response::Map { runs, .. } => {
            let run = |run: MapRun| (run.range.byte_len() as u64, run.kind);
            Ok(Outcome::Map(runs.into_iter().map(run).collect()))
        }
        Response::Refused(Refusal::Mismatch) => return None,
        Response::Refused(Refusal::Sealed) => Err(DeviceError::ReadOnly),
        Response::Refused(Refusal::Full) => Err(DeviceError::Full),
        Response::Refused(Refusal::Damaged { index, block }) => Err(DeviceError::Damaged {
            offset: u64::from(index) * u64::from(OBJECT_SIZE) + u64::from(block) * u64::from(BLOCK_SIZE),
        }),
        _ => Err(DeviceError::Invalid { size }),
    })
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    pieces.concat().into()
}
