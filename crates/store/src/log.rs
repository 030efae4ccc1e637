//! The write-ahead log: a ring of batches, of which one is written at a time while the next gathers.
//!
//! Knows where in the ring a batch goes and when it fits; knows nothing of what records mean, and
//! does no I/O. Positions grow for ever; a position's place in the file is its remainder by the
//! ring's length. A batch is never split: one that does not fit before the end begins at the start.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::format::batch::{self, HEADER, UNIT};
use crate::format::entry::LogStart;
use crate::format::record::Record;

/// The most data in one batch that gathered several requests, in bytes. Batches beyond this only
/// make the first of their waiters wait longer. A single request may be larger.
const BATCH_BYTES_MAX: u64 = 1 << 20;
/// The most pieces in one write: half of what the kernel takes.
const BATCH_PIECES_MAX: usize = 500;
/// Records of a batch end here if there are more, so that one more of the largest still fits.
const BATCH_RECORD_BYTES: usize = 64 * 1024;
/// Kept free for the seal of a checkpoint, without which nothing would ever become free.
const SEAL_BYTES: u64 = 2 * UNIT as u64;

/// Who waits for an answer, and how much of the bytes in flight is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) token: u64,
    pub(crate) bytes: u64,
}

/// Records that are written and become durable together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) sequence: u64,
    records: Vec<u8>,
    count: u32,
    pieces: Vec<Bytes>,
    blocks: u32,
    /// Answered when the batch is durable.
    pub(crate) waiters: Vec<Waiter>,
    /// Writes straight to slots that the batch's records speak of and that are not yet durable.
    direct_left: usize,
    written: bool,
}

impl Batch {
    fn bytes(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let head = (HEADER + self.records.len()).next_multiple_of(UNIT);
        head as u64 + u64::from(self.blocks) * UNIT as u64
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The ring and its batches.
#[derive(Debug)]
pub(crate) struct Log {
    serial: [u8; 16],
    length: u64,
    /// The first position that a recovery would read.
    start: u64,
    /// The position of the next batch.
    head: u64,
    open: Batch,
    closed: VecDeque<Batch>,
    writing: Option<Batch>,
    /// All batches up to this one are durable.
    durable: u64,
    /// The newest batch that is nothing but a seal.
    sealed: u64,
}

/// A write that the caller is to make durable.
pub(crate) struct LogWrite {
    pub(crate) offset: u64,
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) bytes: u64,
}

impl Log {
    /// A log whose next batch is `sequence`, to be written at position `head`.
    pub(crate) fn new(serial: [u8; 16], length: u64, start: u64, head: u64, sequence: u64) -> Self {
        Self {
            serial,
            length,
            start,
            head,
            open: Batch {
                sequence,
                ..Batch::default()
            },
            closed: VecDeque::new(),
            writing: None,
            durable: sequence - 1,
            sealed: 0,
        }
    }

    /// The batch that the next record goes into.
    pub(crate) fn gathering(&self) -> u64 {
        self.open.sequence
    }

    /// The newest durable batch.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// The newest batch that has a record.
    pub(crate) fn newest(&self) -> u64 {
        if self.open.is_empty() {
            self.open.sequence - 1
        } else {
            self.open.sequence
        }
    }

    /// Bytes that a recovery would read.
    pub(crate) fn used(&self) -> u64 {
        self.head - self.start
    }

    /// The ring's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The largest batch that the ring takes: a quarter, so that what is lost at its end when a
    /// batch does not fit there is bounded.
    pub(crate) fn batch_max(&self) -> u64 {
        self.length / 4
    }

    /// What may be in use before a checkpoint must make room.
    pub(crate) fn usable(&self) -> u64 {
        self.length - self.batch_max() - SEAL_BYTES
    }

    /// Bytes in use once all that is gathered is written.
    pub(crate) fn promised(&self) -> u64 {
        self.used() + self.closed.iter().map(Batch::bytes).sum::<u64>() + self.open.bytes()
    }

    /// Whether a request with so much surely finds room, without waiting for a checkpoint.
    pub(crate) fn has_room(&self, blocks: u64, record_bytes: u64) -> bool {
        let more = blocks * UNIT as u64 + record_bytes + 2 * UNIT as u64;
        self.promised() + more <= self.usable()
    }

    /// Adds a record, the inline blocks that go with it, and who waits for it.
    pub(crate) fn append(&mut self, record: &Record, pieces: &[Bytes], waiter: Option<Waiter>) {
        record.encode(&mut self.open.records);
        self.open.count += 1;
        for piece in pieces {
            self.open.blocks += u32::try_from(piece.len() / UNIT).unwrap_or(u32::MAX);
            self.open.pieces.push(piece.clone());
        }
        self.open.waiters.extend(waiter);
        let full = self.open.bytes() >= BATCH_BYTES_MAX.min(self.batch_max() / 3)
            || self.open.pieces.len() >= BATCH_PIECES_MAX
            || self.open.records.len() >= BATCH_RECORD_BYTES;
        if full {
            self.close();
        }
    }

