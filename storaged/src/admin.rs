//! The admin API: HTTP in, operations carried out, JSON out.
//!
//! What is said lies in the crate `admin-api`, what is done in [`crate::volumes`] and its neighbours;
//! here the two are joined. Handlers check nothing themselves: an operation refuses in words, and
//! the words go out as they are.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use admin_api::{ErrorBody, ErrorKind};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::Uri;
use protocol::NodeId;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::AccessTokens;
use crate::cluster::door::Door;
use crate::disks::Disks;
use crate::events::Events;
use crate::expiry::Certificates;
use crate::iscsi::Iscsi;
use crate::peers::survey::Surveyor;
use crate::progress::Progress;
use crate::reclaim::Reclaim;
use crate::relocation::Relocations;
use crate::scrub::Scrubs;
use crate::shrink::Shrinks;
use crate::tasks::Tasks;
use crate::volumes::Volumes;

mod access_tokens;
mod answer;
mod describe;
mod disks;
mod figures;
mod iscsi;
mod join_tokens;
mod log;
mod network;
mod nodes;
mod peers;
mod pools;
mod scrubs;
mod serve;
mod snapshots;
mod status;
mod upgrade;
mod volumes;

pub use network::Network;
pub use peers::router as peer_router;
pub use serve::{Admin, ListenError};

use answer::{Failure, Reply};

/// The largest body of a request. The longest sensible one has [`admin_api::iscsi::REGISTRATIONS_MAX`] registrations
/// of some 600 bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What the handlers work with.
pub struct Context {
    /// This node.
    pub node: NodeId,
    /// How long owners have their leases.
    pub lease: Duration,
    /// When this `storaged` began.
    pub started: Instant,
    /// Volumes, snapshots and pools.
    pub volumes: Arc<Volumes>,
    /// The disks of this node.
    pub disks: Arc<Disks>,
    /// How all disks of the cluster are.
    pub surveyor: Surveyor,
    /// The event log.
    pub events: Events,
    /// How far disks are on their way back.
    pub progress: Arc<Progress>,
    /// What goes on in the background.
    pub tasks: Tasks,
    /// Gives back space.
    pub reclaim: Reclaim,
    /// Finishes shrinks.
    pub shrinks: Shrinks,
    /// Lets machines join; or why none can.
    pub door: Result<Arc<Door>, String>,
    /// Who may ask over the network.
    pub access: Arc<AccessTokens>,
    /// Certificates that somebody else has to renew.
    pub certificates: Certificates,
    /// The certificate of the cluster's authority, if the node shows any that it signed.
    pub authority: Option<String>,
    /// Where the network asks: `HOST:PORT`, known once it listens.
    pub network_addresses: OnceLock<Vec<String>>,
    /// Looks after copies.
    pub scrubs: Scrubs,
    /// Moves placement groups to where they belong.
    pub relocations: Relocations,
    /// iSCSI targets, and what gateways keep here.
    pub iscsi: Iscsi,
}

type Shared = State<Arc<Context>>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "storaged admin API",
        description = "Volumes, snapshots, pools and disks of a storaged cluster. Everything that goes wrong \
                       is answered with a kind for programs and a sentence for people.",
        license(name = "Apache-2.0 OR MIT")
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// All routes with their documentation.
fn routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status::version))
        .routes(routes!(status::status))
        .routes(routes!(status::metrics))
        .routes(routes!(figures::figures))
        .routes(routes!(log::events))
        .routes(routes!(log::tasks))
        .routes(routes!(log::task))
        .routes(routes!(upgrade::status))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get, nodes::change, nodes::remove))
        .routes(routes!(join_tokens::list, join_tokens::make))
        .routes(routes!(join_tokens::revoke))
        .routes(routes!(access_tokens::list, access_tokens::make))
        .routes(routes!(access_tokens::revoke))
        .routes(routes!(access_tokens::authority))
        .routes(routes!(disks::list, disks::add))
        .routes(routes!(disks::get, disks::change, disks::remove))
        .routes(routes!(disks::give_up))
        .routes(routes!(scrubs::disk))
        .routes(routes!(scrubs::pool))
        .routes(routes!(scrubs::volume))
        .routes(routes!(scrubs::report))
        .routes(routes!(pools::list, pools::create))
        .routes(routes!(pools::get, pools::delete))
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::get, volumes::delete))
        .routes(routes!(volumes::rename))
        .routes(routes!(volumes::resize))
        .routes(routes!(volumes::label))
        .routes(routes!(volumes::limit))
        .routes(routes!(volumes::roll_back))
        .routes(routes!(volumes::retype))
        .routes(routes!(volumes::take_over))
        .routes(routes!(volumes::tree))
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(snapshots::clone))
        .routes(routes!(snapshots::list_all))
        .routes(routes!(snapshots::create_group))
        .routes(routes!(iscsi::list, iscsi::create))
        .routes(routes!(iscsi::get, iscsi::delete))
        .routes(routes!(iscsi::add_lun))
        .routes(routes!(iscsi::remove_lun))
        .routes(routes!(iscsi::add_access))
        .routes(routes!(iscsi::remove_access))
        .routes(routes!(iscsi::set_mutual, iscsi::clear_mutual))
        .routes(routes!(iscsi::portals, iscsi::announce))
        .routes(routes!(iscsi::configuration))
        .routes(routes!(iscsi::reservations, iscsi::set_reservations))
        .routes(routes!(openapi))
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The API as a service.
pub fn router(context: Arc<Context>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(context)
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "status",
    responses((status = 200, description = "The OpenAPI document", content_type = "application/json")))]
async fn openapi() -> Reply<utoipa::openapi::OpenApi> {
    Reply(document())
}

async fn no_such_path(uri: Uri) -> Failure {
    let message = format!(
        "there is nothing at {}: see /v1/openapi.json for what there is",
        uri.path()
    );
    Failure(ErrorBody::new(ErrorKind::NotFound, message))
}

async fn no_such_method(uri: Uri) -> Failure {
    let message = format!(
        "{} does not answer to this method: see /v1/openapi.json",
        uri.path()
    );
    Failure(ErrorBody::new(ErrorKind::MethodNotAllowed, message))
}

#[cfg(test)]
mod tests;
