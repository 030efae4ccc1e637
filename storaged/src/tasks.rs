//! Work that goes on after its request was answered: who does what, how far, and how it ended.
//!
//! Kept in memory: every task follows from a record in the coordination store, so after a restart
//! the same work is found and begun again, under a new number. Nothing here does the work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admin_api::tasks::{Task, TaskState};
use tokio::sync::watch;

use crate::moment::wall_clock_ms;

/// Tasks that ended and are still told of.
const ENDED_MAX: usize = 200;

/// All tasks of this `storaged`. Cheap to clone.
#[derive(Clone)]
pub struct Tasks(Arc<Shared>);

struct Shared {
    tasks: Mutex<State>,
    /// Counts changes, for those who wait.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    next: u64,
    tasks: BTreeMap<u64, Task>,
}

/// The one who does a task's work. A task whose worker is dropped before it ended has failed.
pub struct Worker {
    tasks: Tasks,
    id: u64,
}

impl Default for Tasks {
    fn default() -> Self {
        let (changes, _) = watch::channel(0);
        Self(Arc::new(Shared {
            tasks: Mutex::default(),
            changes,
        }))
    }
}

impl Tasks {
    /// Begins a task. `unit` is what its steps are: `objects`, `bytes`.
    pub fn begin(&self, kind: &str, subject: impl Into<String>, unit: &str) -> Worker {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let task = Task {
            id,
            kind: kind.to_owned(),
            subject: subject.into(),
            state: TaskState::Running,
            done: 0,
            total: 0,
            unit: unit.to_owned(),
            message: "waits for its turn".to_owned(),
            started_ms: wall_clock_ms(),
            ended_ms: None,
        };
        state.tasks.insert(id, task);
        drop(state);
        self.changed();
        Worker {
            tasks: self.clone(),
            id,
        }
    }

    /// All tasks that run or ended lately, newest first.
    pub fn list(&self) -> Vec<Task> {
        self.state().tasks.values().rev().cloned().collect()
    }

    /// One task.
    pub fn get(&self, id: u64) -> Option<Task> {
        self.state().tasks.get(&id).cloned()
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.state()
            .tasks
            .values()
            .filter(|task| task.state == TaskState::Running)
            .count()
    }

    /// Waits until a task ended. Nothing if there is no such task.
    pub async fn ended(&self, id: u64) -> Option<Task> {
        let mut changes = self.0.changes.subscribe();
        loop {
            let task = self.get(id)?;
            if task.state != TaskState::Running || changes.changed().await.is_err() {
                return Some(task);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.state().tasks.get_mut(&id) {
            change(task);
        }
        self.changed();
    }
}

impl Worker {
    /// The task's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Says what the task does or waits for now.
    pub fn say(&self, message: impl Into<String>) {
        let message = message.into();
        self.tasks.change(self.id, |task| task.message = message);
    }

    /// Finds more steps to do.
    pub fn expect(&self, more: u64) {
        self.tasks.change(self.id, |task| task.total += more);
    }

    /// Did steps.
    pub fn advance(&self, steps: u64) {
        self.tasks.change(self.id, |task| {
            task.done += steps;
            task.total = task.total.max(task.done);
        });
    }

    /// Ends the task well.
    pub fn finish(self, message: impl Into<String>) {
        self.end(TaskState::Done, message.into());
    }

    /// Ends the task without its work being done.
    pub fn fail(self, message: impl Into<String>) {
        self.end(TaskState::Failed, message.into());
    }

    fn end(&self, end: TaskState, message: String) {
        let mut state = self.tasks.state();
        if let Some(task) = state.tasks.get_mut(&self.id)
            && task.state == TaskState::Running
        {
            task.state = end;
            task.message = message;
            task.ended_ms = Some(wall_clock_ms());
        }
        forget_old(&mut state.tasks);
        drop(state);
        self.tasks.changed();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end(
            TaskState::Failed,
            "it was given up when storaged stopped".to_owned(),
        );
    }
}

fn forget_old(tasks: &mut BTreeMap<u64, Task>) {
    let ended: Vec<u64> = tasks
        .values()
        .filter(|task| task.state != TaskState::Running)
        .map(|task| task.id)
        .collect();
    for id in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
        tasks.remove(id);
    }
}

#[cfg(test)]
mod tests {
    //! A task ends once, is found again for a while, and whoever waits hears of it.
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_task_hears_how_it_ended() {
        let tasks = Tasks::default();
        let worker = tasks.begin("reclaim", "family-1", "objects");
        let id = worker.id();
        worker.expect(2);
        worker.advance(2);
        let waiting = tokio::spawn({
            let tasks = tasks.clone();
            async move { tasks.ended(id).await }
        });
        worker.finish("all is done");
        let task = waiting.await.unwrap().unwrap();
        assert_eq!((task.state, task.done, task.total), (TaskState::Done, 2, 2));
        assert_eq!(task.message, "all is done");
        assert!(tasks.ended(99).await.is_none());
    }

    #[test]
    fn a_task_whose_worker_is_gone_has_failed_and_does_not_run_for_ever() {
        let tasks = Tasks::default();
        drop(tasks.begin("reclaim", "family-1", "objects"));
        assert_eq!(tasks.list()[0].state, TaskState::Failed);
        assert_eq!(tasks.running(), 0);
    }

    #[test]
    fn tasks_that_ended_long_ago_are_forgotten_and_those_that_run_are_not() {
        let tasks = Tasks::default();
        let worker = tasks.begin("reclaim", "slow", "objects");
        for _ in 0..ENDED_MAX + 50 {
            tasks.begin("reclaim", "quick", "objects").finish("done");
        }
        assert_eq!(tasks.list().len(), ENDED_MAX + 1);
        assert!(tasks.get(worker.id()).is_some());
    }
}
