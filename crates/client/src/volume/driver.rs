//! Hands events to the owner and carries out what it answers: the one place that both pass by.
//!
//! Nothing here waits. Events that come up while actions are carried out (a continuation that
//! submits the next operation) queue up behind them, so the owner is never entered twice. Requests
//! gather in the outboxes until the task [`send_gathered`] has its turn: all that one turn of the
//! loop brings forth leaves in one system call a disk.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use direct::area::Area;
use erasure::Code;
use protocol::DiskId;
use protocol::message::Request;
use protocol::rows::RowCode;
use protocol::session::{SessionRequest, VolumeView};
use replication::owner::{Action, Event, IoId, Operation, Outcome, Owner};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, spawn_local};
use tracing::{info, warn};

use super::connection::{self, DiskConnection};
use super::direct::{self as direct_reads, Begun, DirectReads, ReadRing};
use super::session::{self, OpenedSession, Session};
use super::{OpenError, again, device_error, timer};
use crate::clock::now;
use crate::device::{Continuation, DeviceError, DeviceEvent, DeviceInfo, Listener, WriteBuffer};
use crate::{device, request};

/// Writes from this length on are worth a place in shared memory: less has no whole chunk.
const SHARED_MIN: usize = protocol::CHUNK_SIZE as usize;

/// How far an open volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The take-over is under way.
    Opening,
    /// Operations are carried out.
    Open,
    /// All that was submitted is done, and nothing more will be.
    Closed,
    /// Somebody else has it.
    Lost,
}

