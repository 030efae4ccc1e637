//! Tasks: work that goes on in the background after its request was answered.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The longest that an answer is held back for the end of a task, in milliseconds.
pub const TASK_WAIT_MS_MAX: u64 = 60_000;

/// How to ask for a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskQuery {
    /// Answer when the task ended, or after this long, up to [`TASK_WAIT_MS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Works, or waits for something that its message names.
    Running,
    /// Ended well.
    Done,
    /// Ended without doing its work; the message says why.
    Failed,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its number.
    pub id: u64,
    /// What kind of work it is, for programs: `reclaim` and the like.
    pub kind: String,
    /// What it works on, for people.
    pub subject: String,
    /// How far it is.
    pub state: TaskState,
    /// Steps done.
    pub done: u64,
    /// Steps in all, as far as known; grows while it is found out.
    pub total: u64,
    /// What a step is: `objects`, `bytes`.
    pub unit: String,
    /// What it does or waits for now, or how it ended: a sentence.
    pub message: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
}

/// Tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    /// Those that run, and the last ones that ended; newest first.
    pub tasks: Vec<Task>,
}

/// The answer to a deletion: the thing is gone for everybody; its space comes back in the background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// The task that gives the space back, if there is anything to give back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
}
