//! Compare-and-writes of an open volume: a read, a comparison and a write, while nothing else that overlaps them is under
//! way (`docs/decisions/0063-compare-and-write.md`). Every operation passes by here; which owner does it, this does not know.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::open::Open;
use crate::device::{Continuation, DeviceError, Operation, Outcome};
use crate::exclusion::{Exclusion, Span, Turn};
use crate::request::{self, first_difference, joined};

/// A request that waits, and who is told of it.
type Request = (Operation, Continuation);

/// All that are under way, and what waits for them.
#[derive(Default)]
pub(super) struct Comparisons {
    exclusion: RefCell<Exclusion<Request>>,
    /// One of them is done.
    left: Notify,
    tasks: RefCell<JoinSet<()>>,
}

impl Comparisons {
    /// Gives a request back that may begin now, and keeps it otherwise.
    pub(super) fn pass(&self, operation: Operation, done: Continuation) -> Option<Request> {
        let mut exclusion = self.exclusion.borrow_mut();
        if exclusion.is_idle() {
            return Some((operation, done));
        }
        let span = operation.area().map(|(offset, length)| (offset, offset + length));
        exclusion.pass(span, (operation, done))
    }

    /// Waits until none is under way.
    pub(super) async fn ended(&self) {
        self.until(Exclusion::is_idle).await;
    }

    /// Ends them where they are, without an answer.
    pub(super) fn stop(&self) {
        self.tasks.borrow_mut().abort_all();
        // Taken out before it is dropped: who hears that nothing is answered may come by here.
        let dropped = self.exclusion.take();
        drop(dropped);
    }

    async fn until(&self, so: impl Fn(&Exclusion<Request>) -> bool) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if so(&self.exclusion.borrow()) {
                return;
            }
            left.await;
        }
    }
}

impl Open {
    /// Has an operation done that was checked and whose turn has come.
    pub(super) fn begin(self: &Rc<Self>, operation: Operation, done: Continuation) {
        if let Operation::CompareAndWrite {
            offset,
            expected,
            data,
        } = operation
        {
            if self.closing.get() {
                return done(Err(DeviceError::Closed));
            }
            return start(self, offset, expected, data, done);
        }
        if let Some((operation, done)) = self.comparisons.pass(operation, done) {
            self.lead(operation, done);
        }
    }

    /// Waits until no operation that overlaps this range is without an answer. Who asks sees to it that none comes.
    async fn settled_at(&self, span: Span) {
        if let Some((_, transit)) = self.source() {
            transit.settled_at(span).await;
        }
        for half in self.halves() {
            half.settled_at(span).await;
        }
    }
}

/// Does one of them, which was checked.
pub(super) fn start(open: &Rc<Open>, offset: u64, expected: Bytes, data: Bytes, done: Continuation) {
    let span = (offset, offset + data.len() as u64);
    let comparisons = &open.comparisons;
    let turn = comparisons.exclusion.borrow_mut().enter(span);
    let mut tasks = comparisons.tasks.borrow_mut();
    // Those that have ended are only forgotten here.
    while tasks.try_join_next().is_some() {}
    let open = Rc::clone(open);
    tasks.spawn_local(async move {
        let result = carry_out(&open, turn, span, &expected, data).await;
        let comparisons = &open.comparisons;
        let free = comparisons.exclusion.borrow_mut().leave(turn);
        for (operation, done) in free {
            open.lead(operation, done);
        }
        comparisons.left.notify_waiters();
        done(result);
    });
}

async fn carry_out(
    open: &Rc<Open>,
    turn: Turn,
    span: Span,
    expected: &[u8],
    data: Bytes,
) -> Result<Outcome, DeviceError> {
    open.comparisons.until(|exclusion| exclusion.has_turn(turn)).await;
    open.settled_at(span).await;
    let offset = span.0;
    let read = Operation::Read {
        offset,
        length: span.1 - offset,
    };
    let Outcome::Data(found) = request::answered(|done| open.lead(read, done)).await? else {
        return Err(DeviceError::Closed);
    };
    if let Some(at) = first_difference(&joined(found), expected) {
        return Ok(Outcome::Differs { offset: offset + at });
    }
    let write = Operation::Write {
        offset,
        data: vec![data],
    };
    request::answered(|done| open.lead(write, done)).await
}
