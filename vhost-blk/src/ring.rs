//! A running ring: takes requests out of it, gives them to the device, and publishes answers.
//!
//! A ring lives on the data thread. [`Ring::turn`] is all of its work and never waits; [`Ring::run`]
//! is the loop around it that waits for kicks and completions. Answers that come in during one pass of
//! the event loop are published together, with at most one interrupt.
//!
//! Data is copied out of guest memory once, before it is given to the device. The guest may change
//! its buffer while the write is under way, and must not thereby make replicas differ or break a checksum.
//!
//! What is taken and not answered stands in a [`Log`] that outlives the process. The next process begins with
//! what this one has left, in the old order, before any ring takes something new.
//!
//! One file because a ring and its requests under way change together.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use client::device::{DeviceError, Operation, Outcome};
use telemetry::traffic::Ticket;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tracing::{error, warn};
use vhost_user_backend::{VringMutex, VringT};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryLoadGuard};

use crate::backing::{Backing, SERIAL_BYTES};
use crate::chain::{Buffers, ChainError};
use crate::guest_memory::{GuestMap, GuestMemory};
use crate::inflight::{InflightError, Log};
use crate::request::{self, Parsed, Refusal, Request, Run};

/// A virtqueue with its events, as the control thread sets it up.
pub type Vring = VringMutex<GuestMemory>;

/// Requests taken in one turn before others get theirs: a full queue of QEMU's default size.
const TURN_REQUESTS_MAX: usize = 128;
const LOG_UNUSABLE: &str = "its log of requests in flight cannot be written";

/// A request that the device works on.
struct Pending {
    ring: Rc<Ring>,
    head: u16,
    buffers: Buffers,
    memory: GuestMemoryLoadGuard<GuestMap>,
    /// What it counts in the limit of bytes under way.
    bytes: u64,
    /// Device operations that are not answered yet.
    parts: Cell<usize>,
    /// The worst answer so far.
    status: Cell<u32>,
    ticket: Ticket,
}

/// What a former process has left of a ring, and where this one writes down what it takes.
#[derive(Debug, Default)]
pub struct Legacy {
    log: Option<Log>,
    /// Heads that were taken and not answered, in the order in which they were taken.
    heads: Vec<u16>,
}

impl Legacy {
    /// Brings the log and the ring's indexes to one state. Without a log the ring is as the front end said.
    ///
    /// What the front end says of the available index is of no use here: it cannot know which requests were
    /// taken by a process that has died. Those that are answered and those in flight are all of them.
    pub fn inherit(vring: &Vring, log: Option<Log>) -> Result<Self, InflightError> {
        let Some(log) = log else {
            return Ok(Self::default());
        };
        let used = vring
            .queue_used_idx()
            .map_err(|_| InflightError::Contradiction("the used ring is outside guest memory"))?;
        let heads = log.recover(used, vring.get_ref().get_queue().size())?;
        // Not more than the ring has entries, which are at most 1024.
        let in_flight = u16::try_from(heads.len()).unwrap_or(u16::MAX);
        vring.set_queue_next_avail(used.wrapping_add(in_flight));
        vring.set_queue_next_used(used);
        Ok(Self {
            log: Some(log),
            heads,
        })
    }

    /// How many requests are left.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }
}

/// One running virtqueue.
pub struct Ring {
    index: u16,
    vring: Vring,
    memory: GuestMemory,
    backing: Rc<Backing>,
    log: Option<Log>,
    /// What a former process had taken, and is not yet given to the device again.
    left: RefCell<VecDeque<u16>>,
    /// The same, until it is answered.
    again: RefCell<BTreeSet<u16>>,
    /// Answered, not yet published: head, bytes written, and what is counted then.
    answered: RefCell<Vec<(u16, u32, Ticket)>>,
    in_flight: Cell<usize>,
    stopping: Cell<bool>,
    /// The guest has put nonsense into the ring itself. It is left alone until it is set up anew.
    broken: Cell<bool>,
    /// A turn is going on, which will publish what is answered meanwhile.
    turning: Cell<bool>,
    /// When the ring was last looked into.
    looked: Cell<Instant>,
    wake: Rc<Notify>,
    /// [`Ring::run`] has returned, or is about to.
    has_ended: Cell<bool>,
    end: Notify,
}

