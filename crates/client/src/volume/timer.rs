//! Wakes the owner when it asked to be woken, without a new timer for each event.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use replication::Moment;
use replication::owner::Event;
use tokio::sync::Notify;

use super::driver::Driver;
use crate::clock::now;

/// When the owner wants to be woken.
#[derive(Default)]
pub(super) struct Timer {
    wanted: Cell<Option<Moment>>,
    /// What the task sleeps until.
    armed: Cell<Option<Moment>>,
    sooner: Notify,
}

impl Timer {
    /// Sets the moment. The task is disturbed only if it would sleep for too long: most deadlines
    /// move on with each answer and are never reached.
    pub(super) fn arm(&self, wanted: Option<Moment>) {
        self.wanted.set(wanted);
        let late = match (wanted, self.armed.get()) {
            (Some(wanted), Some(armed)) => wanted < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if late {
            self.sooner.notify_one();
        }
    }
}

/// Sends ticks.
pub(super) async fn run(driver: Rc<Driver>) {
    loop {
        let timer = &driver.timer;
        let wanted = timer.wanted.get();
        timer.armed.set(wanted);
        let sleep = async {
            match wanted {
                // A deadline that has passed by the time it was set is served at the next
                // millisecond, so that an owner that sets it again and again cannot spin.
                Some(moment) => tokio::time::sleep(Duration::from_millis(moment.since(now()).max(1))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                if timer.wanted.get().is_some_and(|moment| moment <= now()) {
                    driver.event(Event::Tick);
                }
            }
            () = timer.sooner.notified() => {}
        }
    }
}
