//! The API behind the door: each kind of resource a module, with its paths, the rules it asks of whom, what it refuses in
//! which words, and what its answers look like.

use std::sync::Arc;

use admin_client::AskError;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

use crate::door;
use crate::fault::Fault;
use crate::routes::Routes;
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

/// The refusal of what the storage cannot be asked just now.
pub(crate) fn storage_fault(error: &AskError) -> Fault {
    Fault::unavailable(format!("The storage cannot be asked: {error}. Try again."))
}

/// All paths, and what is done there.
pub fn routes() -> Routes {
    Routes::new()
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
}

/// What answers at these paths, and where there is none.
pub fn router(service: Arc<Service>) -> Router {
    routes()
        .into_router()
        .layer(from_fn(tell_route))
        .fallback(door::no_such_path)
        .method_not_allowed_fallback(door::no_such_method)
        .with_state(service)
}

/// Tells the door which path of all an answer is from: there may be as many addresses as volumes, but not as many figures.
async fn tell_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}
