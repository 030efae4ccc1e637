//! Requests in flight, in memory that outlives this process: the region of vhost-user's "inflight I/O
//! tracking", for split rings.
//!
//! The front end keeps the region and gives it to the next process. Each queue has a log in it that says
//! which heads were taken and not answered. The order of the stores is what makes every instant of a death
//! harmless; `docs/protocol/vhost-user-blk.md` goes through them one by one.
//!
//! Nobody else writes to the region while a process has it. The kernel ends a process between two of its
//! instructions, so what the next one sees is a prefix of the stores in program order; `Release` keeps the
//! compiler from changing that order. Whatever is read back may nevertheless be anything, as the front end
//! could have written to it: it is checked, and a log that contradicts itself is an error.
//!
//! This module knows nothing of requests and does not touch the ring.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicAccess, Bytes as _, FileOffset, MmapRegion, VolatileMemory as _};

use crate::config_space::{QUEUE_SIZE_MAX, QUEUES_MAX};

/// The only layout there is. Zero, as in new memory, says that nothing was written yet.
const VERSION: u16 = 1;
/// Each queue's log begins at a multiple of this, as in the implementations that others wrote.
const ALIGNMENT: usize = 64;

// The header of a log: features (8 bytes, none defined), then four numbers of two bytes.
const VERSION_AT: usize = 8;
const ENTRIES_AT: usize = 10;
const LAST_BATCH_HEAD_AT: usize = 12;
const USED_INDEX_AT: usize = 14;
const HEADER_BYTES: usize = 16;

// An entry, one a descriptor: in flight (1 byte), padding (5), next (2), counter (8).
const NEXT_IN_ENTRY: usize = 6;
const COUNTER_IN_ENTRY: usize = 8;
const ENTRY_BYTES: usize = 16;

