//! A volume that several front ends have open at once, on one node or on several: one of them owns it, the others have
//! it do what their guests ask for, and when it dies one of them takes over (`docs/decisions/0041-shared-opens.md`).
//!
//! To its front end this is a device like any other. What the guests of different front ends owe each other (locks,
//! reservations, a file system that is made for it) is theirs.

mod attachment;
mod gate;
mod host;
mod lines;
mod notices;
mod redo;
mod tasks;
mod words;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use protocol::session::SessionRefusal;
use protocol::shared::{AttachmentView, REQUESTS_MAX};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout_at};

use crate::backoff::Backoff;
use crate::device::{
    BlockDevice, Continuation, DeviceError, DeviceEvent, DeviceInfo, Listener, Operation, Outcome,
    WriteBuffer,
};
use crate::pieces::{Answered, Number, Pieces, next_cut};
use crate::request;
use crate::volume::{OpenError, Options, Volume};
use attachment::Attachment;
use host::{Host, Told};
use lines::{Forward, Heard};
use notices::Pending;

/// See the module. Dropping it ends all I/O at once: call [`SharedVolume::close`] first.
pub struct SharedVolume {
    inner: Rc<Inner>,
}

struct Inner {
    options: Options,
    attachment: Rc<Attachment>,
    pieces: RefCell<Pieces>,
    /// Pieces that nobody was asked to do yet.
    queue: RefCell<VecDeque<Number>>,
    /// Pieces that some owner was asked to do.
    sent: RefCell<BTreeSet<Number>>,
    place: RefCell<Place>,
    info: RefCell<DeviceInfo>,
    listener: RefCell<Option<Listener>>,
    /// Those who wait for others to take notice.
    pending: RefCell<Pending>,
    notice_taker: RefCell<Option<NoticeTaker>>,
    /// The place is another one, or everything is answered.
    moved: Notify,
    lost: Cell<bool>,
    /// The attachment is over.
    lapsed: Notify,
    closing: Cell<bool>,
    tasks: RefCell<Vec<AbortHandle>>,
}

/// Called when this front end is to take notice of what another one has changed; what it is given is to be called when
/// nothing is done any more, or will be, that goes by what was before.
pub type NoticeTaker = Box<dyn Fn(Box<dyn FnOnce()>)>;

/// The others could not be told: this front end is not counted among those who share the volume any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the others who share the volume cannot be told any more")]
pub struct NotTold;

/// Who does what is asked for.
enum Place {
    /// Nobody is known to.
    Nowhere,
    /// This front end owns the volume.
    Here(Rc<Host>),
    /// Another one does.
    There(Rc<Forward>),
}

