//! The open disk: requests in, answers out, nothing blocking in between but a look at metadata.
//!
//! One file because it is the table of contents of the disk: every request and every completion passes here
//! and is handed on.

mod checkpoint;
mod list;
mod merge;
mod places;
mod read;
mod rows;
mod space;
mod verify;
mod write;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use direct::buffers::Buffers;
use direct::witness::Witness;
use protocol::storage::{Change, StorageError, StorageReply, StorageRequest, StorageView, VERIFY_CHUNKS};
use protocol::{FamilyId, Generation, Interval, LayerId, ObjectId, PgId, Stamp, VolumeId};

use crate::cache::BlockCache;
use crate::error::OpenError;
use crate::format::record::Slot;
use crate::log::{Log, Waiter};
use crate::medium::directory::Directory;
use crate::medium::{Completion, Medium, Operation, Outcome};
use crate::mutation::{self, Mutation};
use crate::options::{Format, Options};
use crate::recovery;
use crate::slab::Slab;
use crate::statistics::Statistics;
use crate::store::checkpoint::Checkpoint;
use crate::store::merge::Merge;
use crate::store::read::{ReadJob, Target};
use crate::store::space::Space;
use crate::table::{StackId, Table};
use crate::tables::Tables;

/// Requests without an answer: as many as all connections of a disk may send together.
pub const REQUESTS_MAX: u64 = 8192;
/// Bytes of these, of writes and of reads: bounds what waits for the disk in memory.
pub const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// An answer, with the token of its request.
pub type Answer = (u64, Result<StorageReply, StorageError>);

/// What the medium does for us.
enum Task {
    /// The log's batch is being written.
    Log,
    /// Data of a batch is being written straight to its slots.
    Direct(u64),
    Read(Box<ReadJob>),
    CheckpointStep,
    Punch(Slot, u64),
}

/// A change that waits for room in the log or in memory, in the order of its coming.
enum Stalled {
    Request(Waiter, StorageRequest),
    Merge(StackId),
}

/// An open disk. One thread uses it; it never blocks but for a lookup in the metadata tables.
pub struct Store {
    medium: Box<dyn Medium>,
    format: Format,
    options: Options,
    tables: Tables,
    table: Table,
    log: Log,
    space: Space,
    cache: BlockCache,
    buffers: Buffers,
    tasks: Slab<Task>,
    checkpoint: Option<Checkpoint>,
    /// How often bytes in slots may have changed their meaning: a read that was planned at another
    /// count may have seen a slot after it was written over or given to somebody else.
    moves: u64,
    punching: bool,
    merging: HashMap<StackId, Merge>,
    stalled: VecDeque<Stalled>,
    /// The stamps that objects will have when what is stalled was accepted.
    stalled_stamps: HashMap<ObjectId, Stamp>,
    /// Reads that wait for a batch to become durable.
    parked: BTreeMap<u64, Vec<Target>>,
    answers: Vec<Answer>,
    completions: Vec<Completion>,
    in_flight: u64,
    in_flight_bytes: u64,
    poisoned: Option<Arc<str>>,
    statistics: Statistics,
}

impl Store {
    /// Makes a disk in a directory, which is created if it is not there.
    pub fn create(directory: &Path, format: &Format) -> Result<(), OpenError> {
        recovery::check_format(format)?;
        let files = Directory::create(directory, format.log_bytes)?;
        files.seal()?;
        let mut medium = files.medium(crate::options::Engine::Threads)?;
        recovery::format(medium.as_mut(), format)
    }

    /// Opens the disk of a directory; recovers it first if it was not closed.
    pub fn open(directory: &Path, options: &Options) -> Result<Self, OpenError> {
        Self::open_through(directory, options, |medium| medium)
    }

    /// As [`Store::open`], with something between the store and its medium, which may measure it.
    pub fn open_through(
        directory: &Path,
        options: &Options,
        between: impl FnOnce(Box<dyn Medium>) -> Box<dyn Medium>,
    ) -> Result<Self, OpenError> {
        let medium = between(Directory::open(directory)?.medium(options.engine)?);
        // From here on the disk is ours, and whoever still reads by what a former opening said is
        // shut out before anything changes.
        let witness = options
            .share
            .map(|opening| Witness::open(directory, opening))
            .transpose();
        let witness = witness.map_err(OpenError::io(format!(
            "open {} in {}",
            direct::witness::FILE_NAME,
            directory.display()
        )))?;
        let mut store = Self::open_on(medium, options)?;
        store.table.witness = witness;
        Ok(store)
    }

