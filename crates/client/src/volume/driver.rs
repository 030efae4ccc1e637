//! Hands events to one owner and carries out what it answers: the one place that both pass by. A volume has one, or two
//! while it moves to another pool; what concerns the whole volume goes to [`super::open`].
//!
//! Nothing here waits. Events that come up while actions are carried out (a continuation that
//! submits the next operation) queue up behind them, so the owner is never entered twice. Requests
//! gather in the outboxes until the task [`send_gathered`] has its turn: all that one turn of the
//! loop brings forth leaves in one system call a disk.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use direct::area::Area;
use erasure::Code;
use protocol::DiskId;
use protocol::message::Request;
use protocol::rows::RowCode;
use protocol::session::{SessionRequest, VolumeView};
use replication::Moment;
use replication::owner::{Action, Event, IoId, Operation, Outcome, Owner};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tracing::{info, warn};

use super::connection::{self, DiskConnection};
use super::direct::{self as direct_reads, Begun, DirectReads, ReadRing};
use super::open::Open;
use super::{OpenError, device_error, timer};
use crate::clock::now;
use crate::device::{self, Continuation, DeviceError, WriteBuffer};
use crate::exclusion::{Span, overlap};
use crate::request;

/// Writes from this length on are worth a place in shared memory: less has no whole chunk.
const SHARED_MIN: usize = protocol::CHUNK_SIZE as usize;

/// Which part of a volume a driver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// All of it, or while it moves what is moved already.
    Head,
    /// What is not moved yet.
    Source,
}

