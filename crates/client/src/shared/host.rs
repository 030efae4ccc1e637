//! The owner's side of a shared volume: does what its own front end and its peers ask for, each request once.
//!
//! What a peer asked for is known by its number until the peer has confirmed the answer, so a peer that lost its
//! connection may ask again. Which requests may run together is the gate's business.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use protocol::codec::Message;
use protocol::message::{Refusal, Response};
use protocol::session::SessionReply;
use protocol::shared::{NOTICE_SINCE, SharedReply};
use tokio::sync::Notify;

use super::gate::{Access, Gate, Ticket};
use super::notices::Notices;
use super::redo::{Redo, Verdict};
use super::words;
use crate::device::{BlockDevice, DeviceError, Operation, Outcome};
use crate::pieces::{Number, Piece};
use crate::request::joined;
use crate::transport::Link;
use crate::volume::Volume;

/// The most requests that are known of one peer: those that it may have under way, and as many of which the
/// confirmation is on its way.
pub(super) const KNOWN_MAX: usize = 2 * protocol::shared::REQUESTS_MAX;

/// What an owner has to say to its own front end.
#[derive(Debug)]
pub(super) enum Told {
    /// What became of a piece.
    Answer(Number, Result<Outcome, DeviceError>),
    /// To take notice: [`Host::took_notice`] is awaited.
    TakeNotice(u64),
    /// All others took the notice that it gave.
    Noticed,
}

/// Told these.
pub(super) type Tell = Box<dyn Fn(Told)>;

/// See the module.
pub(super) struct Host<V = Volume> {
    volume: Rc<V>,
    /// The own attachment.
    own: u64,
    gate: RefCell<Gate>,
    jobs: RefCell<HashMap<Ticket, Job>>,
    peers: RefCell<BTreeMap<u64, Peer>>,
    /// The attachments that there are.
    roster: RefCell<BTreeSet<u64>>,
    notices: RefCell<Notices>,
    tell: Tell,
    over: Cell<bool>,
}

struct Job {
    who: u64,
    number: Number,
    access: Access,
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
    answer: Option<Message>,
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

    fn say(&self, number: Number, answer: &Message) {
        self.link.borrow_mut().outbox.push(number, answer);
        self.wake.notify_one();
    }

    fn notify(&self, what: SharedReply) {
        let reply = SessionReply::Shared(what);
        self.link.borrow_mut().outbox.push_session_reply(0, &reply);
        self.wake.notify_one();
    }

    fn end(&self) {
        self.over.set(true);
        self.wake.notify_one();
    }
}

