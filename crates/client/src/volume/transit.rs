//! A volume on its way to another pool, as its front end sees it: two owners, the operations that are led to the one or
//! the other, and who moves what is left (`docs/decisions/0058-retype.md`).
//!
//! Nothing is lost whenever this ends: what is moved stands in the coordination store, and whoever opens the volume next
//! goes on from there.

mod mover;
mod route;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tracing::warn;

use super::driver::Driver;
use super::open::Open;
use super::owner_operation;
use crate::device::{Continuation, DeviceError, Operation, Outcome};
use crate::exclusion::Span;
use crate::pieces::{Answered, Number, Pieces};
use route::{Owned, Route};

/// How long the step under way may take when the volume is closed.
const REST_LIMIT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Transit {
    open: Weak<Open>,
    head: Rc<Driver>,
    source: Rc<Driver>,
    pieces: RefCell<Pieces>,
    route: RefCell<Route>,
    /// The most bytes that are copied a second; none if it is not for this front end to do.
    rate: Cell<u64>,
    /// How many operations the guest has asked for.
    asked: Cell<u64>,
    /// Why nothing is moved just now, for people.
    obstacle: RefCell<Option<String>>,
    over: Cell<bool>,
    stopping: Cell<bool>,
    /// Whoever moves it has stopped, at the end of a step.
    rested: Cell<bool>,
    /// One of these changed.
    changed: Notify,
    /// A piece was answered.
    answered: Notify,
    task: RefCell<Option<AbortHandle>>,
}

impl Transit {
    /// From now on operations are led to these two, and what is left is moved.
    pub(super) fn new(
        open: &Rc<Open>,
        head: &Rc<Driver>,
        source: &Rc<Driver>,
        moved: u64,
        rate: u64,
    ) -> Rc<Self> {
        let transit = Rc::new(Self {
            open: Rc::downgrade(open),
            head: Rc::clone(head),
            source: Rc::clone(source),
            pieces: RefCell::default(),
            route: RefCell::new(Route::new(moved)),
            rate: Cell::new(rate),
            asked: Cell::new(0),
            obstacle: RefCell::default(),
            over: Cell::new(false),
            stopping: Cell::new(false),
            rested: Cell::new(false),
            changed: Notify::new(),
            answered: Notify::new(),
            task: RefCell::default(),
        });
        let task = spawn_local(mover::run(Rc::clone(&transit)));
        *transit.task.borrow_mut() = Some(task.abort_handle());
        transit
    }

    /// Has an operation done, in as many pieces as it has owners.
    pub(super) fn submit(self: &Rc<Self>, operation: Operation, done: Continuation) {
        self.asked.set(self.asked.get().wrapping_add(1));
        let (numbers, answered) = {
            let route = self.route.borrow();
            let mut pieces = self.pieces.borrow_mut();
            pieces.submit(operation, done, &|at, _| route.cut(at))
        };
        call(answered);
        self.send(numbers);
    }

    /// How much is moved is known from elsewhere, and how fast the rest may go.
    pub(super) fn learn(&self, moved: u64, rate: u64) {
        self.rate.set(rate);
        self.route.borrow_mut().learn(moved);
        self.changed.notify_waiters();
    }

    /// All of it is moved, as `storaged` says.
    pub(super) fn learn_end(self: &Rc<Self>) {
        if self.over.replace(true) {
            return;
        }
        let waited = self.route.borrow_mut().end();
        self.send(waited);
        self.changed.notify_waiters();
        if let Some(open) = self.open.upgrade() {
            open.end_move();
        }
    }

    /// Why nothing is moved, if that is so.
    pub(super) fn obstacle(&self) -> Option<String> {
        self.obstacle.borrow().clone()
    }

    /// Ends the move for now: a step under way is ended or given up. What waits for one that cannot be ended, for
    /// `storaged` does not answer, fails.
    pub(super) async fn come_to_rest(&self) {
        self.stopping.set(true);
        self.changed.notify_waiters();
        let rested = self.until(|| self.rested.get());
        if timeout(REST_LIMIT, rested).await.is_err() {
            warn!("it is not known whether a step of the volume's move was noted: writes to that place fail");
            self.stop();
            let waiting = self.route.borrow_mut().close_window(false);
            for number in waiting {
                self.answered(number, Err(DeviceError::Closed));
            }
        }
    }

    /// The volume is lost: everything fails.
    pub(super) fn fail(&self) {
        self.stop();
        let failed = self.pieces.borrow_mut().fail_all(&DeviceError::Lost);
        call(failed);
        self.answered.notify_waiters();
    }

    /// Ends whatever is under way.
    pub(super) fn stop(&self) {
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
        self.rested.set(true);
        self.changed.notify_waiters();
    }

    fn send(self: &Rc<Self>, numbers: impl IntoIterator<Item = Number>) {
        for number in numbers {
            let Some(piece) = self.pieces.borrow().get(number).cloned() else {
                continue;
            };
            let writes = piece.what.writes();
            let owned = self.route.borrow_mut().lead(number, piece.offset, writes);
            let driver = match owned {
                Owned::Head => &self.head,
                Owned::Source => &self.source,
                Owned::Waits => continue,
            };
            let transit = Rc::clone(self);
            let done = Box::new(move |result| transit.answered(number, result));
            match owner_operation(piece.operation()) {
                Ok(operation) => driver.submit(operation, done),
                Err(error) => self.answered(number, Err(error)),
            }
        }
    }

    fn answered(&self, number: Number, result: Result<Outcome, DeviceError>) {
        let answered = self.pieces.borrow_mut().answer(number, result);
        call(answered);
        self.answered.notify_waiters();
    }

    /// Waits until no operation that overlaps this range is without an answer.
    pub(super) async fn settled_at(&self, span: Span) {
        loop {
            let mut answered = std::pin::pin!(self.answered.notified());
            answered.as_mut().enable();
            if !self.pieces.borrow().touch(span) {
                return;
            }
            answered.await;
        }
    }

    fn open_window(&self, to: u64, last: bool) {
        self.route.borrow_mut().open_window(to, last);
    }

    fn close_window(self: &Rc<Self>, moved: bool) {
        let waited: VecDeque<Number> = self.route.borrow_mut().close_window(moved);
        self.send(waited);
    }

    async fn until(&self, so: impl Fn() -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if so() {
                return;
            }
            changed.await;
        }
    }
}

fn call(answered: Vec<Answered>) {
    for (done, result) in answered {
        done(result);
    }
}
