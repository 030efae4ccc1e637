//! `/limits`: what a project may have and has.

use std::sync::Arc;

use axum::Router;

use crate::service::Service;

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
}
