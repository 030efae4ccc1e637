//! Task management functions (RFC 7143 sections 11.5 and 11.6, SAM-5 clause 7).

use std::rc::Rc;

use tokio::task::spawn_local;

use crate::connection::Connection;
use crate::connection::commands::unit_number;
use crate::target::session::Stay;
use crate::unit::Unit;
use crate::unit::reservations::reset;
use crate::unit::tasks::{Task, settled};
use crate::wire::response::task_management_response;

const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_TASK_SET: u8 = 4;
const UNIT_RESET: u8 = 5;
const TARGET_WARM_RESET: u8 = 6;
const TARGET_COLD_RESET: u8 = 7;
const TASK_REASSIGN: u8 = 8;

/// Answers (RFC 7143 section 11.6.1).
mod answer {
    pub(super) const COMPLETE: u8 = 0;
    pub(super) const NO_TASK: u8 = 1;
    pub(super) const NO_UNIT: u8 = 2;
    pub(super) const NO_REASSIGNMENT: u8 = 4;
    pub(super) const NOT_SUPPORTED: u8 = 5;
    pub(super) const REJECTED: u8 = 255;
}

/// Carries a function out; its answer is sent when aborted tasks can change nothing any more.
pub(super) fn start(connection: &Rc<Connection>, tag: u32, function: u8, lun: [u8; 8], referenced: u32) {
    let mut resets = Vec::new();
    let by = Some(&connection.session.nexus);
    let (tasks, mut answer) = match function {
        TARGET_WARM_RESET | TARGET_COLD_RESET => {
            resets = connection.home.units();
            let tasks = resets.iter().flat_map(|unit| unit.tasks.abort(by, |_| true));
            (tasks.collect(), answer::COMPLETE)
        }
        TASK_REASSIGN => (Vec::new(), answer::NO_REASSIGNMENT),
        ABORT_TASK..=UNIT_RESET => match unit_number(lun).and_then(|number| connection.home.unit(number)) {
            Some(unit) if function == UNIT_RESET => {
                let tasks = unit.tasks.abort(by, |_| true);
                resets.push(unit);
                (tasks, answer::COMPLETE)
            }
            Some(unit) => on_unit(connection, &unit, function, referenced),
            None => (Vec::new(), answer::NO_UNIT),
        },
        _ => (Vec::new(), answer::NOT_SUPPORTED),
    };
    connection.forget_aborted();
    let connection = Rc::clone(connection);
    spawn_local(async move {
        settled(tasks).await;
        for unit in resets {
            // Other portals do not know of it then.
            if reset(&unit).await.is_err() {
                answer = answer::REJECTED;
            }
        }
        connection.outbox.send(task_management_response(tag, answer));
        if function == TARGET_COLD_RESET {
            connection.home.end_sessions(Stay::Dismissed, |_| true);
        }
    });
}

fn on_unit(connection: &Connection, unit: &Unit, function: u8, referenced: u32) -> (Vec<Rc<Task>>, u8) {
    let nexus = &connection.session.nexus;
    let own = |task: &Task| task.nexus == *nexus;
    match function {
        ABORT_TASK => {
            let aborted = unit
                .tasks
                .abort(Some(nexus), |task| own(task) && task.tag == referenced);
            let answer = if aborted.is_empty() {
                answer::NO_TASK
            } else {
                answer::COMPLETE
            };
            (aborted, answer)
        }
        ABORT_TASK_SET => (unit.tasks.abort(Some(nexus), own), answer::COMPLETE),
        // Who had sent the others hears of it by their status.
        CLEAR_TASK_SET => (unit.tasks.abort(Some(nexus), |_| true), answer::COMPLETE),
        // CLEAR ACA: there is never one.
        _ => (Vec::new(), answer::NOT_SUPPORTED),
    }
}

impl Connection {
    /// Data of aborted writes is not awaited any more.
    fn forget_aborted(&self) {
        self.writes.borrow_mut().retain(|_, write| !write.is_aborted());
    }
}

impl super::commands::Write {
    fn is_aborted(&self) -> bool {
        self.task().is_aborted()
    }
}
