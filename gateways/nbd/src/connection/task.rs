//! Carries out one request on the device and answers it.

use std::rc::Rc;

use bytes::Bytes;
use client::device::{BlockDevice, DeviceError, Operation, Outcome};
use client::request::perform;
use protocol::storage::MapKind;
use telemetry::traffic::Kind;

use crate::connection::outbox::Ticket;
use crate::wire::reply::{Extent, Replier, Segment};
use crate::wire::request::Task;
use crate::wire::{Errno, STATE_HOLE, STATE_ZERO};
use crate::zeros;

/// As what a task is counted, and how many bytes it asks for.
pub(super) fn amount(task: &Task) -> (Kind, u64) {
    match *task {
        Task::Read { length, .. } => (Kind::Read, length),
        Task::Write { length, .. } => (Kind::Write, length),
        Task::Zero { length, .. } => (Kind::WriteZeroes, length),
        Task::Trim { length, .. } => (Kind::Discard, length),
        Task::Flush => (Kind::Flush, 0),
        Task::Status { length, .. } => (Kind::Map, length),
        Task::Nothing | Task::Disconnect => (Kind::Nothing, 0),
    }
}

/// Starts a task; it answers by itself.
pub(super) fn start(
    task: Task,
    payload: Bytes,
    device: &Rc<dyn BlockDevice>,
    replier: Replier,
    ticket: Ticket,
) {
    let operation = match task {
        Task::Read {
            offset,
            length,
            whole,
        } => {
            return read(&**device, offset, length, whole, replier, ticket);
        }
        Task::Write { offset, .. } => Operation::Write {
            offset,
            data: vec![payload],
        },
        Task::Zero {
            offset,
            length,
            allocate: false,
        } => Operation::WriteZeroes { offset, length },
        Task::Zero {
            offset,
            length,
            allocate: true,
        } => {
            let work = write_zeros(device.clone(), offset, length);
            return background(work, move |()| replier.done(), replier, ticket);
        }
        Task::Trim { offset, length } => Operation::Discard { offset, length },
        Task::Flush => Operation::Flush,
        Task::Status { offset, length, one } => {
            let work = status(device.clone(), offset, length, one);
            return background(work, move |extents| replier.status(&extents), replier, ticket);
        }
        Task::Nothing | Task::Disconnect => return ticket.answer(replier.done()),
    };
    let finish = move |result| match result {
        Ok(_) => ticket.answer(replier.done()),
        Err(error) => ticket.fail(failure(replier, &error)),
    };
    device.submit(operation, Box::new(finish));
}

fn read(device: &dyn BlockDevice, offset: u64, length: u64, whole: bool, replier: Replier, ticket: Ticket) {
    let whole = whole || replier.format == crate::wire::reply::ReplyFormat::Simple;
    let finish = move |result| match result {
        Ok(Outcome::Data(pieces)) if total(&pieces) == length => {
            let segments = if whole {
                vec![Segment::Data(pieces)]
            } else {
                zeros::segments(pieces)
            };
            ticket.answer(replier.data(segments));
        }
        Ok(_) => ticket.fail(replier.error(Errno::Io, "the volume gave another length than asked", None)),
        Err(error) => ticket.fail(failure(replier, &error)),
    };
    device.submit(Operation::Read { offset, length }, Box::new(finish));
}

fn total(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Runs a task of several operations beside the others.
fn background<T: 'static>(
    work: impl Future<Output = Result<T, DeviceError>> + 'static,
    encode: impl FnOnce(T) -> Vec<Bytes> + 'static,
    replier: Replier,
    ticket: Ticket,
) {
    tokio::task::spawn_local(async move {
        match work.await {
            Ok(value) => ticket.answer(encode(value)),
            Err(error) => ticket.fail(failure(replier, &error)),
        }
    });
}

/// Zeros that are written as bytes in one go: an object's size, so that one operation is one message.
const ZERO_STEP: u64 = protocol::OBJECT_SIZE as u64;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Writes zeros as bytes, because the client wants their space kept.
async fn write_zeros(device: Rc<dyn BlockDevice>, offset: u64, length: u64) -> Result<(), DeviceError> {
    let end = offset + length;
    let mut at = offset;
    while at < end {
        let stop = end.min((at / ZERO_STEP + 1) * ZERO_STEP);
        let mut data = Vec::new();
        let mut left = stop - at;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(ZEROS.len()).min(ZEROS.len());
            data.push(Bytes::from_static(&ZEROS[..piece]));
            left -= piece as u64;
        }
        perform(&*device, Operation::Write { offset: at, data }).await?;
        at = stop;
    }
    Ok(())
}

/// What the first question about a range covers, in bytes: 16 objects, one message to each.
const MAP_STEP_FIRST: u64 = 16 * protocol::OBJECT_SIZE as u64;
/// What one question covers at most, in bytes: 256 objects. Questions grow while nothing is found.
const MAP_STEP_MAX: u64 = 256 * protocol::OBJECT_SIZE as u64;
/// Extents in one answer: 64 KiB of them in the longer layout. A client asks again for the rest.
const EXTENTS_MAX: usize = 4096;

/// Tells what a range holds, from its start: the whole range, or as much as one answer may hold.
async fn status(
    device: Rc<dyn BlockDevice>,
    offset: u64,
    length: u64,
    one: bool,
) -> Result<Vec<Extent>, DeviceError> {
    let limit = if one { 1 } else { EXTENTS_MAX };
    let mut extents = Vec::new();
    let (mut done, mut step) = (0, MAP_STEP_FIRST);
    while done < length {
        let ask = step.min(length - done);
        let Outcome::Map(runs) = perform(
            &*device,
            Operation::Map {
                offset: offset + done,
                length: ask,
            },
        )
        .await?
        else {
            return Err(DeviceError::Closed);
        };
        for (run, kind) in runs {
            if !append(&mut extents, run, state(kind), limit) {
                return Ok(extents);
            }
        }
        done += ask;
        step = MAP_STEP_MAX.min(step * 2);
    }
    Ok(extents)
}

/// Adds a run, or says that the answer is full.
fn append(extents: &mut Vec<Extent>, length: u64, state: u32, limit: usize) -> bool {
    let room = extents.len() < limit;
    match extents.last_mut() {
        Some(last) if last.1 == state => last.0 += length,
        _ if room => extents.push((length, state)),
        _ => return false,
    }
    true
}

fn state(kind: MapKind) -> u32 {
    match kind {
        MapKind::Data => 0,
        // Zeros that were written hold no space either.
        MapKind::Zero | MapKind::Hole => STATE_HOLE | STATE_ZERO,
    }
}

fn failure(replier: Replier, error: &DeviceError) -> Vec<Bytes> {
    let (errno, at) = match error {
        DeviceError::Invalid { .. } | DeviceError::NotComparable => (Errno::Invalid, None),
        DeviceError::ReadOnly => (Errno::NotPermitted, None),
        DeviceError::Damaged { offset } => (Errno::Io, Some(*offset)),
        DeviceError::NotKnown | DeviceError::OlderOwner | DeviceError::Contended { .. } => (Errno::Io, None),
        DeviceError::Full => (Errno::NoSpace, None),
        DeviceError::Lost | DeviceError::Closed => (Errno::Shutdown, None),
    };
    replier.error(errno, &error.to_string(), at)
}