/// One open volume's moving parts.
pub(super) struct Driver {
    owner: RefCell<Owner>,
    events: RefCell<VecDeque<Event>>,
    draining: Cell<bool>,
    next_io: Cell<u64>,
    operations: RefCell<HashMap<IoId, Continuation>>,
    info: RefCell<DeviceInfo>,
    listener: RefCell<Option<Listener>>,
    phase: watch::Sender<Phase>,
    disks: RefCell<BTreeMap<DiskId, Rc<DiskConnection>>>,
    pub(super) direct: DirectReads,
    /// Memory for large writes, once some disk of this machine was met.
    area: RefCell<Option<Area>>,
    /// Writes whose data went through it.
    pub(super) shared_writes: Cell<u64>,
    pub(super) session: Session,
    pub(super) timer: timer::Timer,
    /// Something waits in an outbox.
    gathered: Notify,
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Driver {
    /// Starts to drive the volume of a session that was just opened. The ring is taken only if that can be done.
    pub(super) fn start(opened: OpenedSession, ring: &mut Option<ReadRing>) -> Result<Rc<Self>, OpenError> {
        let mut actions = Vec::new();
        let view = opened.view.clone();
        let code = row_code(&view)?;
        let owner = Owner::open_encoded(now(), opened.leased, opened.view, code, &mut actions);
        let driver = Rc::new(Self {
            owner: RefCell::new(owner),
            events: RefCell::default(),
            draining: Cell::new(true),
            next_io: Cell::new(0),
            operations: RefCell::default(),
            info: RefCell::new(device_info(&view)),
            listener: RefCell::default(),
            phase: watch::Sender::new(Phase::Opening),
            disks: RefCell::default(),
            direct: DirectReads::new(ring.take()),
            area: RefCell::default(),
            shared_writes: Cell::new(0),
            session: opened.session,
            timer: timer::Timer::default(),
            gathered: Notify::new(),
            tasks: RefCell::default(),
        });
        let tasks = [
            spawn_local(session::keep(Rc::clone(&driver))),
            spawn_local(again::take(Rc::clone(&driver))),
            spawn_local(timer::run(Rc::clone(&driver))),
            spawn_local(send_gathered(Rc::clone(&driver))),
        ];
        driver
            .tasks
            .borrow_mut()
            .extend(tasks.map(|task| task.abort_handle()));
        for action in actions {
            driver.perform(action);
        }
        driver.drain();
        let followed = driver.direct.wake().map(|wake| driver.follow_direct(wake));
        if let Err(error) = followed {
            info!(%error, "direct reads cannot be waited for");
        }
        Ok(driver)
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
                if let Some(done) = done {
                    done(self.answer(result));
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
            Action::Renew => self.session.renew(&self.owner.borrow()),
            Action::WantView => self.session.want_view(&self.owner.borrow()),
            Action::Suspect { disk, reason } => self.suspect(disk, reason, false),
            Action::Slow { disk, reason } => self.suspect(disk, reason, true),
            Action::Quiesced { token } => {
                let volume = self.owner.borrow().view().volume;
                self.session.tell(&SessionRequest::Quiesced { volume, token });
            }
            Action::Opened => self.enter(Phase::Open),
            Action::Closed => self.enter(Phase::Closed),
            Action::Deposed => self.session.deposed(),
            Action::Lost => {
                self.enter(Phase::Lost);
                self.tell(DeviceEvent::Lost);
            }
            Action::Resized(size) => {
                self.info.borrow_mut().size = size;
                self.tell(DeviceEvent::Resized(size));
            }
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
        self.session.tell(&SessionRequest::Suspect {
            volume,
            generation,
            disk,
            reason,
            slow,
        });
    }

    fn enter(&self, phase: Phase) {
        // What is lost stays lost, also when it is closed afterwards.
        self.phase.send_if_modified(|present| {
            let changes = *present != Phase::Lost && *present != phase;
            if changes {
                *present = phase;
            }
            changes
        });
        let name = &self.info.borrow().name;
        info!(volume = %name, phase = ?*self.phase.borrow(), "the volume's phase changed");
    }

    pub(super) fn tell(&self, event: DeviceEvent) {
        // Taken out while it runs, so that it may ask for another one itself.
        let listener = self.listener.borrow_mut().take();
        if let Some(listener) = listener {
            listener(event);
            self.listener.borrow_mut().get_or_insert(listener);
        }
    }

    pub(super) fn submit(self: &Rc<Self>, operation: Operation, done: Continuation) {
        let id = IoId(self.next_io.replace(self.next_io.get() + 1));
        self.operations.borrow_mut().insert(id, done);
        self.event(Event::Submit { id, operation });
    }

    pub(super) fn info(&self) -> DeviceInfo {
        self.info.borrow().clone()
    }

    /// Refuses what must not be started.
    pub(super) fn check(&self, operation: &device::Operation) -> Result<(), DeviceError> {
        request::check(operation, &self.info.borrow())
    }

    pub(super) fn listen(&self, listener: Listener) {
        *self.listener.borrow_mut() = Some(listener);
    }

    pub(super) fn waiting(&self) -> Vec<String> {
        self.owner.borrow().waiting(now())
    }

    pub(super) fn view<T>(&self, look: impl FnOnce(&VolumeView) -> T) -> T {
        look(self.owner.borrow().view())
    }

    /// Whether the volume belongs to somebody else by now.
    pub(super) fn is_lost(&self) -> bool {
        *self.phase.borrow() == Phase::Lost
    }

    /// Asks for the present view. False if it does not come.
    pub(super) async fn refresh(&self) -> bool {
        let taken_in = self.session.refresh(&self.owner.borrow());
        taken_in.await.is_ok()
    }

    pub(super) async fn opened(&self) {
        // The sender is `self`, so the channel cannot be closed.
        let _ = self
            .phase
            .subscribe()
            .wait_for(|phase| *phase != Phase::Opening)
            .await;
    }

    pub(super) async fn close(self: &Rc<Self>) {
        self.event(Event::Close);
        let mut phase = self.phase.subscribe();
        let _ = phase
            .wait_for(|phase| matches!(phase, Phase::Closed | Phase::Lost))
            .await;
        if !self.is_lost() {
            session::give_back(self).await;
        }
        self.stop();
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

pub(super) fn device_info(view: &VolumeView) -> DeviceInfo {
    DeviceInfo {
        name: view.name.clone(),
        // 20 characters, as many as a virtio serial number has.
        serial: format!("stgd{:016x}", view.volume.0),
        size: view.size,
        read_only: view.read_only,
        alignment: protocol::BLOCK_SIZE,
    }
}
