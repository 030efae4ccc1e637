//! What other nodes are answered: a few questions of their own, and none of an operator's.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::Uri;
use axum::routing::{get, post};
use protocol::FamilyId;

use super::answer::{Body, Failure, Reply, not_found};
use super::{BODY_BYTES_MAX, Context, Shared};
use crate::peers::words::{
    CHECK, CHECKS, DISKS, NodeDisks, NodeUsage, PartBegun, PartOfCheck, PartOrder, USAGE,
};

/// The answers as a service.
pub fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route(DISKS, get(disks))
        .route(USAGE, get(usage))
        .route(CHECKS, post(begin_check))
        .route(CHECK, get(check))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(context)
}

async fn disks(State(context): Shared) -> Reply<NodeDisks> {
    Reply(NodeDisks {
        disks: context.disks.reports().await,
    })
}

async fn usage(State(context): Shared, Path(family): Path<u64>) -> Reply<NodeUsage> {
    Reply(context.disks.usage(FamilyId(family)).await)
}

async fn begin_check(
    State(context): Shared,
    Body(order): Body<PartOrder>,
) -> Result<Reply<PartBegun>, Failure> {
    let task = context.scrubs.part(&order).await?;
    Ok(Reply(PartBegun { task }))
}

async fn check(State(context): Shared, Path(task): Path<u64>) -> Result<Reply<PartOfCheck>, Failure> {
    let part = context.scrubs.part_so_far(task);
    part.map(Reply)
        .ok_or_else(|| not_found("it was started again, or forgot that check"))
}

/// Of a node that is newer than this one.
async fn unknown(uri: Uri) -> Failure {
    not_found(format!(
        "it does not know what {} is: it runs another version",
        uri.path()
    ))
}
