//! Moves values between connections, replica and store: the one place that all three pass by.
//!
//! Nothing here waits. What one turn of the loop brings forth gathers: the store gets one kick, so
//! that all writes of the turn share a log write, and each connection one write of answers.
//!
//! One file because the three meet here and nowhere else.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use client::transport::{Role, Stream};
use coordination::ClusterMap;
use protocol::message::{Refusal, Request, Response};
use protocol::recovery::{Question, Told};
use protocol::session::SlotState;
use protocol::storage::{Change, StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, PgId};
use replication::membership::held;
use replication::replica::{Action, ConnectionId, Event, Remembered, Replica};
use store::{Answer, Store};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, error};

use super::alarms::Alarms;
use super::bookmark::Bookmark;
use super::command::{Command, Figures, Times};
use super::connection::Connection;
use super::copies::Copies;
use super::ledger::Ledger;
use super::returns::Returns;
use super::scrubs::Scrubs;
use super::sources::{ERRANDS_MAX, Errand, Reach};
use super::vouched::Vouched;
use crate::moment::wall_clock_ms;
use crate::slow::exile;

/// The kinds of requests whose times are told.
const REQUEST_KINDS: &[&str] = &["read", "write", "recovery", "other"];
/// Requests under way that are timed: more than a busy disk has.
const TIMED_MAX: usize = 4096;
/// Questions of other disks that are being answered: each costs up to 4 MiB.
const QUESTIONS_MAX: usize = 32;

type Reclaimed = oneshot::Sender<Result<(), StorageError>>;

/// One disk's moving parts.
pub(super) struct Driver {
    replica: RefCell<Replica>,
    store: RefCell<Store>,
    events: RefCell<VecDeque<Event>>,
    draining: Cell<bool>,
    connections: RefCell<HashMap<ConnectionId, Rc<Connection>>>,
    next_connection: Cell<u64>,
    /// Connections with answers to send.
    answered: RefCell<Vec<Rc<Connection>>>,
    /// The daemon's own requests to the store, by token.
    commanded: RefCell<HashMap<u64, Reclaimed>>,
    next_command: Cell<u64>,
    requests: Cell<u64>,
    /// How long the store takes.
    times: RefCell<Ledger>,
    /// How long its medium takes.
    medium: Rc<RefCell<Ledger>>,
    /// Where front ends of this machine find the disk's files; nothing if they are not to read them.
    shared: Option<Response>,
    poisoned: Cell<bool>,
    /// How this disk reaches others, and who it is.
    reach: Reach,
    /// What the replica wants of others.
    errands: mpsc::Sender<Errand>,
    /// What is copied to this disk.
    pub(super) copies: RefCell<Copies>,
    returns: RefCell<Returns>,
    /// Whether the disk is in sync in all its groups, by the last map.
    whole: Cell<bool>,
    alarms: Alarms,
    vouched: Vouched,
    /// Scrubs of this disk, and what tells that one has taken a step or was ordered.
    pub(super) scrubs: RefCell<Scrubs>,
    pub(super) scrubbed: Rc<Notify>,
    /// Other disks' questions, by the number that the replica knows them by.
    questions: RefCell<HashMap<u64, (ConnectionId, u64)>>,
    next_question: Cell<u64>,
    /// Something gathered: a turn is wanted.
    pub(super) gathered: Notify,
}

impl Driver {
    /// Also gives the queue of its errands.
    pub(super) fn new(
        store: Store,
        medium: Rc<RefCell<Ledger>>,
        directory: &Path,
        reach: Reach,
    ) -> (Rc<Self>, mpsc::Receiver<Errand>) {
        let map = reach.map.current();
        let (errands, receiver) = mpsc::channel(ERRANDS_MAX);
        let shared = store.witness().and_then(|witness| {
            Some(Response::Shared {
                directory: std::path::absolute(directory)
                    .ok()?
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
                opening: witness.opening(),
            })
        });
        let vouched = Vouched::of(directory);
        let bookmark = Bookmark::of(directory, reach.cluster, reach.disk);
        let remembered = Remembered {
            generations: store.generations(),
            intervals: store.intervals(),
            doubts: store.doubts(),
            vouched: vouched.lately(),
        };
        let mut actions = Vec::new();
        let replica = Replica::new(store.format().disk, remembered, map, &mut actions)
            .with_codes(Arc::new(erasure::Codes::default()));
        let driver = Rc::new(Self {
            replica: RefCell::new(replica),
            store: RefCell::new(store),
            events: RefCell::default(),
            draining: Cell::new(false),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            answered: RefCell::default(),
            commanded: RefCell::default(),
            next_command: Cell::new(0),
            requests: Cell::new(0),
            times: RefCell::new(Ledger::new(REQUEST_KINDS, TIMED_MAX)),
            medium,
            shared,
            poisoned: Cell::new(false),
            copies: RefCell::new(Copies::new(reach.rate)),
            scrubs: RefCell::new(Scrubs::new(reach.scrub_rate, bookmark)),
            scrubbed: Rc::default(),
            reach,
            errands,
            returns: RefCell::default(),
            whole: Cell::new(true),
            alarms: Alarms::default(),
            vouched,
            questions: RefCell::default(),
            next_question: Cell::new(0),
            gathered: Notify::new(),
        });
        for action in actions {
            driver.perform(action);
        }
        driver.gathered.notify_one();
        (driver, receiver)
    }

