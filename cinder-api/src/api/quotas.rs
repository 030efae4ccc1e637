//! `/os-quota-sets` and `/os-quota-class-sets`: what projects may have.

use std::sync::Arc;

use axum::Router;

use crate::service::Service;

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
}
