//! What any device checks about an operation before it starts it, and calls that await the answer.

use bytes::{Bytes, BytesMut};
use protocol::storage::MapKind;
use protocol::{BLOCK_SIZE, OBJECT_SIZE};
use tokio::sync::oneshot;

use crate::device::{BlockDevice, COMPARE_MAX, Continuation, DeviceError, DeviceInfo, Operation, Outcome};

impl Operation {
    /// First byte and length in bytes; nothing for a flush. A length that no device has, because
    /// the pieces of a write add up to more than a number can hold, comes out as the largest.
    pub fn area(&self) -> Option<(u64, u64)> {
        match self {
            Self::Read { offset, length }
            | Self::WriteZeroes { offset, length }
            | Self::Discard { offset, length }
            | Self::Map { offset, length } => Some((*offset, *length)),
            Self::Write { offset, data } => {
                let length = data
                    .iter()
                    .fold(0u64, |sum, piece| sum.saturating_add(piece.len() as u64));
                Some((*offset, length))
            }
            Self::CompareAndWrite { offset, data, .. } => Some((*offset, data.len() as u64)),
            Self::Flush => None,
        }
    }

    /// Whether it changes what is read afterwards.
    pub fn is_change(&self) -> bool {
        matches!(
            self,
            Self::Write { .. }
                | Self::WriteZeroes { .. }
                | Self::Discard { .. }
                | Self::CompareAndWrite { .. }
        )
    }
}

/// Refuses what no device may start: not aligned, empty, beyond the end, or a change of a device
/// that is read only.
pub fn check(operation: &Operation, info: &DeviceInfo) -> Result<(), DeviceError> {
    if operation.is_change() && info.read_only {
        return Err(DeviceError::ReadOnly);
    }
    let Some((offset, length)) = operation.area() else {
        return Ok(());
    };
    let alignment = u64::from(info.alignment);
    let aligned = offset.is_multiple_of(alignment) && length.is_multiple_of(alignment) && length > 0;
    let inside = offset.checked_add(length).is_some_and(|end| end <= info.size);
    if !aligned || !inside {
        return Err(DeviceError::Invalid { size: info.size });
    }
    match operation {
        Operation::CompareAndWrite { expected, data, .. }
            if expected.len() != data.len() || !is_comparable(offset, length) =>
        {
            Err(DeviceError::NotComparable)
        }
        _ => Ok(()),
    }
}

/// Whether a range may be compared and written at once. It is not empty, and its end is a number.
fn is_comparable(offset: u64, length: u64) -> bool {
    let (block, object) = (u64::from(BLOCK_SIZE), u64::from(OBJECT_SIZE));
    let last = offset + length - 1;
    let blocks = last / block - offset / block + 1;
    offset / object == last / object && blocks * block <= u64::from(COMPARE_MAX)
}

/// Where two texts of the same length differ first; nothing if they are the same. What is missing of one differs.
pub(crate) fn first_difference(found: &[u8], expected: &[u8]) -> Option<u64> {
    // Equality of whole slices is much faster than a walk, and is what mostly comes out.
    if found == expected {
        return None;
    }
    let differs = found
        .iter()
        .zip(expected)
        .position(|(found, expected)| found != expected);
    Some(differs.unwrap_or(found.len().min(expected.len())) as u64)
}

/// Starts an operation and awaits its answer.
pub async fn perform(device: &dyn BlockDevice, operation: Operation) -> Result<Outcome, DeviceError> {
    answered(|done| device.submit(operation, done)).await
}

/// Starts something and awaits what its continuation is told.
pub(crate) async fn answered(start: impl FnOnce(Continuation)) -> Result<Outcome, DeviceError> {
    let (answer, answered) = oneshot::channel();
    start(Box::new(move |outcome| {
        // Nobody waits any more if the caller's future was dropped.
        let _ = answer.send(outcome);
    }));
    answered.await.unwrap_or(Err(DeviceError::Closed))
}

/// Reads `length` bytes from `offset` as one piece.
pub async fn read(device: &dyn BlockDevice, offset: u64, length: u64) -> Result<Bytes, DeviceError> {
    match perform(device, Operation::Read { offset, length }).await? {
        Outcome::Data(pieces) => Ok(joined(pieces)),
        Outcome::Done | Outcome::Map(_) | Outcome::Differs { .. } => Err(DeviceError::Closed),
    }
}

/// Writes `data` at `offset`; durable when it returns.
pub async fn write(device: &dyn BlockDevice, offset: u64, data: Bytes) -> Result<(), DeviceError> {
    perform(
        device,
        Operation::Write {
            offset,
            data: vec![data],
        },
    )
    .await
    .map(drop)
}

/// Writes `data` at `offset` if `expected` is there. Gives the byte that differs first if it is not.
pub async fn compare_and_write(
    device: &dyn BlockDevice,
    offset: u64,
    expected: Bytes,
    data: Bytes,
) -> Result<Option<u64>, DeviceError> {
    let operation = Operation::CompareAndWrite {
        offset,
        expected,
        data,
    };
    match perform(device, operation).await? {
        Outcome::Done => Ok(None),
        Outcome::Differs { offset } => Ok(Some(offset)),
        Outcome::Data(_) | Outcome::Map(_) => Err(DeviceError::Closed),
    }
}

/// Makes a range read as zeros and gives its space back.
pub async fn discard(device: &dyn BlockDevice, offset: u64, length: u64) -> Result<(), DeviceError> {
    perform(device, Operation::Discard { offset, length })
        .await
        .map(drop)
}

/// Makes a range read as zeros.
pub async fn write_zeroes(device: &dyn BlockDevice, offset: u64, length: u64) -> Result<(), DeviceError> {
    perform(device, Operation::WriteZeroes { offset, length })
        .await
        .map(drop)
}

/// Waits until all writes that were submitted before are durable.
pub async fn flush(device: &dyn BlockDevice) -> Result<(), DeviceError> {
    perform(device, Operation::Flush).await.map(drop)
}

/// Which parts of a range hold data: lengths in bytes and kinds, in order.
pub async fn map(
    device: &dyn BlockDevice,
    offset: u64,
    length: u64,
) -> Result<Vec<(u64, MapKind)>, DeviceError> {
    match perform(device, Operation::Map { offset, length }).await? {
        Outcome::Map(runs) => Ok(runs),
        Outcome::Done | Outcome::Data(_) | Outcome::Differs { .. } => Err(DeviceError::Closed),
    }
}

/// The pieces of a read as one; copies only if there are several.
pub fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    whole.freeze()
}