    /// Takes an event in, and carries out all that follows from it but the sending.
    pub(super) fn event(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
        if self.draining.replace(true) {
            return;
        }
        let mut actions = Vec::new();
        loop {
            let Some(event) = self.events.borrow_mut().pop_front() else {
                break;
            };
            self.replica.borrow_mut().apply(event, &mut actions);
            for action in actions.drain(..) {
                self.perform(action);
            }
        }
        self.draining.set(false);
        self.gathered.notify_one();
    }

    fn perform(&self, action: Action) {
        match action {
            Action::Reply {
                connection,
                number,
                response,
            } => self.reply(connection, number, &response),
            Action::Store { token, request } => {
                let (kind, bytes) = amount(&request);
                self.times.borrow_mut().begin(token, kind, bytes);
                self.store.borrow_mut().submit(token, request);
            }
            Action::Reclaimed { token, result } => {
                if let Some(answer) = self.commanded.borrow_mut().remove(&token) {
                    // Whoever asked may have given up.
                    let _ = answer.send(result);
                }
            }
            Action::Readmit => {
                if let Some(witness) = self.store.borrow().witness() {
                    witness.readmit();
                }
            }
            Action::Question { to, number, question } => {
                self.run_errand(Errand::Ask { to, number, question });
            }
            Action::Propose {
                pg,
                interval,
                from,
                to,
            } => self.run_errand(Errand::Propose {
                pg,
                interval,
                from,
                to,
            }),
            Action::Tell { number, told, .. } => self.tell(number, told),
            Action::Scrubbed { run, progress } => {
                let mut scrubs = self.scrubs.borrow_mut();
                if self.poisoned.get() {
                    scrubs.stops(run);
                }
                scrubs.take_in(run, progress, Instant::now());
                drop(scrubs);
                self.scrubbed.notify_one();
            }
            Action::Alarm { volume, after_ms } => self.alarms.set(volume, after_ms),
            // The map's keeper watches the coordination store, so a newer map is on its way.
            Action::Refresh => debug!("a request names a newer map than the one here"),
        }
    }

    /// Gives an errand to whoever runs them; with no room it has failed at once.
    fn run_errand(&self, errand: Errand) {
        if let Err(error) = self.errands.try_send(errand) {
            let failed = match error.into_inner() {
                Errand::Ask { number, .. } => Event::Told {
                    number,
                    told: Err(Refusal::Busy),
                },
                Errand::Propose { pg, .. } => Event::Proposed { pg },
            };
            // It is taken up when the events before it are done.
            self.events.borrow_mut().push_back(failed);
        }
    }

    /// Another disk asks.
    pub(super) fn question(&self, connection: ConnectionId, number: u64, question: Question) {
        let token = self.next_question.get();
        let mut questions = self.questions.borrow_mut();
        if questions.len() >= QUESTIONS_MAX {
            drop(questions);
            return self.reply(connection, number, &Response::Refused(Refusal::Busy));
        }
        self.next_question.set(token + 1);
        questions.insert(token, (connection, number));
        drop(questions);
        self.event(Event::Question {
            from: question.from,
            number: token,
            question,
        });
    }

    fn tell(&self, token: u64, told: Result<Told, Refusal>) {
        let Some((connection, number)) = self.questions.borrow_mut().remove(&token) else {
            return;
        };
        let response = match told {
            Ok(told) if told.fits() => Response::Told(told),
            Ok(_) => {
                error!("what a disk that comes back must know does not fit into a message");
                Response::Refused(Refusal::Invalid)
            }
            Err(refusal) => Response::Refused(refusal),
        };
        self.reply(connection, number, &response);
    }

