//! The operations of the device layer that are not answered yet: how far each is cut into parts by
//! object, what came back, and which flushes wait for which writes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use protocol::geometry::extents;
use protocol::storage::{Change, MapKind};
use protocol::{BLOCK_SIZE, BlockRange};

use super::event::{Action, Failure, IoId, Operation, Outcome};
use super::limits::READ_PART_BYTES;
use crate::mutation::{self, Mutation};

/// What an operation does.
#[derive(Debug)]
pub(super) enum Kind {
    Read,
    Map,
    Write { bytes: Bytes, checksums: Arc<[u32]> },
    Zero,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Running {
    /// Nothing for what the owner does on its own.
    id: Option<IoId>,
    pub(super) kind: Kind,
    offset: u64,
    /// Ranges to do again, before anything that was not begun: from and to, in bytes.
    again: VecDeque<(u64, u64)>,
    /// Where the next part begins, and where the last one ends.
    pub(super) cursor: u64,
    end: u64,
    /// Parts that are not answered.
    outstanding: usize,
    failure: Option<Failure>,
    data: BTreeMap<u64, Bytes>,
    runs: BTreeMap<u64, Vec<(u64, MapKind)>>,
}

/// A part of an operation that lies in one object.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Whose part this is.
    pub(super) sequence: u64,
    pub(super) index: u32,
    pub(super) range: BlockRange,
    /// Where it begins in the volume, in bytes.
    pub(super) offset: u64,
}

impl Part {
    /// A piece of it.
    pub(super) fn piece(&self, range: BlockRange) -> Self {
        let at = range.start().saturating_sub(self.range.start());
        Self {
            range,
            offset: self.offset + u64::from(at) * u64::from(BLOCK_SIZE),
            ..self.clone()
        }
    }
}

/// All operations, by the order in which they were submitted.
#[derive(Debug, Default)]
pub(super) struct Operations {
    next: u64,
    running: BTreeMap<u64, Running>,
    /// Those that have parts to come.
    pub(super) writes: VecDeque<u64>,
    pub(super) reads: VecDeque<u64>,
    unfinished_writes: BTreeSet<u64>,
    flushes: VecDeque<(u64, IoId)>,
    /// What the owner itself wanted to know, as far as it came.
    gathered: Vec<Gathered>,
}

/// What came of a read of the owner's own: its operation, and the pieces in order, unless it failed.
pub(super) type Gathered = (u64, Option<Vec<Bytes>>);

impl Running {
    /// Whether this reads for the owner itself.
    fn gathers(&self) -> bool {
        self.id.is_none() && matches!(self.kind, Kind::Read)
    }

    /// Whether this writes bytes that need room.
    pub(super) fn needs_room(&self) -> bool {
        matches!(self.kind, Kind::Write { .. })
    }

    /// What is to be begun next: from and to. A large read is cut up further than by objects: while one part is
    /// verified and handed on, the disk reads the next.
    fn next_range(&self) -> (u64, u64) {
        let (from, to) = self.again.front().copied().unwrap_or((self.cursor, self.end));
        match self.kind {
            Kind::Read => (from, to.min((from / READ_PART_BYTES + 1) * READ_PART_BYTES)),
            Kind::Map | Kind::Write { .. } | Kind::Zero => (from, to),
        }
    }

    /// So many bytes of that are begun.
    fn begun(&mut self, length: u64) {
        match self.again.front_mut() {
            Some((from, to)) => {
                *from += length;
                if *from >= *to {
                    self.again.pop_front();
                }
            }
            None => self.cursor += length,
        }
    }

    fn all_begun(&self) -> bool {
        self.again.is_empty() && self.cursor >= self.end
    }

    /// Whether this writes.
    fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Write { .. } | Kind::Zero)
    }

    /// What a part of this does to its blocks.
    pub(super) fn change(&self, part: &Part) -> Change {
        let Kind::Write { bytes, checksums } = &self.kind else {
            return Change::Zero;
        };
        let start = usize::try_from(part.offset - self.offset).unwrap_or(usize::MAX);
        let whole = start == 0 && part.range.byte_len() == bytes.len();
        if whole {
            return Change::Data {
                bytes: bytes.clone(),
                checksums: checksums.clone(),
            };
        }
        let first = start / BLOCK_SIZE as usize;
        let blocks = first..first + part.range.count() as usize;
        Change::Data {
            bytes: bytes.slice(start..start + part.range.byte_len()),
            checksums: checksums[blocks].into(),
        }
    }
}