    /// What tells the readers of the disk's file that it changes; nothing if nobody may read it.
    pub fn witness(&self) -> Option<&Witness> {
        self.table.witness.as_ref()
    }

    /// Has changes told to a witness from now on: for tests, on a medium that is no directory.
    pub fn set_witness(&mut self, witness: Witness) {
        self.table.witness = Some(witness);
    }

    /// Makes a disk on any medium, whose files are empty.
    pub fn create_on(medium: &mut dyn Medium, format: &Format) -> Result<(), OpenError> {
        recovery::check_format(format)?;
        recovery::format(medium, format)
    }

    /// Opens the disk of any medium.
    pub fn open_on(medium: Box<dyn Medium>, options: &Options) -> Result<Self, OpenError> {
        let recovered = recovery::recover(medium.as_ref(), options)?;
        let mut store = Self {
            medium,
            format: recovered.format,
            tables: recovered.tables,
            table: recovered.table,
            log: recovered.log,
            space: Space::default(),
            cache: BlockCache::new(options.memory.blocks),
            buffers: Buffers::default(),
            tasks: Slab::new(),
            checkpoint: None,
            moves: 0,
            punching: false,
            merging: HashMap::new(),
            stalled: VecDeque::new(),
            stalled_stamps: HashMap::new(),
            parked: BTreeMap::new(),
            answers: Vec::new(),
            completions: Vec::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            poisoned: None,
            statistics: Statistics::default(),
            options: options.clone(),
        };
        store.ask_for_space();
        Ok(store)
    }

    /// Takes a request in. Its answer comes out of [`Store::poll`], maybe after a [`Store::kick`].
    pub fn submit(&mut self, token: u64, request: StorageRequest) {
        let waiter = Waiter {
            token,
            bytes: bytes_of(&request),
        };
        self.in_flight += 1;
        self.in_flight_bytes += waiter.bytes;
        if let Some(reason) = &self.poisoned {
            let error = StorageError::Poisoned(Arc::clone(reason));
            self.answer(waiter, Err(error));
        } else if self.in_flight > REQUESTS_MAX
            || (self.in_flight_bytes > REQUEST_BYTES_MAX && self.in_flight > 1)
        {
            self.answer(waiter, Err(StorageError::Busy));
        } else {
            self.route(waiter, request);
        }
    }

    fn route(&mut self, waiter: Waiter, request: StorageRequest) {
        match request {
            StorageRequest::Read {
                chain,
                family,
                index,
                ranges,
            } => {
                self.read(Target::Range {
                    waiter,
                    chain,
                    family,
                    index,
                    ranges,
                });
            }
            StorageRequest::Map {
                chain,
                family,
                index,
                range,
            } => {
                self.read(Target::Map {
                    waiter,
                    chain,
                    family,
                    index,
                    range,
                });
            }
            StorageRequest::Places {
                chain,
                family,
                index,
                range,
            } => {
                let reply = self.places(&chain, (family, index), range);
                self.answer(waiter, reply);
            }
            StorageRequest::Pull { object, above } => self.read(Target::Pull {
                waiter,
                object,
                above,
            }),
            StorageRequest::Difference { object, have } => self.read(Target::Difference {
                waiter,
                object,
                have,
                planned: None,
                waits: 0,
            }),
            StorageRequest::Verify { object, first } => self.verify_chunks(waiter, object, first),
            StorageRequest::List { after, limit } => {
                let listed = self.list(after, limit);
                self.answer(waiter, listed);
            }
            StorageRequest::Column { family, index } => {
                let listed = self.column((family, index));
                self.answer(waiter, listed);
            }
            StorageRequest::Settle(objects) => {
                for (object, stamp) in objects {
                    self.table.settle(object, stamp);
                }
                self.answer(waiter, Ok(StorageReply::Done));
            }
            StorageRequest::Probe => {
                // As much as the largest write could need.
                let slots = u64::from(protocol::geometry::CHUNKS_PER_OBJECT);
                let room = self.has_slots(slots.min(self.table.allocator.limit()), false);
                self.answer(
                    waiter,
                    if room {
                        Ok(StorageReply::Done)
                    } else {
                        Err(StorageError::Full)
                    },
                );
            }
            change => self.change(waiter, change),
        }
    }

