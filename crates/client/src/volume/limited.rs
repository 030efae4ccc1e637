//! Keeps the requests of an open volume to its limits. They are held here, where they come in: whichever gateway they come
//! from, whether the volume has one owner just now or two, and before they can stand in anybody's way.
//!
//! Of a volume without limits a request pays for one look at a flag. What waits is looked at when the throttle says so, by
//! one task, however much waits.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use protocol::limits::VolumeLimits;
use tokio::sync::Notify;

use super::open::Open;
use crate::clock::now;
use crate::device::{Continuation, Operation};
use crate::throttle::{Cost, Direction, Throttle, Throttled};

/// What waits for its turn by the limits.
#[derive(Default)]
pub(super) struct Limited {
    /// Whether requests come by here: there are limits, or something waits still.
    active: Cell<bool>,
    /// No limit holds any more: the volume is being closed.
    over: Cell<bool>,
    throttle: RefCell<Throttle<(Operation, Continuation)>>,
    /// It may be sooner than was thought that something may begin.
    sooner: Notify,
}

impl Limited {
    /// What waited, and for how long.
    pub(super) fn throttled(&self) -> Throttled {
        self.throttle.borrow().throttled()
    }

    /// What waits, in a sentence.
    pub(super) fn waiting(&self) -> Option<String> {
        let waiting = self.throttle.borrow().waiting();
        (waiting > 0).then(|| format!("{waiting} requests wait for their turn, for the volume has limits"))
    }

    /// Forgets what waits: nothing of it is answered any more.
    pub(super) fn stop(&self) {
        self.active.set(false);
        self.over.set(true);
        // Taken out before it is dropped: who hears that nothing is answered may come by here.
        let dropped = self.throttle.take();
        drop(dropped);
    }
}

impl Open {
    /// Has an operation done that was checked, when the limits allow.
    pub(super) fn submit(self: &Rc<Self>, operation: Operation, done: Continuation) {
        if self.limited.active.get() {
            return self.submit_limited(operation, done);
        }
        self.begin(operation, done);
    }

    fn submit_limited(self: &Rc<Self>, operation: Operation, done: Continuation) {
        let cost = cost(&operation);
        let is_first = {
            let mut throttle = self.limited.throttle.borrow_mut();
            throttle.enter(cost, (operation, done), now())
        };
        // What stands behind others neither begins now nor changes when they do.
        if is_first {
            self.begin_what_may();
            self.limited.sooner.notify_one();
        }
    }

    /// From now on these limits hold.
    pub(super) fn limit(self: &Rc<Self>, limits: VolumeLimits) {
        let limited = &self.limited;
        if limited.over.get() || (limits.is_unlimited() && !limited.active.get()) {
            return;
        }
        limited.throttle.borrow_mut().set(limits, now());
        limited.active.set(true);
        self.begin_what_may();
        if limits.is_unlimited() {
            limited.active.set(false);
        }
        limited.sooner.notify_one();
    }

    /// Begins all that waits, as if its turn had come: somebody waits for everything to be answered.
    pub(super) fn let_through(self: &Rc<Self>) {
        loop {
            // Not borrowed while it begins: its answer may come at once, and bring forth the next request.
            let next = self.limited.throttle.borrow_mut().let_through(now());
            let Some((operation, done)) = next else { return };
            self.begin(operation, done);
        }
    }

    /// Holds nothing back any more, for good.
    pub(super) fn lift_limits(self: &Rc<Self>) {
        self.limited.over.set(true);
        self.limited.active.set(false);
        self.let_through();
    }

    fn begin_what_may(self: &Rc<Self>) {
        loop {
            let next = self.limited.throttle.borrow_mut().next(now());
            let Some((operation, done)) = next else { return };
            self.begin(operation, done);
        }
    }
}

/// Begins what waits when its time has come: run it as a task.
pub(super) async fn run(open: Rc<Open>) {
    loop {
        let pause = open.limited.throttle.borrow_mut().pause(now());
        let sleep = async {
            match pause {
                // The clock's step is a millisecond, so what is due begins with the next one.
                Some(pause) => tokio::time::sleep(Duration::from_millis(pause.max(1))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => open.begin_what_may(),
            () = open.limited.sooner.notified() => {}
        }
    }
}

/// What an operation takes. Discards, zeros and maps move no data; a flush has nothing to do, but comes after the writes before it.
fn cost(operation: &Operation) -> Cost {
    let direction = if operation.is_change() || matches!(operation, Operation::Flush) {
        Direction::Write
    } else {
        Direction::Read
    };
    let bytes = match operation {
        Operation::Read { .. } | Operation::Write { .. } | Operation::CompareAndWrite { .. } => {
            operation.area().map_or(0, |(_, length)| length)
        }
        Operation::WriteZeroes { .. }
        | Operation::Discard { .. }
        | Operation::Map { .. }
        | Operation::Flush => 0,
    };
    Cost {
        direction,
        operations: u64::from(!matches!(operation, Operation::Flush)),
        bytes,
    }
}