impl Operations {
    /// Takes an operation in, and answers which it is. Its extent was checked. What a read without an `id` finds is
    /// gathered for the owner itself.
    pub(super) fn add(&mut self, id: Option<IoId>, operation: Operation) -> u64 {
        self.next += 1;
        let sequence = self.next;
        let (kind, offset, length) = match operation {
            Operation::Read { offset, length } => (Kind::Read, offset, length),
            Operation::Map { offset, length } => (Kind::Map, offset, length),
            Operation::Zero { offset, length } => (Kind::Zero, offset, length),
            Operation::Write {
                offset,
                bytes,
                checksums,
            } => {
                let length = bytes.len() as u64;
                (Kind::Write { bytes, checksums }, offset, length)
            }
            Operation::Flush => {
                self.flushes.extend(id.map(|id| (sequence, id)));
                return sequence;
            }
        };
        if matches!(kind, Kind::Read | Kind::Map) {
            self.reads.push_back(sequence);
        } else {
            self.writes.push_back(sequence);
            self.unfinished_writes.insert(sequence);
        }
        let running = Running {
            id,
            kind,
            offset,
            again: VecDeque::new(),
            cursor: offset,
            end: offset + length,
            outstanding: 0,
            failure: None,
            data: BTreeMap::new(),
            runs: BTreeMap::new(),
        };
        self.running.insert(sequence, running);
        sequence
    }

    /// What the owner's own reads found.
    pub(super) fn gathered(&mut self) -> Vec<Gathered> {
        std::mem::take(&mut self.gathered)
    }

    /// Nobody wants to know it any more.
    pub(super) fn drop_gathers(&mut self) {
        self.running.retain(|_, running| !running.gathers());
        self.reads.retain(|sequence| self.running.contains_key(sequence));
        self.gathered.clear();
    }

    /// Whether something is not answered that was submitted. Of the owner's own there are few.
    pub(super) fn has_submitted(&self) -> bool {
        self.running.values().any(|running| running.id.is_some())
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Running> {
        self.running.get(&sequence)
    }

    /// Cuts off the next part of an operation; the flag says whether it was the last.
    pub(super) fn cut(&mut self, sequence: u64) -> Option<(Part, bool)> {
        let running = self.running.get_mut(&sequence)?;
        let (offset, end) = running.next_range();
        let extent = extents(offset, end - offset).next()?;
        running.begun(extent.range.byte_len() as u64);
        running.outstanding += 1;
        let part = Part {
            sequence,
            index: extent.index,
            range: extent.range,
            offset,
        };
        Some((part, running.all_begun()))
    }

    /// One part becomes several.
    pub(super) fn split(&mut self, sequence: u64, pieces: usize) {
        if let Some(running) = self.running.get_mut(&sequence) {
            running.outstanding += pieces - 1;
        }
    }

    /// The bytes of a part came.
    pub(super) fn data(&mut self, part: &Part, bytes: Bytes) {
        if let Some(running) = self.running.get_mut(&part.sequence) {
            running.data.insert(part.offset, bytes);
        }
    }

    /// The map of a part came.
    pub(super) fn runs(&mut self, part: &Part, runs: Vec<(u64, MapKind)>) {
        if let Some(running) = self.running.get_mut(&part.sequence) {
            running.runs.insert(part.offset, runs);
        }
    }

    /// No more parts: the rest of the operation fails. Parts that are under way end first.
    pub(super) fn refuse_rest(&mut self, sequence: u64, failure: Failure, out: &mut Vec<Action>) {
        if let Some(running) = self.running.get_mut(&sequence) {
            running.again.clear();
            running.cursor = running.end;
            running.failure = running.failure.or(Some(failure));
        }
        self.finish_if_done(sequence, out);
    }

    /// A part is answered.
    pub(super) fn part_done(&mut self, sequence: u64, failure: Option<Failure>, out: &mut Vec<Action>) {
        if let Some(running) = self.running.get_mut(&sequence) {
            running.outstanding = running.outstanding.saturating_sub(1);
            running.failure = running.failure.or(failure);
        }
        self.finish_if_done(sequence, out);
    }

    fn finish_if_done(&mut self, sequence: u64, out: &mut Vec<Action>) {
        let done = |running: &Running| running.outstanding == 0 && running.all_begun();
        if !self.running.get(&sequence).is_some_and(done) {
            return;
        }
        match self.running.remove(&sequence) {
            Some(running) if running.gathers() => {
                let data = running.failure.is_none().then_some(running.data);
                let data = data.map(|data| data.into_values().collect());
                self.gathered.push((sequence, data));
            }
            Some(running) => running.complete(out),
            None => {}
        }
        self.unfinished_writes.remove(&sequence);
    }

    /// Answers the flushes before which no write is unfinished.
    pub(super) fn finish_flushes(&mut self, out: &mut Vec<Action>) {
        let waits = |sequence: u64| {
            self.unfinished_writes
                .first()
                .is_some_and(|first| *first < sequence)
        };
        while let Some((sequence, id)) = self.flushes.front().copied() {
            if waits(sequence) && !mutation::active(Mutation::FlushNoWait) {
                break;
            }
            self.flushes.pop_front();
            out.push(Action::Complete {
                id,
                result: Ok(Outcome::Done),
            });
        }
    }

    /// Answers everything with a failure.
    pub(super) fn fail_all(&mut self, failure: Failure, out: &mut Vec<Action>) {
        for mut running in std::mem::take(&mut self.running).into_values() {
            running.failure = Some(failure);
            running.complete(out);
        }
        for (_, id) in std::mem::take(&mut self.flushes) {
            out.push(Action::Complete {
                id,
                result: Err(failure),
            });
        }
        *self = Self {
            next: self.next,
            ..Self::default()
        };
    }

    /// Begins anew what was begun and not answered, in the order in which it was submitted. `unanswered` are the parts
    /// of writes that were begun: no others of them are written a second time, for what is answered may have been
    /// read and overwritten since.
    pub(super) fn begin_again<'a>(&mut self, unanswered: impl Iterator<Item = &'a Part>) {
        let mut ranges: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        for part in unanswered {
            let range = (part.offset, part.offset + part.range.byte_len() as u64);
            ranges.entry(part.sequence).or_default().push(range);
        }
        self.drop_gathers();
        self.reads.clear();
        self.writes.clear();
        for (sequence, running) in &mut self.running {
            running.outstanding = 0;
            if running.is_write() {
                let mut again = ranges.remove(sequence).unwrap_or_default();
                // What was to be done again when this generation ended, and was not begun, still is.
                again.extend(running.again.drain(..));
                again.sort_unstable();
                running.again = again.into();
                self.writes.push_back(*sequence);
            } else {
                running.cursor = running.offset;
                running.data.clear();
                running.runs.clear();
                self.reads.push_back(*sequence);
            }
        }
    }