/// Why a region or a log in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InflightError {
    /// The region that the front end gave is not one that this program could have made.
    #[error("the front end's region for requests in flight is impossible: {0}")]
    Region(&'static str),
    /// The region cannot be mapped.
    #[error("cannot map the region for requests in flight")]
    Map(#[source] io::Error),
    /// A log says what cannot be.
    #[error("the log of requests in flight contradicts itself or the ring: {0}")]
    Contradiction(&'static str),
    /// An access outside the mapping: a defect of this module.
    #[error("the log of requests in flight ends too early")]
    Outside,
}

impl From<InflightError> for vhost::vhost_user::Error {
    fn from(error: InflightError) -> Self {
        Self::ReqHandlerError(io::Error::other(error))
    }
}

/// The logs of all queues, mapped.
#[derive(Clone, Debug)]
pub struct Region {
    mapping: Arc<MmapRegion<()>>,
    queues: u16,
    entries: u16,
}

impl Region {
    /// Memory for a new region, as the front end is given it; it comes back with [`Region::map`].
    pub fn create(queues: u16, entries: u16) -> Result<(VhostUserInflight, File), InflightError> {
        let bytes = check(queues, entries)?;
        let make = || {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = File::from(rustix::fs::memfd_create("vhost-blk-inflight", flags)?);
            file.set_len(bytes as u64)?;
            // Whoever maps it can rely on its length.
            rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
            Ok(file)
        };
        let file = make().map_err(InflightError::Map)?;
        Ok((VhostUserInflight::new(bytes as u64, 0, queues, entries), file))
    }

    /// Maps a region that this process or a former one has made.
    pub fn map(described: &VhostUserInflight, file: File) -> Result<Self, InflightError> {
        let (queues, entries) = (described.num_queues, described.queue_size);
        let bytes = check(queues, entries)?;
        if described.mmap_size < bytes as u64 {
            return Err(InflightError::Region(
                "it is too small for its queues and their entries",
            ));
        }
        // Behind the end of its file a mapping kills the process that looks there.
        let length = file.metadata().map_err(InflightError::Map)?.len();
        let end = described.mmap_offset.checked_add(bytes as u64);
        if end.is_none_or(|end| end > length) {
            return Err(InflightError::Region("its file ends before it does"));
        }
        let mapping = MmapRegion::from_file(FileOffset::new(file, described.mmap_offset), bytes)
            .map_err(|error| InflightError::Map(io::Error::other(error.to_string())))?;
        Ok(Self {
            mapping: Arc::new(mapping),
            queues,
            entries,
        })
    }

    /// The log of a queue, if the region has one for it.
    pub fn log(&self, queue: u16) -> Option<Log> {
        (queue < self.queues).then(|| Log {
            mapping: Arc::clone(&self.mapping),
            base: usize::from(queue) * stride(self.entries),
            entries: self.entries,
            counter: Cell::new(0),
        })
    }
}

fn stride(entries: u16) -> usize {
    (HEADER_BYTES + usize::from(entries) * ENTRY_BYTES).next_multiple_of(ALIGNMENT)
}

/// The length of a region in bytes.
fn check(queues: u16, entries: u16) -> Result<usize, InflightError> {
    if queues == 0 || queues > QUEUES_MAX {
        return Err(InflightError::Region(
            "it has no queues, or more than this device",
        ));
    }
    if entries == 0 || entries > QUEUE_SIZE_MAX {
        return Err(InflightError::Region(
            "its queues have no entries, or more than 1024",
        ));
    }
    Ok(usize::from(queues) * stride(entries))
}

/// Which requests of one queue are in flight.
#[derive(Debug)]
pub struct Log {
    mapping: Arc<MmapRegion<()>>,
    base: usize,
    entries: u16,
    /// What the next request that is taken is numbered with.
    counter: Cell<u64>,
}

impl Log {
    /// Brings the log up to the ring, whose used index is `used` and which has `size` entries, and gives the
    /// heads that were taken and not answered, in the order in which they were taken.
    pub fn recover(&self, used: u16, size: u16) -> Result<Vec<u16>, InflightError> {
        if size > self.entries {
            return Err(InflightError::Contradiction("the ring has more entries"));
        }
        match self.load::<u16>(VERSION_AT)? {
            0 => {
                self.begin(used)?;
                Ok(Vec::new())
            }
            VERSION if self.load::<u16>(ENTRIES_AT)? == self.entries => {
                self.settle(used)?;
                self.heads(size)
            }
            VERSION => Err(InflightError::Contradiction("it is for another size of queue")),
            _ => Err(InflightError::Contradiction("it is of an unknown version")),
        }
    }

    /// Whether a former process has left anything in it, as far as can be told without the ring.
    pub fn is_empty(&self) -> Result<bool, InflightError> {
        for head in 0..self.entries {
            if self.load::<u8>(self.entry(head)?)? != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A head is taken from the ring, and nothing was done for it yet.
    pub fn take(&self, head: u16) -> Result<(), InflightError> {
        let entry = self.entry(head)?;
        let counter = self.counter.get();
        // No queue lives to see 2^64 requests; a front end that sets a counter to the end gets ties.
        self.counter.set(counter.saturating_add(1));
        self.store(entry + COUNTER_IN_ENTRY, counter)?;
        self.store(entry, 1u8)
    }

    /// The used index is about to be raised by one, for this head.
    pub fn publishing(&self, head: u16) -> Result<(), InflightError> {
        let last: u16 = self.load(LAST_BATCH_HEAD_AT)?;
        self.store(self.entry(head)? + NEXT_IN_ENTRY, last)?;
        self.store(LAST_BATCH_HEAD_AT, head)
    }

    /// The used index is `used` now, which answered this head.
    pub fn published(&self, head: u16, used: u16) -> Result<(), InflightError> {
        self.store(self.entry(head)?, 0u8)?;
        self.store(USED_INDEX_AT, used)
    }

    /// A log that nobody has used. The version comes last: without it all is done again.
    fn begin(&self, used: u16) -> Result<(), InflightError> {
        for head in 0..self.entries {
            self.store(self.entry(head)?, 0u8)?;
        }
        self.store(ENTRIES_AT, self.entries)?;
        self.store(LAST_BATCH_HEAD_AT, 0u16)?;
        self.store(USED_INDEX_AT, used)?;
        self.store(VERSION_AT, VERSION)
    }

    /// Takes those out of flight that the ring says are answered. All of it may be done twice.
    fn settle(&self, used: u16) -> Result<(), InflightError> {
        let missing = used.wrapping_sub(self.load(USED_INDEX_AT)?);
        if missing > self.entries {
            return Err(InflightError::Contradiction(
                "the used index is not one that it could have led to",
            ));
        }
        let mut head = self.load(LAST_BATCH_HEAD_AT)?;
        for _ in 0..missing {
            let entry = self.entry(head)?;
            self.store(entry, 0u8)?;
            head = self.load(entry + NEXT_IN_ENTRY)?;
        }
        self.store(USED_INDEX_AT, used)
    }

    fn heads(&self, size: u16) -> Result<Vec<u16>, InflightError> {
        let mut found = Vec::new();
        for head in 0..self.entries {
            let entry = self.entry(head)?;
            if self.load::<u8>(entry)? == 0 {
                continue;
            }
            if head >= size {
                return Err(InflightError::Contradiction(
                    "a descriptor is in flight that the ring has not",
                ));
            }
            found.push((self.load::<u64>(entry + COUNTER_IN_ENTRY)?, head));
        }
        found.sort_unstable();
        let next = found.last().map_or(0, |(last, _)| last.saturating_add(1));
        self.counter.set(next);
        Ok(found.into_iter().map(|(_, head)| head).collect())
    }

    fn entry(&self, head: u16) -> Result<usize, InflightError> {
        if head >= self.entries {
            return Err(InflightError::Contradiction(
                "it names a descriptor that does not exist",
            ));
        }
        Ok(HEADER_BYTES + usize::from(head) * ENTRY_BYTES)
    }

    fn load<T: AtomicAccess>(&self, at: usize) -> Result<T, InflightError> {
        self.mapping
            .as_volatile_slice()
            .load(self.base + at, Ordering::Acquire)
            .map_err(|_| InflightError::Outside)
    }

    fn store<T: AtomicAccess>(&self, at: usize, value: T) -> Result<(), InflightError> {
        self.mapping
            .as_volatile_slice()
            .store(value, self.base + at, Ordering::Release)
            .map_err(|_| InflightError::Outside)
    }
}

#[cfg(test)]
mod tests;
