//! The owner's side of a shared volume: does what its own front end and its peers ask for, each request once.
//!
//! What a peer asked for is known by its number until the peer has confirmed the answer, so a peer that lost its
//! connection may ask again. Which requests may run together is the gate's business.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use protocol::message::{Refusal, Response};
use tokio::sync::Notify;

use super::gate::{Gate, Ticket};
use super::words;
use crate::device::{BlockDevice, DeviceError, Operation, Outcome};
use crate::pieces::{Number, Piece};
use crate::transport::Link;
use crate::volume::Volume;

/// The most requests that are known of one peer: those that it may have under way, and as many of which the
/// confirmation is on its way.
pub(super) const KNOWN_MAX: usize = 2 * protocol::shared::REQUESTS_MAX;

/// Told what became of the pieces of the own front end.
pub(super) type Answer = Box<dyn Fn(Number, Result<Outcome, DeviceError>)>;

/// See the module.
pub(super) struct Host {
    volume: Rc<Volume>,
    /// The own attachment.
    own: u64,
    gate: RefCell<Gate>,
    jobs: RefCell<HashMap<Ticket, Job>>,
    peers: RefCell<BTreeMap<u64, Peer>>,
    /// The attachments that there are.
    roster: RefCell<BTreeSet<u64>>,
    answer: Answer,
    over: Cell<bool>,
}

struct Job {
    who: u64,
    number: Number,
    writes: bool,
    offset: u64,
    /// Until it is begun.
    operation: Option<Operation>,
}

#[derive(Default)]
struct Peer {
    known: BTreeMap<Number, Known>,
    /// What came since it connected last.
    came: BTreeSet<Number>,
    line: Option<Rc<Line>>,
}

struct Known {
    ticket: Ticket,
    answer: Option<Response>,
}

/// A peer's connection.
pub(super) struct Line {
    pub(super) link: RefCell<Link>,
    /// There is something to send, or the line is over.
    pub(super) wake: Notify,
    pub(super) over: Cell<bool>,
}

impl Line {
    pub(super) fn new(link: Link) -> Rc<Self> {
        Rc::new(Self {
            link: RefCell::new(link),
            wake: Notify::new(),
            over: Cell::new(false),
        })
    }

    fn say(&self, number: Number, response: &Response) {
        self.link.borrow_mut().outbox.push_response(number, response);
        self.wake.notify_one();
    }

    fn end(&self) {
        self.over.set(true);
        self.wake.notify_one();
    }
}

impl Host {
    /// Of a volume that was just opened. Its attachments are waited for before anything new is done.
    pub(super) fn new(volume: Rc<Volume>, own: u64, attachments: &[u64], answer: Answer) -> Rc<Self> {
        Rc::new(Self {
            volume,
            own,
            gate: RefCell::new(Gate::new(attachments.iter().copied())),
            jobs: RefCell::default(),
            peers: RefCell::default(),
            roster: RefCell::new(attachments.iter().copied().collect()),
            answer,
            over: Cell::new(false),
        })
    }

    /// The volume.
    pub(super) fn volume(&self) -> &Rc<Volume> {
        &self.volume
    }

    /// Ends all connections; nothing is answered any more.
    pub(super) fn end(&self) {
        self.over.set(true);
        for peer in std::mem::take(&mut *self.peers.borrow_mut()).into_values() {
            if let Some(line) = peer.line {
                line.end();
            }
        }
    }

    /// The attachments that are still waited for.
    pub(super) fn awaited(&self) -> usize {
        self.gate.borrow().awaited().len()
    }

    /// These attachments there are now. Nothing of others is done or waited for any more.
    pub(super) fn set_roster(self: &Rc<Self>, attachments: &[u64]) {
        let roster: BTreeSet<u64> = attachments.iter().copied().collect();
        let before = std::mem::replace(&mut *self.roster.borrow_mut(), roster.clone());
        for gone in before.difference(&roster).filter(|who| **who != self.own) {
            self.expel(*gone);
        }
        self.pump();
    }

    fn expel(&self, who: u64) {
        if let Some(line) = self.peers.borrow_mut().remove(&who).and_then(|peer| peer.line) {
            line.end();
        }
        self.gate.borrow_mut().expel(who);
        self.jobs
            .borrow_mut()
            .retain(|_, job| job.who != who || job.operation.is_none());
    }

    /// Whether this attachment may ask for something.
    pub(super) fn knows(&self, who: u64) -> bool {
        !self.over.get() && who != self.own && self.roster.borrow().contains(&who)
    }

    /// A peer has connected; a former connection of it ends.
    pub(super) fn join(&self, who: u64, line: &Rc<Line>) {
        let mut peers = self.peers.borrow_mut();
        let peer = peers.entry(who).or_default();
        peer.came.clear();
        if let Some(former) = peer.line.replace(Rc::clone(line)) {
            former.end();
        }
    }

    /// A piece of the own front end.
    pub(super) fn take_own(self: &Rc<Self>, number: Number, piece: &Piece, again: bool) {
        let job = Job {
            who: self.own,
            number,
            writes: piece.what.writes(),
            offset: piece.offset,
            operation: Some(piece.operation()),
        };
        self.enter(job, piece.length, again);
    }