/// What a look into the available ring gave.
enum Taken {
    Chain(u16, Result<Buffers, ChainError>),
    Empty,
    Full,
}

impl Ring {
    /// A ring that starts to work with its first turn.
    pub fn new(
        index: u16,
        vring: Vring,
        memory: GuestMemory,
        backing: Rc<Backing>,
        legacy: Legacy,
    ) -> Rc<Self> {
        let again: BTreeSet<u16> = legacy.heads.iter().copied().collect();
        backing.expect_again(again.len());
        Rc::new(Self {
            index,
            vring,
            memory,
            backing,
            log: legacy.log,
            left: RefCell::new(legacy.heads.into()),
            again: RefCell::new(again),
            answered: RefCell::default(),
            in_flight: Cell::new(0),
            stopping: Cell::new(false),
            broken: Cell::new(false),
            turning: Cell::new(false),
            looked: Cell::new(Instant::now()),
            wake: Rc::default(),
            has_ended: Cell::new(false),
            end: Notify::new(),
        })
    }

    /// Works until the ring is stopped and everything that was taken is answered and published.
    pub async fn run(self: Rc<Self>, mut kick: Receiver) {
        loop {
            let more = self.turn();
            if self.is_drained() {
                self.has_ended.set(true);
                self.end.notify_waiters();
                return;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            // An eventfd gives eight bytes; room for more lets tokio see at once that it is empty now.
            let mut kicks = [0; 16];
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                read = kick.read(&mut kicks), if !self.stopping.get() => if let Err(cause) = read {
                    error!(ring = self.index, %cause, "cannot wait for kicks");
                    self.give_up("its kick eventfd cannot be read");
                    self.wake.notified().await;
                }
            }
        }
    }

