//! `/v1/version`, `/v1/status` and `/v1/metrics`: how the whole is.

use admin_api::status::{Status, Version};
use axum::extract::State;

use super::Shared;
use super::answer::Reply;
use crate::{health, metrics as figures};

/// What runs, and which API it speaks.
#[utoipa::path(get, path = "/v1/version", tag = "status", responses((status = 200, body = Version)))]
pub(super) async fn version() -> Reply<Version> {
    Reply(Version {
        storaged: env!("CARGO_PKG_VERSION").to_owned(),
        api: vec!["v1".to_owned()],
    })
}

/// How the whole is, and what waits for what.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(context): Shared) -> Reply<Status> {
    Reply(health::status(&context).await)
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/v1/metrics", tag = "status",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(context): Shared) -> String {
    figures::render(&context).await
}
