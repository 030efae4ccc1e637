//! `storagectl task`, and waiting for the task that another command started.

use admin_api::routes::{self, fill};
use admin_api::tasks::{Deleted, Task, TaskList, TaskState};
use anyhow::{Result, bail};

use crate::api::Api;
use crate::arguments::TaskCommand;
use crate::clock::format_time;
use crate::output::{Form, percent, table};
use crate::progress;

/// How long the server holds an answer back, in milliseconds: how often the bar moves.
const WAIT_MS: u64 = 500;

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: TaskCommand) -> Result<()> {
    match command {
        TaskCommand::List => form.show(&api.get(routes::TASKS).await?, render_list),
        TaskCommand::Wait { task } => {
            let ended = wait(api, task).await?;
            form.show(&ended, |task| format!("task {} done: {}", task.id, task.message))
        }
    }
}

/// Says that a thing is deleted, after its space is back if the user wants to `wait` for that.
pub(super) async fn after_deletion(
    api: &Api,
    form: Form,
    what: &str,
    deleted: Deleted,
    waits: bool,
) -> Result<()> {
    let Some(task) = deleted.task else {
        return form.show(&deleted, |_| format!("{what} deleted"));
    };
    if waits {
        wait(api, task).await?;
        return form.show(&deleted, |_| format!("{what} deleted, its space is back"));
    }
    form.show(&deleted, |_| {
        format!("{what} deleted; its space comes back in the background (task {task})")
    })
}

/// Waits for the end of a task. One that failed is an error.
pub(super) async fn wait(api: &Api, task: u64) -> Result<Task> {
    let path = format!("{}?wait_ms={WAIT_MS}", fill(routes::TASK, &[&task.to_string()]));
    let mut bar = None;
    loop {
        let task: Task = api.get(&path).await?;
        let bar = bar.get_or_insert_with(|| progress::bar(&task.subject, task.total, &task.unit));
        bar.set_length(task.total);
        bar.set_position(task.done);
        match task.state {
            TaskState::Running => {}
            TaskState::Done => {
                bar.finish_and_clear();
                return Ok(task);
            }
            TaskState::Failed => {
                bar.abandon();
                bail!("task {} failed: {}", task.id, task.message);
            }
        }
    }
}

fn render_list(list: &TaskList) -> String {
    let rows = list.tasks.iter().map(|task| {
        let state = match task.state {
            TaskState::Running => percent(task.done, task.total),
            TaskState::Done => "done".into(),
            TaskState::Failed => "failed".into(),
        };
        [
            task.id.to_string(),
            task.kind.clone(),
            task.subject.clone(),
            state,
            format_time(task.started_ms),
            task.message.clone(),
        ]
    });
    table(
        ["task", "kind", "subject", "state", "started", "message"],
        &["task", "state"],
        rows,
    )
}

#[cfg(test)]
mod tests {
    //! A task that runs shows how far it is.
    use super::*;

    #[test]
    fn a_running_task_shows_its_share() {
        let task = Task {
            id: 3,
            kind: "reclaim".into(),
            subject: "volume db".into(),
            state: TaskState::Running,
            done: 25,
            total: 100,
            unit: "objects".into(),
            message: "drops objects on disk-1".into(),
            started_ms: 0,
            ended_ms: None,
        };
        assert!(render_list(&TaskList { tasks: vec![task] }).contains("25 %"));
    }
}