    /// Takes no more requests; [`Ring::run`] ends when those under way are published.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.wake.notify_one();
    }

    /// Has another turn: requests may be taken that could not be before.
    pub fn look_again(&self) {
        self.wake.notify_one();
    }

    /// Requests that were taken and are not answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Waits until [`Ring::run`] is through.
    pub async fn ended(&self) {
        while !self.has_ended.get() {
            self.end.notified().await;
        }
    }

    /// Whether it was stopped and nothing of it is under way or unpublished.
    pub fn is_drained(&self) -> bool {
        self.stopping.get()
            && self.in_flight.get() == 0
            && self.left.borrow().is_empty()
            && self.answered.borrow().is_empty()
    }

    /// Whether the guest has made the ring unusable.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Takes what the guest has put into the ring, publishes what is answered. True if there may be
    /// more to take at once.
    pub fn turn(self: &Rc<Self>) -> bool {
        self.turning.set(true);
        let more = self.take_all();
        self.turning.set(false);
        self.publish();
        more
    }

    fn take_all(self: &Rc<Self>) -> bool {
        if self.vring.disable_notification().is_err() {
            self.give_up("its used ring is outside guest memory");
        }
        self.looked.set(Instant::now());
        // Each pass takes a request or ends, except when the guest races with the look at the index:
        // such passes are counted too, so that it cannot hold this thread.
        for _ in 0..TURN_REQUESTS_MAX {
            // What a former process took is this one's to finish, also before a stop.
            let takes_nothing_new = self.stopping.get() || self.backing.traffic().is_held();
            if self.broken.get() || takes_nothing_new && self.left.borrow().is_empty() {
                return false;
            }
            match self.take() {
                Taken::Chain(head, buffers) => self.start(head, buffers),
                Taken::Full => return false,
                Taken::Empty => match self.vring.enable_notification() {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(_) => self.give_up("its rings are outside guest memory"),
                },
            }
        }
        true
    }

    fn take(self: &Rc<Self>) -> Taken {
        let is_new = self.left.borrow().is_empty();
        if self.backing.is_full() || is_new && self.backing.awaits_again() {
            self.backing.wake_later(self.index, &self.wake);
            return Taken::Full;
        }
        let memory = self.memory.memory();
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        let (table, size) = (GuestAddress(queue.desc_table()), queue.size());
        let chain = |head| Taken::Chain(head, Buffers::collect(&memory, table, size, head));
        if let Some(head) = self.left.borrow_mut().pop_front() {
            return chain(head);
        }
        // The guest may not have more requests under way than the ring has entries, whatever its
        // index says.
        if self.in_flight.get() >= usize::from(size) {
            return Taken::Full;
        }
        let Ok(mut available) = queue.iter(&*memory) else {
            self.give_up("its available index is impossible");
            return Taken::Empty;
        };
        let Some(head) = available.next().map(|chain| chain.head_index()) else {
            return Taken::Empty;
        };
        if head >= size {
            self.give_up("it names a descriptor that does not exist");
            return Taken::Empty;
        }
        // From here on a death leaves it to the next process.
        if self.log.as_ref().is_some_and(|log| log.take(head).is_err()) {
            self.give_up(LOG_UNUSABLE);
            return Taken::Empty;
        }
        chain(head)
    }

    fn give_up(&self, reason: &'static str) {
        if !self.broken.replace(true) {
            error!(
                ring = self.index,
                reason, "a ring is broken, and is left alone until it is reset"
            );
        }
        // Nobody may wait for what is not done.
        for head in self.left.take() {
            self.is_answered(head);
        }
    }

    /// What a former process had taken is answered, or given up.
    fn is_answered(&self, head: u16) {
        if self.again.borrow_mut().remove(&head) {
            self.backing.done_again();
        }
    }

    fn start(self: &Rc<Self>, head: u16, buffers: Result<Buffers, ChainError>) {
        self.in_flight.set(self.in_flight.get() + 1);
        let mut ticket = self.backing.traffic().take(self.looked.get());
        let buffers = match buffers {
            Ok(buffers) => buffers,
            Err(reason) => {
                // There is no place for a status: give the descriptors back, with nothing written.
                if let Some(count) = self.backing.complaint() {
                    warn!(ring = self.index, count, %reason, "a request cannot be answered");
                }
                ticket.has_failed();
                self.answer(head, 0, ticket);
                return;
            }
        };
        let memory = self.memory.memory();
        match self.parse(&buffers, &memory) {
            Ok((request, operations)) => {
                let (kind, bytes) = request.amount();
                ticket.is_for(kind, bytes);
                self.submit(head, buffers, memory, &request, operations, ticket);
            }
            Err(refusal) => {
                if let Some(count) = self.backing.complaint() {
                    warn!(ring = self.index, count, %refusal, "a request was refused");
                }
                let status = match refusal {
                    Refusal::Unsupported(_) => VIRTIO_BLK_S_UNSUPP,
                    Refusal::Invalid(_) => VIRTIO_BLK_S_IOERR,
                };
                let pending = self.pending(head, buffers, memory, 0, 0, ticket);
                pending.finish(status);
            }
        }
    }

    fn parse(&self, buffers: &Buffers, memory: &GuestMap) -> Result<(Request, Vec<Operation>), Refusal> {
        const OUTSIDE: Refusal = Refusal::Invalid("a buffer lies outside guest memory");
        let mut header = [0; request::HEADER_BYTES];
        let header_bytes = request::HEADER_BYTES as u64;
        let readable = buffers
            .readable_bytes()
            .checked_sub(header_bytes)
            .ok_or(Refusal::Invalid("the header is shorter than 16 bytes"))?;
        buffers.copy_out(memory, 0, &mut header).map_err(|_| OUTSIDE)?;
        let writable = buffers.writable_bytes() - 1;
        let block_size = self.backing.block_size();
        let request = match request::parse(request::Shape {
            header: &header,
            readable,
            writable,
            block_size,
        })? {
            Parsed::Ready(request) => request,
            Parsed::NeedsSegments(kind) => {
                let mut bytes = vec![0; usize::try_from(readable).map_err(|_| OUTSIDE)?];
                buffers
                    .copy_out(memory, header_bytes, &mut bytes)
                    .map_err(|_| OUTSIDE)?;
                request::segments(kind, &bytes, block_size)?
            }
        };
        let operations = match &request {
            Request::Read(Run { offset, length }) => vec![Operation::Read {
                offset: *offset,
                length: *length,
            }],
            Request::Write(_) => {
                // It is copied in parts when others are on their way already.
                if !buffers.readable_is_inside(memory) {
                    return Err(OUTSIDE);
                }
                Vec::new()
            }
            Request::Flush => vec![Operation::Flush],
            Request::Identify => Vec::new(),
            Request::Discard(runs) => runs
                .iter()
                .map(|run| Operation::Discard {
                    offset: run.offset,
                    length: run.length,
                })
                .collect(),
            Request::WriteZeroes(runs) => runs
                .iter()
                .map(|run| Operation::WriteZeroes {
                    offset: run.offset,
                    length: run.length,
                })
                .collect(),
        };
        Ok((request, operations))
    }

    fn submit(
        self: &Rc<Self>,
        head: u16,
        buffers: Buffers,
        memory: GuestMemoryLoadGuard<GuestMap>,
        request: &Request,
        operations: Vec<Operation>,
        ticket: Ticket,
    ) {
        let bytes = match request {
            Request::Read(run) | Request::Write(run) => run.length,
            _ => 0,
        };
        if let Request::Write(run) = request {
            let pending = self.pending(head, buffers, memory, bytes, run.parts().count(), ticket);
            return self.submit_write(&pending, *run);
        }
        let pending = self.pending(head, buffers, memory, bytes, operations.len(), ticket);
        if operations.is_empty() {
            let status = match request {
                Request::Identify => pending.identify(),
                _ => VIRTIO_BLK_S_OK,
            };
            pending.finish(status);
            return;
        }
        for operation in operations {
            let pending = Rc::clone(&pending);
            self.backing
                .device()
                .submit(operation, Box::new(move |result| pending.part_done(result)));
        }
    }

    fn submit_write(&self, pending: &Rc<Pending>, run: Run) {
        for part in run.parts() {
            let skip = request::HEADER_BYTES as u64 + part.offset - run.offset;
            // A part is shorter than what fits into memory.
            let length = usize::try_from(part.length).unwrap_or(usize::MAX);
            let mut buffer = self.backing.device().buffer(length);
            let copied = pending
                .buffers
                .copy_out(&pending.memory, skip, buffer.bytes_mut());
            if copied.is_err() {
                pending.part_ended(pending.copied(copied));
                continue;
            }
            let operation = Operation::Write {
                offset: part.offset,
                data: vec![buffer.freeze()],
            };
            let pending = Rc::clone(pending);
            self.backing
                .device()
                .submit(operation, Box::new(move |result| pending.part_done(result)));
        }
    }

    fn pending(
        self: &Rc<Self>,
        head: u16,
        buffers: Buffers,
        memory: GuestMemoryLoadGuard<GuestMap>,
        bytes: u64,
        parts: usize,
        ticket: Ticket,
    ) -> Rc<Pending> {
        self.backing.hold(bytes);
        let (parts, status) = (Cell::new(parts), Cell::new(VIRTIO_BLK_S_OK));
        Rc::new(Pending {
            ring: Rc::clone(self),
            head,
            buffers,
            memory,
            bytes,
            parts,
            status,
            ticket,
        })
    }

    fn answer(&self, head: u16, written: u32, ticket: Ticket) {
        self.answered.borrow_mut().push((head, written, ticket));
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.is_answered(head);
        if !self.turning.get() {
            self.wake.notify_one();
        }
    }

    fn publish(&self) {
        let answered = self.answered.take();
        if answered.is_empty() {
            return;
        }
        self.put_into_ring(&answered);
        // After that: who waits for a rest may look into the ring.
        let tickets = answered.into_iter().map(|(_, _, ticket)| ticket);
        self.backing.traffic().publish(tickets);
    }

    fn put_into_ring(&self, answered: &[(u16, u32, Ticket)]) {
        let mut state = self.vring.get_mut();
        for (head, written, _) in answered {
            // One by one, each in the order that the log asks for: what is published is a prefix of what
            // was answered, whenever this process ends.
            if self
                .log
                .as_ref()
                .is_some_and(|log| log.publishing(*head).is_err())
            {
                return self.give_up(LOG_UNUSABLE);
            }
            if state.add_used(*head, *written).is_err() {
                return self.give_up("its used ring is outside guest memory");
            }
            let used = state.get_queue().next_used();
            if self
                .log
                .as_ref()
                .is_some_and(|log| log.published(*head, used).is_err())
            {
                return self.give_up(LOG_UNUSABLE);
            }
        }
        // A failed look at the guest's wish means an interrupt too many, never one too few.
        if state.needs_notification().unwrap_or(true)
            && let Err(cause) = state.signal_used_queue()
            && let Some(count) = self.backing.complaint()
        {
            warn!(ring = self.index, count, %cause, "cannot interrupt the guest");
        }
    }
}

