//! What runs where, for administrators: services, pools, capabilities, hosts, zones.

use std::sync::Arc;

use axum::Router;

use crate::service::Service;

/// The identity of the one service that volumes are behind: clients take it as a name for a lock that nobody needs.
pub const SERVICE_UUID: &str = "5f2e7c1e-6a39-4bd8-9c0e-8d7f5b3a1c24";

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
}