    /// Accepts a change, or has it wait for room or for a merge.
    fn change(&mut self, waiter: Waiter, request: StorageRequest) {
        if let Some(merge) = self.merge_before(&request) {
            merge.waiting.push_back((waiter, request));
        } else if !self.stalled.is_empty() || !self.has_room_for(&request) {
            self.stall(waiter, request);
        } else {
            self.carry_out(waiter, request);
            self.checkpoint_if_due();
        }
    }

    /// The merge that a change has to wait for: one that changes objects as wholes waits for the
    /// merge on its stack, and a write for those that wait already.
    fn merge_before(&mut self, request: &StorageRequest) -> Option<&mut Merge> {
        let stack = stack_of(request)?;
        let whole = !matches!(request, StorageRequest::Write(_));
        self.merging
            .get_mut(&stack)
            .filter(|merge| whole || !merge.waiting.is_empty())
    }

    fn carry_out(&mut self, waiter: Waiter, request: StorageRequest) {
        match request {
            StorageRequest::Merge {
                family,
                index,
                parent,
                child,
                row_chunks,
            } => {
                self.start_merge(waiter, (family, index), (parent, child), row_chunks);
            }
            change => self.accept(waiter, change),
        }
    }

    fn stall(&mut self, waiter: Waiter, request: StorageRequest) {
        let step = match &request {
            StorageRequest::Write(write) => Some((write.object, write.follows, write.stamp)),
            StorageRequest::Level { follows, delta } | StorageRequest::Replace { follows, delta, .. } => {
                Some((delta.object, *follows, delta.stamp))
            }
            _ => None,
        };
        if let Some((object, follows, stamp)) = step {
            match self.stamp(object) {
                Ok(has) if has == follows => drop(self.stalled_stamps.insert(object, stamp)),
                Ok(has) => return self.answer(waiter, Err(StorageError::Gap(has))),
                Err(error) => return self.answer(waiter, Err(error)),
            }
        }
        self.stalled.push_back(Stalled::Request(waiter, request));
        self.checkpoint();
    }

    /// Goes on with what waited for room.
    fn resume_stalled(&mut self) {
        // Once round: what does not fit yet comes back to the end, in its order.
        let mut waiting = std::mem::take(&mut self.stalled);
        while let Some(stalled) = waiting.pop_front() {
            match stalled {
                Stalled::Merge(stack) => self.advance_merge(stack),
                Stalled::Request(waiter, request) => {
                    if let Some(merge) = self.merge_before(&request) {
                        merge.waiting.push_back((waiter, request));
                    } else if self.has_room_for(&request) {
                        self.carry_out(waiter, request);
                        self.checkpoint_if_due();
                    } else {
                        waiting.push_front(Stalled::Request(waiter, request));
                        break;
                    }
                }
            }
        }
        waiting.append(&mut self.stalled);
        self.stalled = waiting;
        if self.stalled.is_empty() {
            self.stalled_stamps.clear();
        }
        if let Some(reason) = self.poisoned.clone() {
            self.refuse_stalled(&reason);
        } else if !self.stalled.is_empty() {
            self.checkpoint();
        }
    }

    /// Sends to the medium what was gathered since the last call: call it once a loop turn.
    pub fn kick(&mut self) {
        if self.poisoned.is_none()
            && let Some(write) = self.log.next_write()
        {
            self.statistics.log_batches += 1;
            self.statistics.log_batch_bytes += write.bytes;
            let (file, offset, pieces) = (crate::medium::File::Log, write.offset, write.pieces);
            let durable = !mutation::active(Mutation::LogNotDurable);
            self.begin(
                Task::Log,
                Operation::Write {
                    file,
                    offset,
                    pieces,
                    durable,
                },
            );
        }
        self.medium.kick();
    }