impl Pending {
    fn part_done(&self, result: Result<Outcome, DeviceError>) {
        let status = match result {
            Ok(Outcome::Done) => VIRTIO_BLK_S_OK,
            Ok(Outcome::Data(pieces)) => self.deliver(&pieces),
            Ok(Outcome::Map(_) | Outcome::Differs { .. }) => VIRTIO_BLK_S_IOERR,
            Err(cause) => {
                if let Some(count) = self.ring.backing.complaint() {
                    warn!(ring = self.ring.index, count, %cause, "a request has failed");
                }
                VIRTIO_BLK_S_IOERR
            }
        };
        self.part_ended(status);
    }

    fn part_ended(&self, status: u32) {
        self.status.set(self.status.get().max(status));
        self.parts.set(self.parts.get().saturating_sub(1));
        if self.parts.get() == 0 {
            self.finish(self.status.get());
        }
    }

    fn deliver(&self, pieces: &[Bytes]) -> u32 {
        let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if length != self.bytes {
            error!(
                asked = self.bytes,
                length, "the device answered a read with another length"
            );
            return VIRTIO_BLK_S_IOERR;
        }
        self.copied(self.buffers.copy_in(&self.memory, pieces))
    }

    fn identify(&self) -> u32 {
        let serial = Bytes::copy_from_slice(self.ring.backing.serial());
        let room = usize::try_from(self.buffers.writable_bytes() - 1).unwrap_or(usize::MAX);
        self.copied(
            self.buffers
                .copy_in(&self.memory, &[serial.slice(..room.min(SERIAL_BYTES))]),
        )
    }

    fn copied(&self, result: Result<(), ChainError>) -> u32 {
        let Err(reason) = result else {
            return VIRTIO_BLK_S_OK;
        };
        if let Some(count) = self.ring.backing.complaint() {
            warn!(ring = self.ring.index, count, %reason, "a request cannot be answered with its data");
        }
        VIRTIO_BLK_S_IOERR
    }

    fn finish(&self, status: u32) {
        let status = u8::try_from(status).unwrap_or(u8::MAX);
        if let Err(reason) = self.buffers.write_status(&self.memory, status)
            && let Some(count) = self.ring.backing.complaint()
        {
            warn!(ring = self.ring.index, count, %reason, "a request cannot be given its status");
        }
        self.ring.backing.release(self.bytes);
        // The status is the last writable byte, so a guest looks at all of them.
        let written = u32::try_from(self.buffers.writable_bytes()).unwrap_or(u32::MAX);
        let mut ticket = self.ticket;
        if u32::from(status) != VIRTIO_BLK_S_OK {
            ticket.has_failed();
        }
        self.ring.answer(self.head, written, ticket);
    }
}
