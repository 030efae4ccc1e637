//! `/os-volume-transfer` and `/volume-transfers`: volumes for other projects.

use std::sync::Arc;

use axum::Router;

use crate::service::Service;

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
}
