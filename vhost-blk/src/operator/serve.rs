//! The operator thread: HTTP in, an order to the data thread, its answer out as JSON.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use admin_api::figures::{FrontEndFigures, VolumeFigures};
use admin_api::vhost::{Announced, DeviceStatus, Drain, HOLD_MS_MAX, Hold, Resume, Resumed};
use admin_api::{ErrorBody, ErrorKind};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AnnounceError, HoldError, Order, metrics};
use crate::server;

/// Only the process's own user may speak to the socket: nobody is asked who he is.
const SOCKET_MODE: u32 = 0o600;
/// The largest body of a request: all of them are a number with a name.
const BODY_BYTES_MAX: usize = 4 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vhost-blk control socket",
        description = "One attached volume: figures, and letting its requests rest.",
        license(name = "Apache-2.0 OR MIT")
    ),
    components(schemas(ErrorBody))
)]
struct Document;

type Orders = State<mpsc::Sender<Order>>;

/// A control socket that nobody serves yet. Everything that needs rights is done.
pub struct Prepared {
    /// Nothing once it is served.
    ready: Option<(Runtime, UnixListener)>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // A start that fails drops it within an event loop, where a loop may end in no other way.
        if let Some((runtime, _)) = self.ready.take() {
            runtime.shutdown_background();
        }
    }
}

impl Prepared {
    /// Binds the socket. As the front end's socket: in the place of an abandoned one, never of one in use.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = server::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::from_std(listener)
        };
        match listener {
            Ok(listener) => Ok(Self {
                ready: Some((runtime, listener)),
            }),
            Err(cause) => {
                runtime.shutdown_background();
                Err(cause)
            }
        }
    }

    /// Starts the operator thread. It ends with the process.
    pub fn spawn(mut self, orders: mpsc::Sender<Order>) -> io::Result<()> {
        let Some((runtime, listener)) = self.ready.take() else {
            return Ok(());
        };
        let serve = move || {
            let served = axum::serve(listener, router(orders));
            if let Err(cause) = runtime.block_on(served.into_future()) {
                warn!(%cause, "the control socket is not served any more");
            }
        };
        thread::Builder::new()
            .name("operator".to_owned())
            .spawn(serve)
            .map(drop)
    }
}

/// All routes with their documentation.
fn routes() -> OpenApiRouter<mpsc::Sender<Order>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(stats))
        .routes(routes!(figures))
        .routes(routes!(prometheus))
        .routes(routes!(drain))
        .routes(routes!(resume))
        .routes(routes!(resize))
        .routes(routes!(openapi))
}

fn router(orders: mpsc::Sender<Order>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(orders)
}

/// Everything about the attached volume.
#[utoipa::path(get, path = "/v1/stats", responses((status = 200, body = DeviceStatus)))]
async fn stats(State(orders): Orders) -> Result<Json<DeviceStatus>, Failure> {
    describe(&orders).await.map(Json)
}

/// What is counted, in the words of all front ends.
#[utoipa::path(get, path = "/v1/figures", responses((status = 200, body = FrontEndFigures)))]
async fn figures(State(orders): Orders) -> Result<Json<FrontEndFigures>, Failure> {
    let status = describe(&orders).await?;
    Ok(Json(FrontEndFigures {
        program: "vhost-blk".to_owned(),
        version: status.version,
        pid: std::process::id(),
        uptime_s: status.uptime_s,
        volumes: vec![VolumeFigures {
            volume: status.volume,
            size: status.size,
            generation: status.generation,
            clients: u64::from(status.connected),
            in_flight: status.in_flight,
            waiting: status.waiting,
            direct_reads: status.direct_reads,
            shared_writes: status.shared_writes,
            throttled_requests: status.throttled_requests,
            throttled_ms: status.throttled_ms,
            requests: status.requests,
        }],
    }))
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/v1/metrics",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
async fn prometheus(State(orders): Orders) -> Result<String, Failure> {
    let status = describe(&orders).await?;
    Ok(metrics::render(&status))
}

/// Takes no more requests and answers when none is under way.
#[utoipa::path(post, path = "/v1/drain", request_body = Drain,
    responses((status = 200, body = Hold), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn drain(State(orders): Orders, body: Bytes) -> Result<Json<Hold>, Failure> {
    let Drain { limit_ms } = read(&body)?;
    if limit_ms == 0 || limit_ms > HOLD_MS_MAX {
        let message = format!("limit_ms is from 1 to {HOLD_MS_MAX}, not {limit_ms}");
        return Err(failure(ErrorKind::InvalidRequest, message));
    }
    let limit = Duration::from_millis(limit_ms);
    Ok(Json(ask(&orders, |done| Order::Hold { limit, done }).await??))
}

/// Ends a rest, or all.
#[utoipa::path(post, path = "/v1/resume", request_body = Resume,
    responses((status = 200, body = Resumed), (status = "4XX", body = ErrorBody)))]
