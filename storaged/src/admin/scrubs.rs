//! Scrubs: `/v1/disks/{disk}/scrub`, `/v1/pools/{pool}/scrub`, `/v1/volumes/{volume}/check`, `/v1/scrubs`.

use admin_api::ErrorBody;
use admin_api::names::check_name;
use admin_api::scrubs::{CheckVolume, ScrubReport, ScrubStarted, StartScrub};
use axum::extract::{Path, State};

use super::Shared;
use super::answer::{Body, Failure, Reply, invalid, not_found};
use super::disks::number;
use crate::volumes::OperationError;

/// Begins a scrub of a disk of this node.
#[utoipa::path(post, path = "/v1/disks/{disk}/scrub", tag = "scrubs", params(("disk" = u32, Path)),
    request_body = StartScrub, responses((status = 200, body = ScrubStarted), (status = "4XX", body = ErrorBody),
                                         (status = "5XX", body = ErrorBody)))]
pub(super) async fn disk(
    State(context): Shared,
    Path(id): Path<String>,
    Body(request): Body<StartScrub>,
) -> Result<Reply<ScrubStarted>, Failure> {
    let task = context.scrubs.disk(number(&id)?, request.deep).await?;
    Ok(Reply(ScrubStarted { task }))
}

/// Begins a scrub of the disks of this node that a pool has.
#[utoipa::path(post, path = "/v1/pools/{pool}/scrub", tag = "scrubs", params(("pool" = String, Path)),
    request_body = StartScrub, responses((status = 200, body = ScrubStarted), (status = "4XX", body = ErrorBody),
                                         (status = "5XX", body = ErrorBody)))]
pub(super) async fn pool(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<StartScrub>,
) -> Result<Reply<ScrubStarted>, Failure> {
    let task = context.scrubs.pool(&name, request.deep).await?;
    Ok(Reply(ScrubStarted { task }))
}

/// Begins a check of all copies of a volume, on all nodes.
#[utoipa::path(post, path = "/v1/volumes/{volume}/check", tag = "scrubs", params(("volume" = String, Path)),
    request_body = CheckVolume, responses((status = 200, body = ScrubStarted), (status = "4XX", body = ErrorBody),
                                          (status = "5XX", body = ErrorBody)))]
pub(super) async fn volume(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<CheckVolume>,
) -> Result<Reply<ScrubStarted>, Failure> {
    check_name(&name).map_err(OperationError::from)?;
    let snapshot = request.snapshot.as_deref();
    let task = context.scrubs.volume(&name, snapshot, request.deep).await?;
    Ok(Reply(ScrubStarted { task }))
}

/// What a scrub found so far, or at its end.
#[utoipa::path(get, path = "/v1/scrubs/{task}", tag = "scrubs", params(("task" = u64, Path)),
    responses((status = 200, body = ScrubReport), (status = "4XX", body = ErrorBody)))]
pub(super) async fn report(
    State(context): Shared,
    Path(task): Path<String>,
) -> Result<Reply<ScrubReport>, Failure> {
    let task = task
        .parse()
        .map_err(|_| invalid(format!("{task:?} is not a task: give its number")))?;
    let report = context.scrubs.report(task);
    report
        .map(Reply)
        .ok_or_else(|| not_found(format!("task {task} is no scrub, or it ended long ago")))
}