    /// Handles what the medium completed and takes out the answers. Kicks as well, if that made
    /// something ready to be sent.
    pub fn poll(&mut self, answers: &mut Vec<Answer>) {
        let mut completions = std::mem::take(&mut self.completions);
        self.medium.poll(&mut completions);
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        if any {
            self.kick();
        }
        answers.append(&mut self.answers);
    }

    fn complete(&mut self, completion: Completion) {
        let Some(task) = self.tasks.remove(completion.token) else {
            self.poison(&"the medium completed something that was not asked for");
            return;
        };
        if let Some(reason) = &self.poisoned {
            let error = StorageError::Poisoned(Arc::clone(reason));
            if let Task::Read(job) = task
                && let Some(waiter) = job.waiter()
            {
                self.answer(waiter, Err(error));
            }
            return;
        }
        let outcome = self.trusted(&task, completion.outcome);
        match (task, outcome) {
            (Task::Read(job), Outcome::Read(buffer)) => self.read_done(*job, buffer),
            (Task::Read(job), Outcome::ReadFailed(run, error)) => self.read_failed(*job, run, &error),
            (Task::Punch(first, count), Outcome::Done(outcome)) => self.punched(first, count, outcome),
            (Task::Log, Outcome::Done(Ok(()))) => {
                let batch = self.log.written();
                self.batch_done(batch);
            }
            (Task::Direct(sequence), Outcome::Done(Ok(()))) => {
                let batch = self.log.direct_done(sequence);
                self.batch_done(batch);
            }
            (Task::CheckpointStep, Outcome::Done(Ok(()))) => self.checkpoint_step_done(),
            (_, Outcome::Done(Err(error))) => drop(self.poison(&error)),
            _ => drop(self.poison(&"the medium answered something else than was asked")),
        }
    }

    /// What the medium said of a task, as it is: only a mutant takes a failure for a success.
    fn trusted(&self, task: &Task, outcome: Outcome) -> Outcome {
        let flushes = || self.checkpoint.as_ref().is_some_and(Checkpoint::flushes);
        let ignores_failure = match task {
            Task::Log => mutation::active(Mutation::FailedLogIgnored),
            Task::Direct(_) => mutation::active(Mutation::FailedDirectIgnored),
            Task::CheckpointStep => {
                mutation::active(Mutation::FailedCheckpointIgnored)
                    || (mutation::active(Mutation::FailedFlushIgnored) && flushes())
            }
            Task::Read(_) | Task::Punch(..) => false,
        };
        if ignores_failure {
            Outcome::Done(Ok(()))
        } else {
            outcome
        }
    }

    /// A batch became durable: answers, and lets go on what waited for it.
    fn batch_done(&mut self, batch: Option<crate::log::Batch>) {
        let Some(batch) = batch else { return };
        for waiter in batch.waiters {
            self.answer(waiter, Ok(StorageReply::Done));
        }
        self.advance_checkpoint();
        let later = self.parked.split_off(&(self.log.durable() + 1));
        for target in std::mem::replace(&mut self.parked, later).into_values().flatten() {
            self.read(target);
        }
    }

    /// Blocks until the medium completed something, if it has anything in flight: for programs
    /// without a loop of their own.
    pub fn wait(&mut self) {
        if self.answers.is_empty() {
            self.medium.wait();
        }
    }