    /// Whether whoever is at the other end may ask in the name of a disk that comes back: only its own node.
    pub(super) fn speaks_for(&self, stream: &Stream, disk: DiskId) -> bool {
        let map = self.reach.map.current();
        let Some(node) = map.disks().get(&disk).map(|disk| disk.record.node) else {
            return false;
        };
        match stream {
            Stream::Unix(_) => node == self.reach.node,
            // Plaintext is for tests.
            Stream::Tcp(_) => true,
            Stream::Tls(_) => stream.peer_role() == Some(Role::Node(node.0)),
        }
    }

    /// The map changed.
    pub(super) fn follow(&self, map: Arc<ClusterMap>) {
        let slots = map.groups_on(self.reach.disk);
        let states: BTreeMap<PgId, SlotState> = slots.map(|(pg, slot)| (pg, slot.state)).collect();
        self.whole
            .set(states.values().all(|state| *state == SlotState::InSync));
        let down = states.iter().filter(|(_, state)| **state == SlotState::Down);
        let needed = down.map(|(pg, _)| *pg).any(|pg| has_none_to_spare(&map, pg));
        self.returns.borrow_mut().stands(states, needed, Instant::now());
        self.event(Event::Map(map));
    }

    /// Time has passed: groups that this disk is not in sync for go on, and what it holds of others goes.
    pub(super) fn nudge(&self) {
        for volume in self.alarms.due() {
            self.event(Event::Alarm { volume });
        }
        let idle = self.whole.get() && !self.replica.borrow().has_strays();
        if idle || self.poisoned.get() || self.store.borrow().poisoned().is_some() {
            return;
        }
        let returns = self.reach.wishes.is_some()
            && self.returns.borrow().may_ask(Instant::now())
            && !self.is_kept_out();
        self.event(Event::Nudge { returns });
    }

    /// Whether it was put out because it is slow, and is to stay out.
    fn is_kept_out(&self) -> bool {
        let map = self.reach.map.current();
        let slow = map.slow().get(&self.reach.disk);
        slow.is_some_and(|slow| exile::remaining(&slow.record, wall_clock_ms()).is_some())
    }

    fn reply(&self, connection: ConnectionId, number: u64, response: &Response) {
        if let Some(connection) = self.connections.borrow().get(&connection)
            && connection.answer(number, response)
        {
            self.answered.borrow_mut().push(Rc::clone(connection));
        }
    }

    /// A request came.
    pub(super) fn request(&self, connection: ConnectionId, number: u64, request: Request) {
        self.requests.set(self.requests.get() + 1);
        if matches!(request, Request::Ping { .. } | Request::Vouch(_))
            && let Err(error) = self.vouched.note()
        {
            debug!(%error, "cannot vouch for an owner");
            return self.reply(connection, number, &Response::Refused(Refusal::Busy));
        }
        self.event(Event::Request {
            connection,
            number,
            request,
        });
    }

    /// How many requests came.
    pub(super) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Whether a scrub has a step to take.
    pub(super) fn scrubs_now(&self) -> bool {
        let serves = !self.poisoned.get() && self.store.borrow().poisoned().is_none();
        self.replica.borrow().scrubs() && serves
    }

    /// Adds a connection that has exchanged greetings.
    pub(super) fn add(&self, connection: &Rc<Connection>) -> ConnectionId {
        let id = ConnectionId(self.next_connection.get());
        self.next_connection.set(id.0 + 1);
        self.connections.borrow_mut().insert(id, Rc::clone(connection));
        id
    }

    /// A connection ended.
    pub(super) fn remove(&self, id: ConnectionId) {
        if self.connections.borrow_mut().remove(&id).is_some() {
            self.event(Event::Closed { connection: id });
        }
    }