async fn resume(State(orders): Orders, body: Bytes) -> Result<Json<Resumed>, Failure> {
    let Resume { hold } = read(&body)?;
    Ok(Json(ask(&orders, |done| Order::Release { hold, done }).await??))
}

/// Reads the volume's size anew and tells the guest.
#[utoipa::path(post, path = "/v1/resize",
    responses((status = 200, body = Announced), (status = "5XX", body = ErrorBody)))]
async fn resize(State(orders): Orders) -> Result<Json<Announced>, Failure> {
    Ok(Json(ask(&orders, Order::Announce).await??))
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json",
    responses((status = 200, description = "The OpenAPI document", content_type = "application/json")))]
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(routes().into_openapi())
}

async fn no_such_path(uri: Uri) -> Failure {
    let message = format!(
        "there is nothing at {}: see /v1/openapi.json for what there is",
        uri.path()
    );
    failure(ErrorKind::NotFound, message)
}

async fn no_such_method(uri: Uri) -> Failure {
    let message = format!(
        "{} does not answer to this method: see /v1/openapi.json",
        uri.path()
    );
    failure(ErrorKind::MethodNotAllowed, message)
}

/// Asks how things are.
async fn describe(orders: &mpsc::Sender<Order>) -> Result<DeviceStatus, Failure> {
    let description = ask(orders, Order::Describe).await?;
    Ok(description.into_status())
}

/// Sends an order and waits for its answer.
async fn ask<T>(
    orders: &mpsc::Sender<Order>,
    order: impl FnOnce(oneshot::Sender<T>) -> Order,
) -> Result<T, Failure> {
    let gone = || failure(ErrorKind::Unavailable, "this vhost-blk is ending");
    let (done, answer) = oneshot::channel();
    orders.send(order(done)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

/// A JSON body. Its content type does not matter, and nothing at all is an empty object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    match Json::<T>::from_bytes(text) {
        Ok(Json(request)) => Ok(request),
        Err(rejection) => {
            let message = format!("the body is not what this path takes: {}", rejection.body_text());
            Err(failure(ErrorKind::InvalidRequest, message))
        }
    }
}

/// An answer that is not a success.
#[derive(Debug)]
struct Failure(ErrorBody);

fn failure(kind: ErrorKind, message: impl Into<String>) -> Failure {
    Failure(ErrorBody::new(kind, message))
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

impl From<HoldError> for Failure {
    fn from(error: HoldError) -> Self {
        let kind = match error {
            HoldError::StillUnderWay { .. } => ErrorKind::Unavailable,
            HoldError::TooMany(_) => ErrorKind::Conflict,
            HoldError::Ended(_) => ErrorKind::NotFound,
        };
        failure(kind, error.to_string())
    }
}

impl From<AnnounceError> for Failure {
    fn from(error: AnnounceError) -> Self {
        let kind = match error {
            AnnounceError::Away | AnnounceError::Busy => ErrorKind::Unavailable,
            AnnounceError::Untold(_) => ErrorKind::Internal,
        };
        failure(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    //! What happens to a start that fails.
    use super::*;

    #[tokio::test]
    async fn a_start_that_fails_with_its_control_socket_bound_says_why_and_does_not_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let first = Prepared::bind(&path).unwrap();
        assert!(Prepared::bind(&path).is_err(), "it is in use");
        drop(first);
        drop(Prepared::bind(&path).unwrap());
    }
}