    /// Whether the next write is one that was begun under a former generation: reads wait until all of these are
    /// begun, for one of them may have been done already.
    pub(super) fn begins_again(&self) -> bool {
        let next = self.writes.front().and_then(|next| self.running.get(next));
        next.is_some_and(|running| !running.again.is_empty())
    }

    /// Takes out what reaches beyond the end of the volume, which has become smaller.
    pub(super) fn refuse_beyond(&mut self, size: u64, out: &mut Vec<Action>) {
        let beyond = |(_, running): &(&u64, &Running)| running.end > size && running.id.is_some();
        let sequences: Vec<u64> = self.running.iter().filter(beyond).map(|(s, _)| *s).collect();
        for sequence in sequences {
            self.reads.retain(|other| *other != sequence);
            self.writes.retain(|other| *other != sequence);
            self.unfinished_writes.remove(&sequence);
            if let Some(mut running) = self.running.remove(&sequence) {
                running.failure = Some(Failure::Invalid);
                running.complete(out);
            }
        }
    }

    /// Whether everything is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.flushes.is_empty()
    }

    /// How many are not answered.
    pub(super) fn len(&self) -> usize {
        self.running.len() + self.flushes.len()
    }
}

impl Running {
    fn complete(self, out: &mut Vec<Action>) {
        let Some(id) = self.id else { return };
        let result = match (self.failure, self.kind) {
            (Some(failure), _) => Err(failure),
            (None, Kind::Write { .. } | Kind::Zero) => Ok(Outcome::Done),
            (None, Kind::Read) => Ok(Outcome::Data(self.data.into_values().collect())),
            (None, Kind::Map) => Ok(Outcome::Map(joined(self.runs.into_values().flatten()))),
        };
        out.push(Action::Complete { id, result });
    }
}

/// Runs of the same kind that touch become one.
fn joined(runs: impl Iterator<Item = (u64, MapKind)>) -> Vec<(u64, MapKind)> {
    let mut joined: Vec<(u64, MapKind)> = Vec::new();
    for (length, kind) in runs {
        match joined.last_mut() {
            Some((so_far, last)) if *last == kind => *so_far += length,
            _ => joined.push((length, kind)),
        }
    }
    joined
}