/// One owner's moving parts.
pub(super) struct Driver {
    pub(super) open: Rc<Open>,
    side: Cell<Side>,
    owner: RefCell<Owner>,
    events: RefCell<VecDeque<Event>>,
    draining: Cell<bool>,
    next_io: Cell<u64>,
    /// Which bytes each has to do with, and who is told.
    operations: RefCell<HashMap<IoId, (Option<Span>, Continuation)>>,
    /// Somebody waits for operations to be answered.
    barrier: Notify,
    barriers: Cell<usize>,
    opened: Cell<bool>,
    closed: Cell<bool>,
    disks: RefCell<BTreeMap<DiskId, Rc<DiskConnection>>>,
    pub(super) direct: DirectReads,
    /// Memory for large writes, once some disk of this machine was met.
    area: RefCell<Option<Area>>,
    /// Writes whose data went through it.
    pub(super) shared_writes: Cell<u64>,
    pub(super) timer: timer::Timer,
    /// Something waits in an outbox.
    gathered: Notify,
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Driver {
    /// Makes what drives one owner. Nothing is done before [`Driver::begin`].
    pub(super) fn new(
        open: &Rc<Open>,
        view: VolumeView,
        leased: Moment,
        ring: &mut Option<ReadRing>,
    ) -> Result<(Rc<Self>, Vec<Action>), OpenError> {
        let mut actions = Vec::new();
        let code = row_code(&view)?;
        let owner = Owner::open_encoded(now(), leased, view, code, &mut actions);
        let driver = Rc::new(Self {
            open: Rc::clone(open),
            side: Cell::new(Side::Head),
            owner: RefCell::new(owner),
            events: RefCell::default(),
            draining: Cell::new(true),
            next_io: Cell::new(0),
            operations: RefCell::default(),
            barrier: Notify::new(),
            barriers: Cell::new(0),
            opened: Cell::new(false),
            closed: Cell::new(false),
            disks: RefCell::default(),
            direct: DirectReads::new(ring.take(), open.read_cache()),
            area: RefCell::default(),
            shared_writes: Cell::new(0),
            timer: timer::Timer::default(),
            gathered: Notify::new(),
            tasks: RefCell::default(),
        });
        Ok((driver, actions))
    }

    /// Carries out what the owner began with, once whoever is told of it can find this driver.
    pub(super) fn begin(self: &Rc<Self>, actions: Vec<Action>) {
        let tasks = [
            spawn_local(timer::run(Rc::clone(self))),
            spawn_local(send_gathered(Rc::clone(self))),
        ];
        self.tasks
            .borrow_mut()
            .extend(tasks.map(|task| task.abort_handle()));
        for action in actions {
            self.perform(action);
        }
        self.drain();
        let followed = self.direct.wake().map(|wake| self.follow_direct(wake));
        if let Err(error) = followed {
            info!(%error, "direct reads cannot be waited for");
        }
    }

    /// What this one has is not where the volume goes on any more.
    pub(super) fn becomes_source(&self) {
        self.side.set(Side::Source);
    }

    pub(super) fn side(&self) -> Side {
        self.side.get()
    }

    /// Takes an event in, and carries out all that follows from it.
    pub(super) fn event(self: &Rc<Self>, event: Event) {
        self.events.borrow_mut().push_back(event);
        if !self.draining.replace(true) {
            self.drain();
        }
    }

    fn drain(self: &Rc<Self>) {
        let mut actions = Vec::new();
        loop {
            let Some(event) = self.events.borrow_mut().pop_front() else {
                break;
            };
            self.owner.borrow_mut().apply(now(), event, &mut actions);
            for action in actions.drain(..) {
                self.perform(action);
            }
        }
        self.draining.set(false);
        self.timer.arm(self.owner.borrow().deadline(now()));
    }

    fn perform(self: &Rc<Self>, action: Action) {
        match action {
            Action::Send {
                disk,
                number,
                request,
            } => self.send(disk, number, &request),
            Action::Complete { id, result } => {
                let done = self.operations.borrow_mut().remove(&id);
                if let Some((_, done)) = done {
                    done(self.answer(result));
                }
                if self.barriers.get() > 0 {
                    self.barrier.notify_waiters();
                }
            }
            Action::Connect(view) => connection::connect(self, &mut self.disks.borrow_mut(), view),
            Action::Disconnect { disk } => {
                if let Some(connection) = self.disks.borrow_mut().remove(&disk) {
                    connection.stop();
                    self.direct.close(disk);
                }
            }
            Action::Reset { disk } => {
                if let Some(connection) = self.disks.borrow().get(&disk) {
                    connection.reset();
                }
            }
            Action::Suspect { disk, reason } => self.suspect(disk, reason, false),
            Action::Slow { disk, reason } => self.suspect(disk, reason, true),
            Action::Renew => self.open.renew(self.side.get()),
            Action::WantView => self.open.want_view(),
            Action::Quiesced { token } => self.open.quiesced(token),
            Action::Opened => {
                self.opened.set(true);
                self.open.check_opened();
            }
            Action::Closed => {
                self.closed.set(true);
                self.open.check_closed();
            }
            Action::Deposed => self.open.deposed(self.side.get()),
            Action::Lost => self.open.lost(),
            Action::Resized(size) => self.open.resized(self.side.get(), size),
        }
    }

    fn send(&self, disk: DiskId, number: u64, request: &Request) {
        if let Some(connection) = self.disks.borrow().get(&disk) {
            match self.direct.begin(disk, number, request) {
                Begun::Here => {}
                Begun::AtDisk(question) => {
                    if connection.push(number, request) {
                        self.shared_writes.set(self.shared_writes.get() + 1);
                    }
                    if is_large_write(request) {
                        // The disk begins while the next part is being copied.
                        connection.send();
                    }
                    if let Some((number, question)) = question {
                        connection.push(number, &question);
                    }
                }
            }
            self.gathered.notify_one();
        }
    }

    /// The memory to offer to a disk of this machine; nothing if the system gives none.
    pub(super) fn area(&self) -> Option<Area> {
        let mut area = self.area.borrow_mut();
        if area.as_ref().is_none_or(Area::is_retired) {
            *area = Area::new()
                .inspect_err(|error| info!(%error, "no memory can be shared: writes go through the socket"))
                .ok();
        }
        area.clone()
    }

    /// Where to put the data of a write.
    pub(super) fn buffer(&self, length: usize) -> WriteBuffer {
        let area = self.area.borrow();
        let piece = area
            .as_ref()
            .filter(|_| length >= SHARED_MIN)
            .and_then(|area| area.piece(length));
        piece.map_or_else(|| WriteBuffer::new(length), WriteBuffer::shared)
    }

    /// A disk of this machine lets its file be read.
    pub(super) fn share(self: &Rc<Self>, disk: DiskId, shared: &direct_reads::Shared) {
        match self.direct.open(disk, shared) {
            Ok(wake) => self.follow_direct(wake),
            Err(error) => info!(%disk, %error, "its file cannot be read from here: reads go through it"),
        }
    }

    fn follow_direct(self: &Rc<Self>, wake: Option<AsyncFd<OwnedFd>>) {
        if let Some(wake) = wake {
            let task = spawn_local(direct_reads::follow(Rc::clone(self), wake));
            self.tasks.borrow_mut().push(task.abort_handle());
        }
    }

    /// Takes in the reads that this process did itself; those that failed go to the disk.
    pub(super) fn take_direct(self: &Rc<Self>) {
        for (disk, number, outcome) in self.direct.finished() {
            match outcome {
                Ok(bytes) => self.event(Event::ReadDirectly { disk, number, bytes }),
                Err(request) => {
                    if let Some(connection) = self.disks.borrow().get(&disk) {
                        connection.push(number, &request);
                        self.gathered.notify_one();
                    }
                }
            }
        }
    }

    fn answer(
        &self,
        result: Result<Outcome, replication::owner::Failure>,
    ) -> Result<device::Outcome, DeviceError> {
        match result {
            Ok(Outcome::Done) => Ok(device::Outcome::Done),
            Ok(Outcome::Data(pieces)) => Ok(device::Outcome::Data(pieces)),
            Ok(Outcome::Map(runs)) => Ok(device::Outcome::Map(runs)),
            Err(failure) => Err(device_error(failure, self.owner.borrow().view())),
        }
    }

    fn suspect(&self, disk: DiskId, reason: String, slow: bool) {
        let owner = self.owner.borrow();
        let view = owner.view();
        warn!(volume = %view.name, disk = %disk, reason, "a disk is under suspicion");
        let (volume, generation) = (view.volume, view.generation);
        self.open.session.tell(&SessionRequest::Suspect {
            volume,
            generation,
            disk,
            reason,
            slow,
        });
    }

    pub(super) fn submit(self: &Rc<Self>, operation: Operation, done: Continuation) {
        let id = IoId(self.next_io.replace(self.next_io.get() + 1));
        let span = span_of(&operation);
        self.operations.borrow_mut().insert(id, (span, done));
        self.event(Event::Submit { id, operation });
    }

    /// Starts an operation and awaits its answer.
    pub(super) async fn ask(self: &Rc<Self>, operation: Operation) -> Result<device::Outcome, DeviceError> {
        request::answered(|done| self.submit(operation, done)).await
    }

    /// Waits until all that was submitted before is answered.
    pub(super) async fn settled(&self) {
        let before = self.next_io.get();
        self.until_none(&|id, _| id.0 < before).await;
    }

    /// Waits until all that was submitted before and overlaps this range is answered.
    pub(super) async fn settled_at(&self, span: Span) {
        let before = self.next_io.get();
        let concerns =
            |id: IoId, other: Option<Span>| id.0 < before && other.is_some_and(|other| overlap(span, other));
        self.until_none(&concerns).await;
    }

    /// Waits until nothing that is not answered is meant.
    async fn until_none(&self, meant: &dyn Fn(IoId, Option<Span>) -> bool) {
        self.barriers.set(self.barriers.get() + 1);
        loop {
            let mut answered = pin!(self.barrier.notified());
            answered.as_mut().enable();
            let left = |(id, (span, _)): (&IoId, &(Option<Span>, Continuation))| meant(*id, *span);
            if !self.operations.borrow().iter().any(left) {
                break;
            }
            answered.await;
        }
        self.barriers.set(self.barriers.get() - 1);
    }

    pub(super) fn waiting(&self) -> Vec<String> {
        self.owner.borrow().waiting(now())
    }

    /// Whether nothing is to be encoded any more, as far as is known.
    pub(super) fn is_encoded(&self) -> bool {
        self.owner.borrow().is_encoded()
    }

    pub(super) fn view<T>(&self, look: impl FnOnce(&VolumeView) -> T) -> T {
        look(self.owner.borrow().view())
    }

    /// Whether its take-over is done.
    pub(super) fn is_opened(&self) -> bool {
        self.opened.get()
    }

    /// Whether all that was submitted is done, and nothing more will be.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Reads directly with another driver's ring, if it has none of its own: who gave up the right to make one cannot.
    pub(super) fn take_ring_of(self: &Rc<Self>, other: &Self) {
        let Some(ring) = other.direct.take_ring() else {
            return;
        };
        match self.direct.adopt(ring) {
            Ok(None) => {}
            Ok(wake) => {
                self.follow_direct(wake);
                // Their disks are asked anew where their files are.
                for connection in self.disks.borrow().values() {
                    connection.reset();
                }
            }
            Err(error) => info!(%error, "direct reads cannot be waited for"),
        }
    }

    /// Ends all tasks, and with them all connections.
    pub(super) fn stop(&self) {
        for connection in std::mem::take(&mut *self.disks.borrow_mut()).into_values() {
            connection.stop();
        }
        for task in self.tasks.borrow_mut().drain(..) {
            task.abort();
        }
    }
}

/// Which bytes an operation has to do with; none if it is a flush.
fn span_of(operation: &Operation) -> Option<Span> {
    let (offset, length) = match operation {
        Operation::Read { offset, length }
        | Operation::Zero { offset, length }
        | Operation::Map { offset, length } => (*offset, *length),
        Operation::Write { offset, bytes, .. } => (*offset, bytes.len() as u64),
        Operation::Flush => return None,
    };
    Some((offset, offset.saturating_add(length)))
}

/// Sends what has gathered in the outboxes, once a turn of the loop.
async fn send_gathered(driver: Rc<Driver>) {
    loop {
        driver.gathered.notified().await;
        for connection in driver.disks.borrow().values() {
            connection.send();
        }
        if driver.direct.submit() {
            driver.take_direct();
        }
    }
}

/// How the volume's pool encodes rows, if it does.
fn row_code(view: &VolumeView) -> Result<Option<Arc<dyn RowCode>>, OpenError> {
    let Some(profile) = view.erasure else {
        return Ok(None);
    };
    let code = Code::new(profile).map_err(|source| OpenError::Encoding {
        volume: view.name.clone(),
        source,
    })?;
    Ok(Some(Arc::new(code)))
}

fn is_large_write(request: &Request) -> bool {
    matches!(request, Request::Write { write, .. } if write.range.has_whole_chunk())
}
