//! `/qos-specs`: limits of types.

use std::sync::Arc;

use axum::Router;

use crate::service::Service;

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
}
