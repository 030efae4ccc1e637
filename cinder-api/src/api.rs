//! The API behind the door: each kind of resource a module, with its paths, the rules it asks of whom, what it refuses in
//! which words, and what its answers look like.

use std::sync::Arc;

use admin_client::AskError;
use axum::Router;
use axum::extract::DefaultBodyLimit;

use crate::door;
use crate::fault::Fault;
use crate::service::Service;

pub mod attachments;
pub mod backups;
pub mod cgsnapshots;
pub mod consistencygroups;
pub mod group_snapshots;
pub mod group_types;
pub mod groups;
pub mod limits;
pub mod manage;
pub mod messages;
pub mod metadata;
pub mod qos;
pub mod quotas;
pub mod services;
pub mod snapshots;
pub mod transfers;
pub mod types;
pub mod volumes;

/// The largest body: a volume with all metadata that it may have is far smaller. Cinder's `osapi_max_request_body_size`.
const BODY_BYTES_MAX: usize = 114_688;

/// The refusal of what the storage cannot be asked just now.
pub(crate) fn storage_fault(error: &AskError) -> Fault {
    Fault::unavailable(format!("The storage cannot be asked: {error}. Try again."))
}

/// All paths.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .merge(volumes::routes())
        .merge(snapshots::routes())
        .merge(types::routes())
        .merge(qos::routes())
        .merge(quotas::routes())
        .merge(limits::routes())
        .merge(attachments::routes())
        .merge(group_types::routes())
        .merge(groups::routes())
        .merge(group_snapshots::routes())
        .merge(consistencygroups::routes())
        .merge(cgsnapshots::routes())
        .merge(transfers::routes())
        .merge(backups::routes())
        .merge(messages::routes())
        .merge(services::routes())
        .merge(manage::routes())
        .fallback(door::no_such_path)
        .method_not_allowed_fallback(door::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(service)
}