    /// All pieces of the own front end that a former owner did not answer have come.
    pub(super) fn own_rejoined(self: &Rc<Self>) {
        self.gate.borrow_mut().rejoined(self.own);
        self.pump();
    }

    fn enter(self: &Rc<Self>, job: Job, length: u64, again: bool) -> Ticket {
        let span = (job.offset, job.offset + length);
        let ticket = self.gate.borrow_mut().enter(job.who, span, job.writes, again);
        self.jobs.borrow_mut().insert(ticket, job);
        self.pump();
        ticket
    }

    /// A peer asks. Nothing if it has too much under way.
    pub(super) fn take(self: &Rc<Self>, who: u64, number: Number, asked: words::Asked) -> Option<()> {
        {
            let mut peers = self.peers.borrow_mut();
            let peer = peers.get_mut(&who)?;
            peer.came.insert(number);
            if let Some(known) = peer.known.get(&number) {
                // It is being done, or it was, and the answer got lost.
                if let (Some(answer), Some(line)) = (&known.answer, &peer.line) {
                    line.say(number, answer);
                }
                return Some(());
            }
            if peer.known.len() >= KNOWN_MAX {
                return None;
            }
        }
        let job = Job {
            who,
            number,
            writes: asked.writes,
            offset: asked.offset,
            operation: Some(asked.operation),
        };
        let span = (job.offset, job.offset + asked.length);
        // Whether it may be one of those that a former owner has done: while this peer is waited for, all may.
        let ticket = self.gate.borrow_mut().enter(who, span, asked.writes, true);
        let known = Known { ticket, answer: None };
        if let Some(peer) = self.peers.borrow_mut().get_mut(&who) {
            peer.known.insert(number, known);
        }
        self.jobs.borrow_mut().insert(ticket, job);
        self.pump();
        Some(())
    }

    /// A peer has asked again for all that it had no answer to. What it did not ask for again it had.
    pub(super) fn rejoined(self: &Rc<Self>, who: u64) {
        let answered: Vec<Number> = {
            let peers = self.peers.borrow();
            let Some(peer) = peers.get(&who) else { return };
            let had = |(number, known): (&Number, &Known)| {
                (known.answer.is_some() && !peer.came.contains(number)).then_some(*number)
            };
            peer.known.iter().filter_map(had).collect()
        };
        self.confirm(who, &answered);
        self.gate.borrow_mut().rejoined(who);
        self.pump();
    }

    /// A peer has the answers to these.
    pub(super) fn confirm(self: &Rc<Self>, who: u64, numbers: &[Number]) {
        {
            let mut peers = self.peers.borrow_mut();
            let Some(peer) = peers.get_mut(&who) else { return };
            for number in numbers {
                let answered = peer.known.get(number).is_some_and(|known| known.answer.is_some());
                if let Some(known) = peer.known.remove(number).filter(|_| answered) {
                    self.gate.borrow_mut().confirm(known.ticket);
                }
            }
        }
        self.pump();
    }

    /// Begins what may be begun.
    fn pump(self: &Rc<Self>) {
        let begun = self.gate.borrow_mut().begin();
        for ticket in begun {
            let operation = self
                .jobs
                .borrow_mut()
                .get_mut(&ticket)
                .and_then(|job| job.operation.take());
            let Some(operation) = operation else { continue };
            let host = Rc::clone(self);
            self.volume
                .submit(operation, Box::new(move |result| host.finished(ticket, result)));
        }
    }

    fn finished(self: &Rc<Self>, ticket: Ticket, result: Result<Outcome, DeviceError>) {
        // A lost volume's requests are done again by whoever has it now.
        let lost = matches!(result, Err(DeviceError::Lost | DeviceError::Closed));
        let Some(job) = self
            .jobs
            .borrow_mut()
            .remove(&ticket)
            .filter(|_| !lost && !self.over.get())
        else {
            return;
        };
        self.gate.borrow_mut().done(ticket);
        if job.who == self.own {
            self.gate.borrow_mut().confirm(ticket);
            (self.answer)(job.number, result);
        } else {
            self.tell(&job, &words::response(job.offset, result));
        }
        self.pump();
    }

    fn tell(&self, job: &Job, response: &Response) {
        let mut peers = self.peers.borrow_mut();
        let Some(peer) = peers.get_mut(&job.who) else {
            return;
        };
        if job.writes {
            if let Some(known) = peer.known.get_mut(&job.number) {
                known.answer = Some(response.clone());
            }
        } else {
            peer.known.remove(&job.number);
        }
        if let Some(line) = &peer.line {
            line.say(job.number, response);
        }
    }

    /// Tells a peer that its request makes no sense, or was damaged on the way.
    pub(super) fn refuse(&self, who: u64, number: Number, refusal: Refusal) {
        if let Some(line) = self.peers.borrow().get(&who).and_then(|peer| peer.line.as_ref()) {
            line.say(number, &Response::Refused(refusal));
        }
    }
}