    /// Whether anything is under way that [`Store::poll`] will have to handle.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0
            || self.tasks.len() > 0
            || self.log.is_busy()
            || !self.answers.is_empty()
            || self.checkpoint.is_some()
    }

    /// Becomes readable, edge-triggered, whenever [`Store::poll`] has something to handle.
    /// A medium in memory has none: poll it.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.medium.wake_fd()
    }

    /// What the superblock says.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The objects in doubt, ascending, with their stamps.
    pub fn doubts(&self) -> Vec<(ObjectId, Stamp)> {
        self.table
            .doubts
            .iter()
            .map(|(object, stamp)| (*object, *stamp))
            .collect()
    }

    /// The highest generation of each volume that was ever seen, ascending.
    pub fn generations(&self) -> Vec<(VolumeId, Generation)> {
        self.table
            .generations
            .iter()
            .map(|(volume, generation)| (*volume, *generation))
            .collect()
    }

    /// The highest interval of each placement group that was ever seen, ascending.
    pub fn intervals(&self) -> Vec<(PgId, Interval)> {
        self.table
            .intervals
            .iter()
            .map(|(pg, interval)| (*pg, *interval))
            .collect()
    }

    /// Up to `limit` objects of one layer with an index not below `from_index`, ascending, and
    /// where to go on (nothing at the end): for those who drop or merge a layer.
    pub fn objects_of_layer(
        &mut self,
        family: FamilyId,
        layer: LayerId,
        from_index: u32,
        limit: usize,
    ) -> Result<(Vec<u32>, Option<u32>), StorageError> {
        let mut here: BTreeMap<u32, bool> = BTreeMap::new();
        for (object, exists) in self.table.dirty_objects(family, from_index) {
            if object.layer == layer {
                here.insert(object.index, exists);
            }
        }
        // One that a running checkpoint is writing is neither dirty nor in the tables yet.
        for (stack_family, index) in &self.table.committing {
            let object = ObjectId {
                family,
                index: *index,
                layer,
            };
            if *stack_family == family && *index >= from_index {
                here.entry(*index).or_insert(self.table.object(object).is_some());
            }
        }
        let mut found: Vec<u32> = here
            .iter()
            .filter(|(_, exists)| **exists)
            .map(|(index, _)| *index)
            .collect();
        let mut stored = 0;
        let visited = self.tables.visit_objects(family, from_index, |object| {
            if object.layer == layer && !here.contains_key(&object.index) {
                found.push(object.index);
                stored += 1;
            }
            stored <= limit
        });
        visited.map_err(|error| self.poison(&error))?;
        found.sort_unstable();
        let next = found.get(limit).copied();
        found.truncate(limit);
        Ok((found, next))
    }

    /// What the layers of a family take on this disk, in bytes, as of all changes that were accepted; those that take
    /// nothing are left out.
    pub fn usage(&self, family: FamilyId) -> Vec<(LayerId, u64)> {
        self.table.usage.of(family)
    }

    /// The figures of this moment.
    pub fn statistics(&self) -> Statistics {
        let slot = u64::from(protocol::CHUNK_SIZE);
        let allocator = &self.table.allocator;
        let used_bytes = allocator.taken() * slot;
        let free_bytes = self.free_slots() * slot;
        Statistics {
            medium: self.medium.name(),
            capacity_bytes: (allocator.limit().saturating_mul(slot)).min(used_bytes + free_bytes),
            used_bytes,
            free_bytes,
            log_bytes: self.log.length(),
            log_used_bytes: self.log.promised(),
            overlay_bytes: self.table.overlay_bytes,
            metadata_bytes: self.table.metadata_bytes(),
            cached_bytes: self.cache.bytes(),
            in_flight: self.in_flight,
            objects_in_doubt: self.table.doubts.len() as u64,
            ..self.statistics
        }
    }

    /// Why the disk is out of service, if it is.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Whether a checkpoint would make something smaller: the log, the overlay, or the space taken.
    pub fn has_background_work(&self) -> bool {
        self.poisoned.is_none() && (self.checkpoint.is_some() || self.has_something_to_checkpoint())
    }

    /// Starts a checkpoint if none runs: for a quiet moment, or before a close. It goes on with
    /// each [`Store::poll`].
    pub fn checkpoint(&mut self) {
        if self.checkpoint.is_none() && self.poisoned.is_none() && self.has_something_to_checkpoint() {
            self.start_checkpoint();
        }
    }

    /// Completes everything in flight, checkpoints, and closes. Answers that nobody took are lost.
    pub fn close(mut self) -> Result<(), StorageError> {
        let mut answers = Vec::new();
        self.drain(&mut answers);
        self.checkpoint();
        self.drain(&mut answers);
        match self.poisoned {
            None => Ok(()),
            Some(reason) => Err(StorageError::Poisoned(reason)),
        }
    }

    /// Completes everything in flight, blocking, and gives the answers.
    pub fn drain(&mut self, answers: &mut Vec<Answer>) {
        self.kick();
        loop {
            self.poll(answers);
            let idle = self.poisoned.is_some() && self.tasks.len() == 0;
            if idle || !self.is_busy() {
                break;
            }
            self.wait();
        }
        self.poll(answers);
    }

    /// Gives an operation to the medium.
    fn begin(&mut self, task: Task, operation: Operation) {
        let token = self.tasks.insert(task);
        self.medium.submit(token, operation);
    }

    /// Brings a stack into memory.
    fn load(&mut self, stack: StackId) -> Result<(), StorageError> {
        self.table
            .load(&self.tables, stack)
            .map_err(|error| self.poison(&error))
    }

    fn answer(&mut self, waiter: Waiter, result: Result<StorageReply, StorageError>) {
        self.in_flight -= 1;
        self.in_flight_bytes -= waiter.bytes;
        self.answers.push((waiter.token, result));
    }

    /// Takes the disk out of service: whether what was under way is on stable storage is unknown.
    fn poison(&mut self, reason: &dyn Display) -> StorageError {
        if let Some(reason) = &self.poisoned {
            return StorageError::Poisoned(Arc::clone(reason));
        }
        let reason: Arc<str> = Arc::from(reason.to_string());
        tracing::error!(disk = %self.format.disk, %reason, "the disk is out of service");
        self.poisoned = Some(Arc::clone(&reason));
        if let Some(witness) = &self.table.witness {
            witness.readmit();
        }
        let mut waiters = self.log.take_waiters();
        waiters.extend(
            std::mem::take(&mut self.parked)
                .into_values()
                .flatten()
                .filter_map(|read| read.waiter()),
        );
        self.refuse_stalled(&reason);
        for merge in std::mem::take(&mut self.merging).into_values() {
            waiters.extend(merge.all_waiters());
        }
        for waiter in waiters {
            self.answer(waiter, Err(StorageError::Poisoned(Arc::clone(&reason))));
        }
        self.checkpoint = None;
        StorageError::Poisoned(reason)
    }

    fn refuse_stalled(&mut self, reason: &Arc<str>) {
        for stalled in std::mem::take(&mut self.stalled) {
            if let Stalled::Request(waiter, _) = stalled {
                self.answer(waiter, Err(StorageError::Poisoned(Arc::clone(reason))));
            }
        }
    }
}