impl<V: BlockDevice + 'static> Host<V> {
    /// Of a volume that was just opened. Its attachments are waited for before anything new is done.
    pub(super) fn new(volume: Rc<V>, own: u64, attachments: &[u64], tell: Tell) -> Rc<Self> {
        let mut notices = Notices::default();
        notices.join(own, NOTICE_SINCE);
        Rc::new(Self {
            volume,
            own,
            gate: RefCell::new(Gate::new(attachments.iter().copied())),
            jobs: RefCell::default(),
            peers: RefCell::default(),
            roster: RefCell::new(attachments.iter().copied().collect()),
            notices: RefCell::new(notices),
            tell,
            over: Cell::new(false),
        })
    }

    /// The volume.
    pub(super) fn volume(&self) -> &Rc<V> {
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
        self.look_at_notices();
    }

    fn expel(&self, who: u64) {
        if let Some(line) = self.peers.borrow_mut().remove(&who).and_then(|peer| peer.line) {
            line.end();
        }
        self.gate.borrow_mut().expel(who);
        self.notices.borrow_mut().leave(who);
        self.jobs
            .borrow_mut()
            .retain(|_, job| job.who != who || job.operation.is_none());
    }

    /// Whether this attachment may ask for something.
    pub(super) fn knows(&self, who: u64) -> bool {
        !self.over.get() && who != self.own && self.roster.borrow().contains(&who)
    }

    /// A peer has connected; a former connection of it ends. `speaks` is the highest version that it knows.
    pub(super) fn join(&self, who: u64, speaks: u16, line: &Rc<Line>) {
        {
            let mut peers = self.peers.borrow_mut();
            let peer = peers.entry(who).or_default();
            peer.came.clear();
            if let Some(former) = peer.line.replace(Rc::clone(line)) {
                former.end();
            }
        }
        let notice = self.notices.borrow_mut().join(who, speaks);
        if let Some(notice) = notice {
            line.notify(SharedReply::TakeNotice { notice });
        }
        self.look_at_notices();
    }

    /// One who shares the volume, the own front end or a peer, asks that the others take notice. Nothing if it waits for
    /// another notice.
    pub(super) fn notice(&self, who: u64) -> Option<()> {
        let notice = self.notices.borrow_mut().ask(who)?;
        let audience = self.notices.borrow().audience(who);
        for other in audience {
            if other == self.own {
                (self.tell)(Told::TakeNotice(notice));
            } else {
                self.notify(other, SharedReply::TakeNotice { notice });
            }
        }
        self.look_at_notices();
        Some(())
    }

    /// The own front end asks that the others take notice.
    pub(super) fn own_notice(&self) {
        // It gives one at a time.
        let _ = self.notice(self.own);
    }

    /// One who shares the volume took a notice. Nothing if there is none.
    pub(super) fn took_notice(&self, who: u64, notice: u64) -> Option<()> {
        let known = self.notices.borrow_mut().took(who, notice);
        self.look_at_notices();
        known.then_some(())
    }

    /// The own front end took a notice.
    pub(super) fn own_took_notice(&self, notice: u64) {
        // It is told only of those that there are.
        let _ = self.took_notice(self.own, notice);
    }

    /// Tells those whose notices all others took. What was begun for somebody who is gone is waited for.
    fn look_at_notices(&self) {
        // After each request that is done: mostly nobody waits, and then claims are not gone through.
        if self.over.get() || !self.notices.borrow().are_awaited() || self.gate.borrow().has_orphans() {
            return;
        }
        let passed = self.notices.borrow_mut().passed(&self.roster.borrow());
        for who in passed {
            if who == self.own {
                (self.tell)(Told::Noticed);
            } else {
                self.notify(who, SharedReply::Noticed);
            }
        }
    }

    fn notify(&self, who: u64, what: SharedReply) {
        if let Some(line) = self.peers.borrow().get(&who).and_then(|peer| peer.line.as_ref()) {
            line.notify(what);
        }
    }

    /// A piece of the own front end.
    pub(super) fn take_own(self: &Rc<Self>, number: Number, piece: &Piece, again: bool) {
        let job = Job {
            who: self.own,
            number,
            access: words::access(&piece.what),
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
        let ticket = self.gate.borrow_mut().enter(job.who, span, job.access, again);
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
            access: asked.access,
            offset: asked.offset,
            operation: Some(asked.operation),
        };
        let span = (job.offset, job.offset + asked.length);
        // Whether it may be one of those that a former owner has done: while this peer is waited for, all may.
        let ticket = self.gate.borrow_mut().enter(who, span, asked.access, true);
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
            if let Some(operation) = operation {
                self.carry_out(ticket, operation);
            }
        }
    }

    fn carry_out(self: &Rc<Self>, ticket: Ticket, operation: Operation) {
        if self.gate.borrow().is_compared_again(ticket)
            && let Some(redo) = Redo::of(&operation)
        {
            return self.compare_again(ticket, redo);
        }
        let host = Rc::clone(self);
        self.volume
            .submit(operation, Box::new(move |result| host.finished(ticket, result)));
    }

    /// Does a compare-and-write that a former owner may have done. Nobody else is at its range until it is confirmed.
    fn compare_again(self: &Rc<Self>, ticket: Ticket, redo: Redo) {
        let read = Operation::Read {
            offset: redo.offset,
            length: redo.data.len() as u64,
        };
        let host = Rc::clone(self);
        let judge = move |result: Result<Outcome, DeviceError>| match result {
            Ok(Outcome::Data(pieces)) => host.judge(ticket, &redo, &joined(pieces)),
            other => host.finished(ticket, other),
        };
        self.volume.submit(read, Box::new(judge));
    }

    fn judge(self: &Rc<Self>, ticket: Ticket, redo: &Redo, found: &[u8]) {
        let before = self.may_be_done(ticket, redo.offset, found);
        if !before.is_empty() {
            // What they compared with, and what they wrote, is to be nobody's ground before they have heard.
            self.gate.borrow_mut().retreat(ticket);
            if let Some(job) = self.jobs.borrow_mut().get_mut(&ticket) {
                job.operation = Some(redo.operation());
            }
            for other in before {
                self.finished(other, Err(DeviceError::NotKnown));
            }
            return;
        }
        match redo.judge(found) {
            Verdict::Answer(answer) => self.finished(ticket, answer),
            Verdict::Do => {
                let host = Rc::clone(self);
                let done = move |result| host.finished(ticket, result);
                self.volume.submit(redo.operation(), Box::new(done));
            }
        }
    }

    /// The other compare-and-writes sent again that may have been done, as far as what was found at `start` tells.
    fn may_be_done(&self, ticket: Ticket, start: u64, found: &[u8]) -> Vec<Ticket> {
        let gate = self.gate.borrow();
        let done = |(other, job): (&Ticket, &Job)| {
            let redo = job.operation.as_ref().and_then(Redo::of)?;
            let meant = *other != ticket && gate.is_compared_again(*other);
            (meant && redo.may_be_done(start, found)).then_some(*other)
        };
        self.jobs.borrow().iter().filter_map(done).collect()
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
            (self.tell)(Told::Answer(job.number, result));
        } else {
            self.answer(&job, &words::answer(job.offset, job.access, result));
        }
        self.pump();
        self.look_at_notices();
    }

    fn answer(&self, job: &Job, answer: &Message) {
        let mut peers = self.peers.borrow_mut();
        let Some(peer) = peers.get_mut(&job.who) else {
            return;
        };
        if job.access == Access::Read {
            peer.known.remove(&job.number);
        } else if let Some(known) = peer.known.get_mut(&job.number) {
            known.answer = Some(answer.clone());
        }
        if let Some(line) = &peer.line {
            line.say(job.number, answer);
        }
    }

    /// Tells a peer that its request makes no sense, or was damaged on the way.
    pub(super) fn refuse(&self, who: u64, number: Number, refusal: Refusal) {
        if let Some(line) = self.peers.borrow().get(&who).and_then(|peer| peer.line.as_ref()) {
            line.say(number, &Message::Response(Response::Refused(refusal)));
        }
    }
}