    /// Answers `waiter` together with all that was accepted up to now. False if that is durable.
    pub(crate) fn wait_for_newest(&mut self, waiter: Waiter) -> bool {
        if !self.open.is_empty() {
            self.open.waiters.push(waiter);
        } else if let Some(batch) = self.closed.back_mut() {
            batch.waiters.push(waiter);
        } else if let Some(batch) = &mut self.writing {
            batch.waiters.push(waiter);
        } else {
            return false;
        }
        true
    }

    fn close(&mut self) {
        let next = Batch {
            sequence: self.open.sequence + 1,
            ..Batch::default()
        };
        self.closed.push_back(std::mem::replace(&mut self.open, next));
    }

    /// Appends a batch that is nothing but a seal, unless the newest one is just that: its number.
    pub(crate) fn seal(&mut self) -> u64 {
        if self.newest() == self.sealed && self.sealed != 0 {
            return self.sealed;
        }
        if !self.open.is_empty() {
            self.close();
        }
        self.sealed = self.open.sequence;
        Record::Seal.encode(&mut self.open.records);
        self.open.count = 1;
        self.close();
        self.sealed
    }

    /// Notes that the newest batch, which a recovery read, is nothing but a seal.
    pub(crate) fn found_sealed(&mut self) {
        self.sealed = self.durable;
    }

    /// Another direct write for the gathering batch.
    pub(crate) fn add_direct(&mut self) {
        self.open.direct_left += 1;
    }

    /// A direct write of a batch is durable. Tells the batch that is complete with it.
    pub(crate) fn direct_done(&mut self, sequence: u64) -> Option<Batch> {
        let batches = self
            .writing
            .iter_mut()
            .chain(&mut self.closed)
            .chain([&mut self.open]);
        for batch in batches {
            if batch.sequence == sequence {
                batch.direct_left -= 1;
            }
        }
        self.take_complete()
    }

    /// The write that [`Log::next_write`] gave is durable. Tells the batch that is complete with it.
    pub(crate) fn written(&mut self) -> Option<Batch> {
        if let Some(batch) = &mut self.writing {
            batch.written = true;
        }
        self.take_complete()
    }

    fn take_complete(&mut self) -> Option<Batch> {
        let batch = self
            .writing
            .take_if(|batch| batch.written && batch.direct_left == 0)?;
        self.durable = batch.sequence;
        Some(batch)
    }

    /// The next batch to write, if none is being written and something was gathered.
    pub(crate) fn next_write(&mut self) -> Option<LogWrite> {
        if self.writing.is_some() {
            return None;
        }
        if self.closed.is_empty() && !self.open.is_empty() {
            self.close();
        }
        let mut batch = self.closed.pop_front()?;
        let bytes = batch.bytes();
        let place = self.head % self.length;
        if self.length - place < bytes {
            self.head += self.length - place;
        }
        let offset = self.head % self.length;
        self.head += bytes;
        debug_assert!(self.used() <= self.length, "the log overtakes itself");
        let head = batch::encode_head(
            self.serial,
            batch.sequence,
            offset,
            &batch.records,
            batch.count,
            batch.blocks,
        );
        batch.records = Vec::new();
        let mut pieces = Vec::with_capacity(batch.pieces.len() + 1);
        pieces.push(head);
        pieces.append(&mut batch.pieces);
        self.writing = Some(batch);
        Some(LogWrite {
            offset,
            pieces,
            bytes,
        })
    }

    /// Where a recovery would have to begin if all written batches were in the tables.
    pub(crate) fn start_after_written(&self) -> (u64, LogStart) {
        (
            self.head,
            LogStart {
                offset: self.head % self.length,
                sequence: self.durable + 1,
            },
        )
    }

    /// All before this position is in the tables.
    pub(crate) fn free_up_to(&mut self, position: u64) {
        self.start = position;
    }

    /// All that wait, when the disk goes out of service.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waiter> {
        let batches = self
            .writing
            .iter_mut()
            .chain(&mut self.closed)
            .chain([&mut self.open]);
        batches
            .flat_map(|batch| std::mem::take(&mut batch.waiters))
            .collect()
    }

    /// Whether anything is gathered or being written.
    pub(crate) fn is_busy(&self) -> bool {
        self.writing.is_some() || !self.closed.is_empty() || !self.open.is_empty()
    }
}