impl SharedVolume {
    /// Opens a volume to share it. Waits for a present owner that does not share it as long as the options say.
    ///
    /// Must be called on a `LocalSet`.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let deadline = Instant::now() + options.wait;
        let mut backoff = Backoff::default();
        let (attachment, listeners) = loop {
            match Attachment::open(options.clone()).await {
                Err(OpenError::Unreachable { .. }) if Instant::now() < deadline => backoff.pause().await,
                result => break result?,
            }
        };
        let info = device_info(&attachment.view(), options.read_only);
        let inner = Rc::new(Inner {
            options,
            attachment,
            pieces: RefCell::default(),
            queue: RefCell::default(),
            sent: RefCell::default(),
            place: RefCell::new(Place::Nowhere),
            info: RefCell::new(info),
            listener: RefCell::default(),
            pending: RefCell::default(),
            notice_taker: RefCell::default(),
            moved: Notify::new(),
            lost: Cell::new(false),
            lapsed: Notify::new(),
            closing: Cell::new(false),
            tasks: RefCell::default(),
        });
        let mut tasks = vec![
            spawn_local(tasks::keep(Rc::clone(&inner))).abort_handle(),
            spawn_local(tasks::follow(Rc::clone(&inner))).abort_handle(),
            spawn_local(tasks::find(Rc::clone(&inner))).abort_handle(),
        ];
        for listener in listeners {
            tasks.push(spawn_local(tasks::listen(Rc::clone(&inner), listener)).abort_handle());
        }
        inner.tasks.borrow_mut().extend(tasks);
        let volume = Self { inner };
        if timeout_at(deadline, volume.placed()).await.is_err() {
            let refusal = volume.inner.in_use();
            volume.close().await;
            return Err(refusal);
        }
        Ok(volume)
    }

    async fn placed(&self) {
        while matches!(*self.inner.place.borrow(), Place::Nowhere) {
            self.inner.moved.notified().await;
        }
    }

    /// The volume itself, while this front end owns it.
    pub fn volume(&self) -> Option<Rc<Volume>> {
        self.inner.host().map(|host| Rc::clone(host.volume()))
    }

    /// The name of the node on which its owner is; nothing if there is none, or an older `storaged` does not tell.
    pub fn owner_node(&self) -> Option<String> {
        self.inner.attachment.view().owner?.node
    }

    /// Has all others who share the volume take notice of a change of what they go by besides the volume. When this returns
    /// none of them does anything any more that goes by what was before, and what they had begun by it has ended; those
    /// who have left meanwhile included. Owners and others of a version before notices are not waited for.
    ///
    /// Waits as long as it takes: somebody who does not answer is off the roster when his lease has lapsed.
    pub async fn give_notice(&self) -> Result<(), NotTold> {
        if self.inner.lost.get() || self.inner.closing.get() {
            return Err(NotTold);
        }
        let (passed, gives) = self.inner.pending.borrow_mut().wait();
        if gives {
            self.inner.give_notice();
        }
        passed.await.map_err(|_| NotTold)
    }

    /// Who takes notices of others here. As long as there is nobody, they are taken at once.
    pub fn take_notices(&self, taker: NoticeTaker) {
        *self.inner.notice_taker.borrow_mut() = Some(taker);
    }

    /// What operations wait for, in sentences, for people; empty when nothing waits.
    pub fn waiting(&self) -> Vec<String> {
        match &*self.inner.place.borrow() {
            Place::Nowhere => vec!["waiting for an owner of the shared volume".to_owned()],
            Place::There(_) => Vec::new(),
            Place::Here(host) => {
                let mut reasons = host.volume().waiting();
                let awaited = host.awaited();
                if awaited > 0 {
                    reasons.push(format!(
                        "waiting for {awaited} front ends that share the volume to ask again for what they had no answer to"
                    ));
                }
                reasons
            }
        }
    }

    /// Finishes what was submitted, and leaves the volume to the others.
    pub async fn close(&self) {
        let inner = &self.inner;
        self.hurry();
        while !inner.lost.get() && !inner.pieces.borrow().is_empty() {
            inner.moved.notified().await;
        }
        inner.closing.set(true);
        inner.pending.borrow_mut().fail();
        let place = inner.place.replace(Place::Nowhere);
        if let Place::Here(host) = place {
            host.end();
            host.volume().close().await;
        }
        inner.stop();
        inner.attachment.detach().await;
    }
}

impl Drop for SharedVolume {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl BlockDevice for SharedVolume {
    fn info(&self) -> DeviceInfo {
        self.inner.info.borrow().clone()
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        let inner = &self.inner;
        if inner.lost.get() {
            return done(Err(DeviceError::Lost));
        }
        if inner.closing.get() {
            return done(Err(DeviceError::Closed));
        }
        if let Err(error) = request::check(&operation, &inner.info.borrow()) {
            return done(Err(error));
        }
        let (numbers, answered) = inner.pieces.borrow_mut().submit(operation, done, &next_cut);
        inner.queue.borrow_mut().extend(numbers);
        inner.call(answered);
        inner.advance();
    }

    fn listen(&self, listener: Listener) {
        *self.inner.listener.borrow_mut() = Some(listener);
    }

    fn hurry(&self) {
        // An owner elsewhere is in no hurry for one of many.
        if let Some(host) = self.inner.host() {
            host.volume().hurry();
        }
    }

    fn buffer(&self, length: usize) -> WriteBuffer {
        match &*self.inner.place.borrow() {
            Place::Here(host) => host.volume().buffer(length),
            Place::Nowhere | Place::There(_) => WriteBuffer::new(length),
        }
    }
}

impl Inner {
    fn stop(&self) {
        if let Place::Here(host) = &*self.place.borrow() {
            host.end();
        }
        for task in self.tasks.borrow_mut().drain(..) {
            task.abort();
        }
    }

    fn in_use(&self) -> OpenError {
        let view = self.attachment.view();
        let by = view.owner.map_or_else(
            || "it has no owner".to_owned(),
            |owner| format!("it is open by {}, who does not share it", owner.by),
        );
        OpenError::Refused {
            kind: SessionRefusal::Busy,
            message: format!("volume {:?} cannot be shared: {by}", view.name),
        }
    }

    fn call(&self, answered: Vec<Answered>) {
        for (done, result) in answered {
            done(result);
        }
        if self.pieces.borrow().is_empty() {
            self.moved.notify_waiters();
        }
    }

    /// Has as many pieces done as may be under way.
    fn advance(&self) {
        loop {
            if matches!(*self.place.borrow(), Place::Nowhere) || self.sent.borrow().len() >= REQUESTS_MAX {
                return;
            }
            let Some(number) = self.queue.borrow_mut().pop_front() else {
                return;
            };
            self.sent.borrow_mut().insert(number);
            self.send(number, false);
        }
    }

