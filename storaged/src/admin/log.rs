//! `/v1/events` and `/v1/tasks`: what happened, and what goes on.

use std::time::Duration;

use admin_api::ErrorBody;
use admin_api::events::{EVENT_WAIT_MS_MAX, EVENTS_PER_PAGE_MAX, EventPage, EventQuery};
use admin_api::tasks::{TASK_WAIT_MS_MAX, Task, TaskList, TaskQuery};
use axum::extract::{Path, State};

use super::Shared;
use super::answer::{Failure, Params, Reply, invalid, not_found};

/// Events on a page unless told otherwise.
const EVENTS_PER_PAGE: u32 = 100;

/// The event log.
#[utoipa::path(get, path = "/v1/events", tag = "status", params(EventQuery),
    responses((status = 200, body = EventPage), (status = "4XX", body = ErrorBody)))]
pub(super) async fn events(
    State(context): Shared,
    Params(query): Params<EventQuery>,
) -> Result<Reply<EventPage>, Failure> {
    let limit = query.limit.unwrap_or(EVENTS_PER_PAGE);
    if limit == 0 || limit > EVENTS_PER_PAGE_MAX {
        return Err(invalid(format!(
            "limit is from 1 to {EVENTS_PER_PAGE_MAX}, not {limit}"
        )));
    }
    let wait = checked_wait(query.wait_ms, EVENT_WAIT_MS_MAX)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = context.events.page(query.after, limit);
    if let Some(wait) = wait
        && page.events.is_empty()
    {
        // Whether it ended with an event or without: the page tells.
        let _ = tokio::time::timeout(wait, context.events.wait_after(page.next_after)).await;
        return Ok(Reply(context.events.page(query.after, limit)));
    }
    Ok(Reply(page))
}

/// Tasks that run or ended lately.
#[utoipa::path(get, path = "/v1/tasks", tag = "status", responses((status = 200, body = TaskList)))]
pub(super) async fn tasks(State(context): Shared) -> Reply<TaskList> {
    Reply(TaskList {
        tasks: context.tasks.list(),
    })
}

/// One task.
#[utoipa::path(get, path = "/v1/tasks/{task}", tag = "status", params(("task" = u64, Path), TaskQuery),
    responses((status = 200, body = Task), (status = "4XX", body = ErrorBody)))]
pub(super) async fn task(
    State(context): Shared,
    Path(id): Path<String>,
    Params(query): Params<TaskQuery>,
) -> Result<Reply<Task>, Failure> {
    let id = id
        .parse()
        .map_err(|_| invalid(format!("{id:?} is not a task: give its number")))?;
    if let Some(wait) = checked_wait(query.wait_ms, TASK_WAIT_MS_MAX)? {
        // Whether it ended in time or not: its state tells.
        let _ = tokio::time::timeout(wait, context.tasks.ended(id)).await;
    }
    let task = context.tasks.get(id);
    task.map(Reply)
        .ok_or_else(|| not_found(format!("there is no task {id}, or it ended long ago")))
}

/// How long to wait, if that is no longer than one may.
pub(super) fn checked_wait(wait_ms: Option<u64>, most: u64) -> Result<Option<Duration>, Failure> {
    match wait_ms {
        Some(wait) if wait > most => Err(invalid(format!("wait_ms is at most {most}, not {wait}"))),
        wait => Ok(wait.map(Duration::from_millis)),
    }
}
