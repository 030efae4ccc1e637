//! One descriptor chain: the buffers in guest memory that a request consists of.
//!
//! A chain is read once, into a list of segments; what was checked is what is used, whatever the
//! guest writes into its descriptors afterwards. This module knows nothing of block requests.

use bytes::Bytes;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes as _, GuestAddress, GuestMemoryBackend as _};

use crate::config_space::QUEUE_SIZE_MAX;
use crate::guest_memory::GuestMap;

/// The most buffers of one chain. Indirect tables may hold 65535; no driver sends more buffers than
/// a queue has entries, and each costs memory here for as long as the request lasts.
pub const SEGMENTS_MAX: usize = QUEUE_SIZE_MAX as usize;
/// Bytes of one descriptor.
const DESCRIPTOR_BYTES: u64 = 16;

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
    /// Walks the chain that begins with descriptor `head` to its end. The table has `entries` descriptors.
    ///
    /// The walk is our own, as `virtio-queue` gives chains out of the available ring only, and a request that
    /// a former process has taken is not there any more.
    pub fn collect(
        memory: &GuestMap,
        table: GuestAddress,
        entries: u16,
        head: u16,
    ) -> Result<Self, ChainError> {
        let mut walk = Walk::new(memory, table, entries, head);
        let mut segments = Vec::new();
        let mut readable = 0;
        while let Some(descriptor) = walk.next()? {
            if segments.len() == SEGMENTS_MAX {
                return Err(ChainError::TooLong);
            }
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
        if buffers.writable_bytes() == 0 {
            return Err(ChainError::NoStatus);
        }
        Ok(buffers)
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

/// A way through a table of descriptors, and at most one indirect table.
struct Walk<'a> {
    memory: &'a GuestMap,
    table: GuestAddress,
    entries: u16,
    /// The next descriptor; none behind the last one.
    next: Option<u16>,
    /// Descriptors that may still come: a chain that runs in a circle has more than its table.
    left: u16,
    indirect: bool,
}

impl<'a> Walk<'a> {
    fn new(memory: &'a GuestMap, table: GuestAddress, entries: u16, head: u16) -> Self {
        Self {
            memory,
            table,
            entries,
            next: Some(head),
            left: entries,
            indirect: false,
        }
    }

    fn next(&mut self) -> Result<Option<Descriptor>, ChainError> {
        let Some(index) = self.next else { return Ok(None) };
        let descriptor = self.read(index)?;
        let descriptor = if descriptor.refers_to_indirect_table() {
            self.enter(descriptor)?;
            let first = self.read(0)?;
            if first.refers_to_indirect_table() {
                return Err(ChainError::Endless);
            }
            first
        } else {
            descriptor
        };
        self.next = descriptor.has_next().then(|| descriptor.next());
        Ok(Some(descriptor))
    }

    fn read(&mut self, index: u16) -> Result<Descriptor, ChainError> {
        self.left = self.left.checked_sub(1).ok_or(ChainError::Endless)?;
        if index >= self.entries {
            return Err(ChainError::Endless);
        }
        let at = self
            .table
            .checked_add(u64::from(index) * DESCRIPTOR_BYTES)
            .ok_or(ChainError::Endless)?;
        self.memory.read_obj(at).map_err(|_| ChainError::Endless)
    }

    fn enter(&mut self, descriptor: Descriptor) -> Result<(), ChainError> {
        let length = u64::from(descriptor.len());
        let entries = u16::try_from(length / DESCRIPTOR_BYTES).map_err(|_| ChainError::Endless)?;
        if self.indirect || !length.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(ChainError::Endless);
        }
        self.table = descriptor.addr();
        (self.entries, self.left, self.indirect) = (entries, entries, true);
        Ok(())
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