impl StorageView for Store {
    fn stamp(&mut self, object: ObjectId) -> Result<Stamp, StorageError> {
        if let Some(reason) = &self.poisoned {
            return Err(StorageError::Poisoned(Arc::clone(reason)));
        }
        match self.stalled_stamps.get(&object) {
            Some(stamp) => Ok(*stamp),
            None => self.stamp_of(object),
        }
    }
}

/// The stack that a change is about.
fn stack_of(request: &StorageRequest) -> Option<StackId> {
    match request {
        StorageRequest::Write(write) => Some((write.object.family, write.object.index)),
        StorageRequest::Merge { family, index, .. } => Some((*family, *index)),
        StorageRequest::Drop(object) | StorageRequest::Mend { object, .. } => {
            Some((object.family, object.index))
        }
        StorageRequest::Level { delta, .. } | StorageRequest::Replace { delta, .. } => {
            Some((delta.object.family, delta.object.index))
        }
        _ => None,
    }
}

/// How much of the bytes in flight a request is.
fn bytes_of(request: &StorageRequest) -> u64 {
    let bytes = match request {
        StorageRequest::Write(write) => match &write.change {
            Change::Data { bytes, .. } => bytes.len(),
            Change::Zero => 0,
        },
        StorageRequest::Read { ranges, .. } => ranges.byte_len(),
        StorageRequest::Level { delta, .. } | StorageRequest::Replace { delta, .. } => delta.bytes.len(),
        StorageRequest::Pull { .. } | StorageRequest::Difference { .. } => protocol::OBJECT_SIZE as usize,
        StorageRequest::Mend { bytes, .. } => bytes.len(),
        StorageRequest::Verify { .. } => usize::from(VERIFY_CHUNKS) * protocol::CHUNK_SIZE as usize,
        _ => 0,
    };
    bytes as u64
}