    fn send(&self, number: Number, again: bool) {
        let Some(piece) = self.pieces.borrow().get(number).cloned() else {
            return;
        };
        // Not borrowed meanwhile: the answer may come at once.
        let host = match &*self.place.borrow() {
            Place::Nowhere => return,
            Place::There(forward) if forward.takes(&piece.what) => return forward.send(number, &piece),
            Place::There(_) => None,
            Place::Here(host) => Some(Rc::clone(host)),
        };
        match host {
            Some(host) => host.take_own(number, &piece, again),
            // A former owner may have done it, and this one cannot find out.
            None if again => self.answered(number, Err(DeviceError::NotKnown)),
            None => self.answered(number, Err(DeviceError::OlderOwner)),
        }
    }

    /// A piece was done, or cannot be.
    fn answered(&self, number: Number, result: Result<Outcome, DeviceError>) {
        self.sent.borrow_mut().remove(&number);
        let answered = self.pieces.borrow_mut().answer(number, result);
        self.call(answered);
        self.advance();
    }

    /// The own host says something.
    fn told_here(&self, told: Told) {
        match told {
            Told::Answer(number, result) => self.answered(number, result),
            Told::Noticed => self.notice_passed(),
            Told::TakeNotice(notice) => {
                // Of this host: the next one gives its own numbers.
                let host = self.host().map(|host| Rc::downgrade(&host)).unwrap_or_default();
                self.take_notice(Box::new(move || {
                    if let Some(host) = host.upgrade() {
                        host.own_took_notice(notice);
                    }
                }));
            }
        }
    }

    /// The owner says something.
    fn told(&self, forward: &Rc<Forward>, heard: Heard) {
        match heard {
            Heard::Answer(number, answer) => self.told_answer(forward, number, answer),
            Heard::Noticed => self.notice_passed(),
            Heard::TakeNotice(notice) => {
                let forward = Rc::clone(forward);
                self.take_notice(Box::new(move || forward.took_notice(notice)));
            }
        }
    }

    fn take_notice(&self, taken: Box<dyn FnOnce()>) {
        match &*self.notice_taker.borrow() {
            Some(taker) => taker(taken),
            None => taken(),
        }
    }

    fn give_notice(&self) {
        let here = match &*self.place.borrow() {
            // Whoever is the owner next is told.
            Place::Nowhere => return,
            Place::There(forward) if forward.notice() => return,
            Place::There(_) => None,
            Place::Here(host) => Some(Rc::clone(host)),
        };
        match here {
            Some(host) => host.own_notice(),
            None => self.notice_passed(),
        }
    }

    fn notice_passed(&self) {
        let gives = self.pending.borrow_mut().passed();
        if gives {
            self.give_notice();
        }
    }

    fn host(&self) -> Option<Rc<Host>> {
        match &*self.place.borrow() {
            Place::Here(host) => Some(Rc::clone(host)),
            Place::Nowhere | Place::There(_) => None,
        }
    }

    fn told_answer(&self, forward: &Forward, number: Number, answer: words::Answer) {
        let size = self.info.borrow().size;
        let writes = self.pieces.borrow().get(number).map(|piece| piece.what.writes());
        match words::result(answer, size) {
            None => self.send(number, true),
            Some(result) => {
                self.answered(number, result);
                if writes != Some(false) {
                    forward.arrived(number);
                }
            }
        }
    }

    /// There is an owner: it is asked for all that no former one has answered, and then for what is new.
    fn placed(&self, place: Place) {
        *self.place.borrow_mut() = place;
        let sent: Vec<Number> = self.sent.borrow().iter().copied().collect();
        for number in sent {
            self.send(number, true);
        }
        if let Place::There(forward) = &*self.place.borrow() {
            forward.rejoined();
        }
        if let Some(host) = self.host() {
            host.own_rejoined();
        }
        let notice = self.pending.borrow().is_on_its_way();
        if notice {
            self.give_notice();
        }
        self.moved.notify_waiters();
        self.advance();
    }

    /// The owner is gone.
    fn displaced(&self) {
        let place = self.place.replace(Place::Nowhere);
        if let Place::Here(host) = place {
            // It may have taken the volume again since it began.
            self.attachment.owns(host.volume().generation());
            host.end();
        }
        self.moved.notify_waiters();
    }

    fn tell(&self, event: DeviceEvent) {
        // Taken out while it runs, so that it may ask for another one itself.
        let listener = self.listener.borrow_mut().take();
        if let Some(listener) = listener {
            listener(event);
            self.listener.borrow_mut().get_or_insert(listener);
        }
    }
}

fn device_info(view: &AttachmentView, read_only: bool) -> DeviceInfo {
    DeviceInfo {
        name: view.name.clone(),
        serial: format!("stgd{:016x}", view.volume.0),
        size: view.size,
        read_only,
        alignment: protocol::BLOCK_SIZE,
    }
}

#[cfg(test)]
mod tests;