    /// Where front ends of this machine find the disk's files.
    pub(super) fn shared(&self) -> Option<&Response> {
        self.shared.as_ref()
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// One turn: takes the store's answers, gives it what gathered, sends the answers.
    pub(super) fn turn(&self) {
        let mut answers: Vec<Answer> = Vec::new();
        loop {
            let mut store = self.store.borrow_mut();
            store.kick();
            store.poll(&mut answers);
            drop(store);
            if answers.is_empty() {
                break;
            }
            let now = Instant::now();
            for (token, result) in answers.drain(..) {
                self.times.borrow_mut().end(token, result.is_err(), now);
                self.stored(token, result);
            }
        }
        for connection in self.answered.take() {
            connection.send();
        }
    }

    fn stored(&self, token: u64, result: Result<StorageReply, StorageError>) {
        if let Err(StorageError::Poisoned(reason)) = &result
            && !self.poisoned.replace(true)
        {
            error!(disk = %self.replica.borrow().disk(), %reason, "the disk is out of service");
        }
        self.event(Event::Stored { token, result });
    }

    /// Carries out what the daemon asks. Gives the way back of [`Command::Stop`].
    pub(super) fn command(&self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Objects {
                family,
                layer,
                from_index,
                limit,
                answer,
            } => {
                let objects = self
                    .store
                    .borrow_mut()
                    .objects_of_layer(family, layer, from_index, limit);
                let _ = answer.send(objects);
            }
            Command::Reclaim { request, answer } => self.reclaim(request, answer),
            Command::Figures { answer } => {
                let _ = answer.send(self.figures());
            }
            Command::Usage { family, answer } => {
                let _ = answer.send(self.store.borrow().usage(family));
            }
            Command::Times { answer } => {
                let _ = answer.send(Times {
                    requests: self.times.borrow().entries(),
                    medium: self.medium.borrow().entries(),
                });
            }
            Command::Scrub { order, answer } => {
                let _ = answer.send(self.begin_scrub(order));
            }
            Command::Scrubbed { run, answer } => {
                let _ = answer.send(self.scrubs.borrow_mut().fetch(run));
            }
            Command::Stop { answer } => return Some(answer),
        }
        None
    }

    fn reclaim(&self, request: StorageRequest, answer: Reclaimed) {
        let token = self.next_command.get();
        self.next_command.set(token + 1);
        self.commanded.borrow_mut().insert(token, answer);
        self.event(Event::Reclaim { token, request });
    }

    fn figures(&self) -> Figures {
        let store = self.store.borrow();
        Figures {
            store: store.statistics(),
            connections: self.connections.borrow().len() as u64,
            requests: self.requests.get(),
            poisoned: store.poisoned().map(str::to_owned),
            copied: self.copies.borrow().bytes(),
            scrubbed: self.scrubs.borrow().totals(),
            oldest: self.medium.borrow().oldest(Instant::now()),
        }
    }

    /// Starts a checkpoint if one would help and nothing came since the last call, which `seen`
    /// remembers: the disk is idle.
    pub(super) fn rest(&self, seen: &mut u64) {
        let mut store = self.store.borrow_mut();
        if *seen == self.requests.get() && store.has_background_work() {
            store.checkpoint();
            self.gathered.notify_one();
        }
        *seen = self.requests.get();
    }

    /// A descriptor that becomes readable when the store has something for [`Self::turn`].
    pub(super) fn wake_descriptor(&self) -> std::io::Result<Option<std::os::fd::OwnedFd>> {
        let store = self.store.borrow();
        store
            .wake_fd()
            .map(|descriptor| descriptor.try_clone_to_owned())
            .transpose()
    }

    /// Closes the store. Nothing else may hold the driver any more.
    pub(super) fn close(self: Rc<Self>) -> Result<(), StorageError> {
        match Rc::try_unwrap(self) {
            Ok(driver) => driver.store.into_inner().close(),
            // A task still holds it: the log has everything, and the next start recovers it.
            Err(_) => Ok(()),
        }
    }
}

/// Whether guests wait if one more disk leaves a group.
fn has_none_to_spare(map: &ClusterMap, pg: PgId) -> bool {
    let (Some(group), Some(pool)) = (map.group(pg), map.pool(pg.pool)) else {
        return false;
    };
    held(&group.slots) <= usize::from(pool.record.min_in_sync)
}

/// The place of a request's kind in [`REQUEST_KINDS`], and its bytes.
fn amount(request: &StorageRequest) -> (usize, u64) {
    match request {
        StorageRequest::Read { ranges, .. } => (0, ranges.byte_len() as u64),
        StorageRequest::Write(write) => match &write.change {
            Change::Data { bytes, .. } => (1, bytes.len() as u64),
            Change::Zero => (1, 0),
        },
        StorageRequest::Level { delta, .. } | StorageRequest::Replace { delta, .. } => {
            (2, delta.bytes.len() as u64)
        }
        StorageRequest::Mend { bytes, .. } => (2, bytes.len() as u64),
        StorageRequest::Pull { .. }
        | StorageRequest::Difference { .. }
        | StorageRequest::List { .. }
        | StorageRequest::Verify { .. }
        | StorageRequest::Column { .. } => (2, 0),
        _ => (3, 0),
    }
}
