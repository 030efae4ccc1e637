//! What other nodes are answered: a few questions of their own, and none of an operator's.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::Uri;
use axum::routing::get;

use super::answer::{Failure, Reply, not_found};
use super::{BODY_BYTES_MAX, Context, Shared};
use crate::peers::words::{DISKS, NodeDisks};

/// The answers as a service.
pub fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route(DISKS, get(disks))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(context)
}

async fn disks(State(context): Shared) -> Reply<NodeDisks> {
    Reply(NodeDisks {
        disks: context.disks.reports().await,
    })
}

/// Of a node that is newer than this one.
async fn unknown(uri: Uri) -> Failure {
    not_found(format!(
        "it does not know what {} is: it runs another version",
        uri.path()
    ))
}
