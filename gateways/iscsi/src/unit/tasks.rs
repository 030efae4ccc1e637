//! The task set of a unit: what is under way, for whom, and how it is aborted (SAM-5 clause 8, SPC-4 clause 5.13.11.2).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::reservation::Nexus;

/// One task.
pub struct Task {
    /// The path that it came by.
    pub nexus: Nexus,
    /// The initiator's name for it.
    pub tag: u32,
    answer: Cell<Answer>,
    ended: Cell<bool>,
    /// The device has been asked: what it does will be done.
    started: Cell<bool>,
    changed: Notify,
}

/// Who waits for a task's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Its initiator, for what came of it.
    Outcome,
    /// Its initiator, who does not know yet that another path had it aborted (the TAS bit of the control page, SPC-4 clause
    /// 7.5.8): without a word from here it would wait until its time is over.
    Aborted,
    /// Nobody: the path that it came by has ended, or had it aborted and hears of that by another answer.
    Nothing,
}

/// All tasks of a unit, by the order in which they came.
#[derive(Default)]
pub struct Tasks {
    next: Cell<u64>,
    tasks: Rc<RefCell<BTreeMap<u64, Rc<Task>>>>,
}

/// A task's place among all; given back when it is dropped.
pub struct TaskPlace {
    number: u64,
    /// The task.
    pub task: Rc<Task>,
    tasks: Rc<RefCell<BTreeMap<u64, Rc<Task>>>>,
}

impl Task {
    /// Who waits for its answer.
    pub fn answer(&self) -> Answer {
        self.answer.get()
    }

    /// Whether nobody wants it done any more.
    pub fn is_aborted(&self) -> bool {
        self.answer() != Answer::Outcome
    }

    /// Whether it can change nothing any more, once it is aborted.
    pub fn is_settled(&self) -> bool {
        self.ended.get() || !self.started.get()
    }

    /// From here on the task cannot be undone.
    pub fn start(&self) {
        self.started.set(true);
    }

    /// It has changed what it was to change; only its answer is to come.
    pub fn has_changed_all(&self) {
        self.started.set(false);
        self.changed.notify_waiters();
    }
}

impl Drop for TaskPlace {
    fn drop(&mut self) {
        self.tasks.borrow_mut().remove(&self.number);
        self.task.ended.set(true);
        self.task.changed.notify_waiters();
    }
}

impl Tasks {
    /// A task begins.
    pub fn begin(&self, nexus: &Nexus, tag: u32) -> TaskPlace {
        let number = self.next.get();
        self.next.set(number + 1);
        let task = Rc::new(Task {
            nexus: nexus.clone(),
            tag,
            answer: Cell::new(Answer::Outcome),
            ended: Cell::new(false),
            started: Cell::new(false),
            changed: Notify::new(),
        });
        self.tasks.borrow_mut().insert(number, Rc::clone(&task));
        TaskPlace {
            number,
            task,
            tasks: Rc::clone(&self.tasks),
        }
    }

    /// Marks the tasks that `of` names as aborted; gives those of them that were there. `by` is the path that wants it so,
    /// unless it is one of another portal.
    pub fn abort(&self, by: Option<&Nexus>, of: impl Fn(&Task) -> bool) -> Vec<Rc<Task>> {
        let tasks = self.tasks.borrow();
        let chosen: Vec<Rc<Task>> = tasks.values().filter(|task| of(task)).cloned().collect();
        for task in &chosen {
            let answer = if by == Some(&task.nexus) {
                Answer::Nothing
            } else {
                Answer::Aborted
            };
            // What its own path has aborted is not told any more, whoever else aborts it.
            task.answer.set(task.answer().max(answer));
        }
        chosen
    }
}

impl Tasks {
    /// All that are aborted and not over yet.
    pub fn aborted(&self) -> Vec<Rc<Task>> {
        let tasks = self.tasks.borrow();
        tasks.values().filter(|task| task.is_aborted()).cloned().collect()
    }
}

/// Waits until aborted tasks can change nothing any more: those that the device was asked to do have ended. Those that
/// were not asked never will be.
pub async fn settled(tasks: Vec<Rc<Task>>) {
    for task in tasks {
        loop {
            let changed = task.changed.notified();
            if task.is_settled() {
                break;
            }
            changed.await;
        }
    }
}
