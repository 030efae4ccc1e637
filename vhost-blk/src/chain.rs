//! One descriptor chain: the buffers in guest memory that a request consists of.
//!
//! A chain is read once, into a list of segments; what was checked is what is used, whatever the
//! guest writes into its descriptors afterwards. This module knows nothing of block requests.

use std::ops::Deref;

use bytes::Bytes;
use virtio_queue::DescriptorChain;
use vm_memory::{Address, Bytes as _, GuestAddress, GuestMemoryBackend as _};

use crate::config_space::QUEUE_SIZE_MAX;
use crate::guest_memory::GuestMap;

/// The most buffers of one chain. Indirect tables may hold 65535; no driver sends more buffers than
/// a queue has entries, and each costs memory here for as long as the request lasts.
pub const SEGMENTS_MAX: usize = QUEUE_SIZE_MAX as usize;

/// Why a chain cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It ends in the air, runs in a circle, or its indirect table is not one.
    #[error("the descriptor chain has no proper end")]
    Endless,
    /// It has more buffers than [`SEGMENTS_MAX`].
    #[error("the descriptor chain has more than {SEGMENTS_MAX} buffers")]
    TooLong,
    /// Buffers to read come after buffers to write.
    #[error("the descriptor chain has a readable buffer behind a writable one")]
    Disordered,
    /// No buffer is writable, so there is no place for an answer.
    #[error("the descriptor chain has no room for a status")]
    NoStatus,
    /// A buffer is not in guest memory.
    #[error("a buffer lies outside guest memory")]
    Outside,
}

/// A buffer in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    length: u32,
}

/// The buffers of a chain: first those that the device reads, then those that it writes.
#[derive(Clone, Debug)]
pub struct Buffers {
    segments: Vec<Segment>,
    readable: usize,
}

impl Buffers {
    /// Walks a chain to its end.
    pub fn collect<M>(mut chain: DescriptorChain<M>) -> Result<Self, ChainError>
    where
        M: Deref<Target = GuestMap>,
    {
        let mut segments = Vec::new();
        let mut readable = 0;
        // The iterator of virtio-queue ends silently at a bad link; a chain that it followed to the
        // end is one whose last descriptor names no next one.
        let mut ended = false;
        for descriptor in chain.by_ref() {
            if segments.len() == SEGMENTS_MAX {
                return Err(ChainError::TooLong);
            }
            ended = !descriptor.has_next();
            if !descriptor.is_write_only() {
                if readable != segments.len() {
                    return Err(ChainError::Disordered);
                }
                readable += 1;
            }
            segments.push(Segment {
                address: descriptor.addr(),
                length: descriptor.len(),
            });
        }
        let buffers = Self { segments, readable };
        match ended {
            false => Err(ChainError::Endless),
            true if buffers.writable_bytes() == 0 => Err(ChainError::NoStatus),
            true => Ok(buffers),
        }
    }

    /// Bytes that the device may read.
    pub fn readable_bytes(&self) -> u64 {
        total(self.readable())
    }

    /// Bytes that the device may write, the status included: never zero.
    pub fn writable_bytes(&self) -> u64 {
        total(self.writable())
    }

    /// Copies readable bytes from `skip` on out of guest memory, until `into` is full.
    pub fn copy_out(&self, memory: &GuestMap, skip: u64, into: &mut [u8]) -> Result<(), ChainError> {
        let mut rest = into;
        for segment in parts(self.readable(), skip) {
            let length = rest.len().min(segment.length as usize);
            let (now, later) = rest.split_at_mut(length);
            memory
                .read_slice(now, segment.address)
                .map_err(|_| ChainError::Outside)?;
            rest = later;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(ChainError::Outside)
        }
    }

    /// Whether all readable buffers lie in guest memory.
    pub fn readable_is_inside(&self, memory: &GuestMap) -> bool {
        let inside = |segment: &Segment| memory.check_range(segment.address, segment.length as usize);
        self.readable().iter().all(inside)
    }

    /// Copies `pieces`, one after the other, into the writable buffers. They fit, or nothing is
    /// promised about what was copied.
    pub fn copy_in(&self, memory: &GuestMap, pieces: &[Bytes]) -> Result<(), ChainError> {
        let mut targets = self
            .writable()
            .iter()
            .copied()
            .filter(|segment| segment.length > 0);
        let mut target = Segment {
            address: GuestAddress(0),
            length: 0,
        };
        for piece in pieces {
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                if target.length == 0 {
                    target = targets.next().ok_or(ChainError::Outside)?;
                }
                let length = rest.len().min(target.length as usize);
                let (now, later) = rest.split_at(length);
                memory
                    .write_slice(now, target.address)
                    .map_err(|_| ChainError::Outside)?;
                target = advanced(target, length)?;
                rest = later;
            }
        }
        Ok(())
    }

    /// Writes the status: the last writable byte.
    pub fn write_status(&self, memory: &GuestMap, status: u8) -> Result<(), ChainError> {
        let last = self
            .writable()
            .iter()
            .rev()
            .find(|segment| segment.length > 0)
            .ok_or(ChainError::NoStatus)?;
        let at = last
            .address
            .checked_add(u64::from(last.length) - 1)
            .ok_or(ChainError::Outside)?;
        memory.write_obj(status, at).map_err(|_| ChainError::Outside)
    }

    fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or_default()
    }
}

fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.length)).sum()
}

/// The segments without their first `skip` bytes.
fn parts(segments: &[Segment], mut skip: u64) -> impl Iterator<Item = Segment> {
    segments.iter().filter_map(move |segment| {
        let gone = skip.min(u64::from(segment.length));
        skip -= gone;
        let gone = usize::try_from(gone).ok()?;
        advanced(*segment, gone).ok().filter(|segment| segment.length > 0)
    })
}

fn advanced(segment: Segment, by: usize) -> Result<Segment, ChainError> {
    let by = u32::try_from(by).map_err(|_| ChainError::Outside)?;
    let length = segment.length.checked_sub(by).ok_or(ChainError::Outside)?;
    // The address just past the last byte of all memory is no error as long as nobody uses it.
    let address = GuestAddress(segment.address.raw_value().wrapping_add(u64::from(by)));
    Ok(Segment { address, length })
}
