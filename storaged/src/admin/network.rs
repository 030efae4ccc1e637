//! The admin API for the network: TLS with the node's certificate, one request a connection, and nothing for whoever shows
//! no access token. What a token allows is [`permission`]'s to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin_api::{ErrorBody, ErrorKind};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{Instrument, debug, info, warn};

use super::answer::Failure;
use crate::access::{AccessTokens, Caller, NotKnown, permission};
use crate::cluster::authority::Shown;

/// Connections at the same time; others wait in the kernel's queue. The node's own socket is not among them.
const VISITORS_MAX: usize = 256;
/// How long a visitor may take to agree on keys.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long a request's head may take, and so a visitor who says nothing.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long a visit may last in all: longer than the longest request, which waits for a busy volume to come to rest.
const VISIT_LIMIT: Duration = Duration::from_secs(150);
/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is needed to be asked over the network. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    /// The newest certificate.
    certificates: watch::Receiver<Arc<ServerConfig>>,
    /// Who may ask.
    access: Arc<AccessTokens>,
}

impl Network {
    /// With what the node shows, for those whom it knows.
    pub fn new(shown: &Shown, access: &Arc<AccessTokens>) -> Self {
        Self {
            certificates: shown.admin.clone(),
            access: access.clone(),
        }
    }
}

/// Answers the network until it is told to stop, and then until the visits that are under way are over.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    network: Network,
    stop: impl Future<Output = ()>,
) {
    let router = router.layer(middleware::from_fn_with_state(network.access.clone(), admit));
    let room = Arc::new(Semaphore::new(VISITORS_MAX));
    let mut visits = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        while visits.try_join_next().is_some() {}
        let (place, accepted) = tokio::select! {
            () = &mut stop => break,
            next = next(&listener, &room) => next,
        };
        match accepted {
            Ok((stream, from)) => {
                let config = network.certificates.borrow().clone();
                let visit = receive(stream, from, config, router.clone(), place);
                visits.spawn(visit.in_current_span());
            }
            Err(error) => {
                warn!(%error, "the admin API cannot accept from the network");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while visits.join_next().await.is_some() {}
}

async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (
    Option<OwnedSemaphorePermit>,
    std::io::Result<(TcpStream, SocketAddr)>,
) {
    // It is never closed, so there always is a place, sooner or later.
    let place = room.clone().acquire_owned().await.ok();
    (place, listener.accept().await)
}

/// One visit, which has a place as long as it lasts.
async fn receive(
    stream: TcpStream,
    from: SocketAddr,
    config: Arc<ServerConfig>,
    router: Router,
    _place: Option<OwnedSemaphorePermit>,
) {
    let agreed = timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(config).accept(stream)).await;
    let stream = match agreed {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return info!(%from, %error, "a visitor of the admin API did not agree on keys"),
        Err(_) => return info!(%from, "a visitor of the admin API said nothing"),
    };
    let visit = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(VISIT_LIMIT, visit).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%from, %error, "a visitor of the admin API left"),
        Err(_) => info!(%from, "a visit to the admin API took too long"),
    }
}

/// Lets a request through if its bearer may make it. Changes are logged with who asked.
async fn admit(State(access): State<Arc<AccessTokens>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = match known(&access, request.headers()).await {
        Ok(caller) => caller,
        Err(failure) => return stranger(failure),
    };
    if let Err(failure) = allowed(&caller, &method, &path) {
        warn!(token = %caller.id, name = caller.name, %method, path, "somebody asked for what his token does not allow");
        return failure.into_response();
    }
    let answer = next.run(request).await;
    if method != Method::GET && method != Method::HEAD {
        let status = answer.status().as_u16();
        info!(token = %caller.id, name = caller.name, %method, path, status, "asked over the network");
    }
    answer
}

async fn known(access: &AccessTokens, headers: &HeaderMap) -> Result<Caller, Failure> {
    let refuse = |message: String| Failure(ErrorBody::new(ErrorKind::Unauthenticated, message));
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    // The scheme's name may be in small letters (RFC 9110 11.1).
    let bearer = shown.and_then(|shown| shown.split_once(' '));
    let Some((_, word)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(refuse(
            "over the network the admin API wants a token, in a line `Authorization: Bearer TOKEN`: `storagectl access \
             create` on a node makes one"
                .to_owned(),
        ));
    };
    access.judge(word.trim()).await.map_err(|error| match error {
        NotKnown::Wrong | NotKnown::Expired(_) => refuse(error.to_string()),
        NotKnown::Failed(error) => error.into(),
    })
}

fn allowed(caller: &Caller, method: &Method, path: &str) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure(ErrorBody::new(ErrorKind::Forbidden, message)));
    match permission::needed(method, path) {
        Some(needed) if caller.role >= needed => Ok(()),
        Some(needed) => refuse(format!(
            "the token {} is for {}; this is for {}",
            caller.id,
            permission::in_words(caller.role),
            permission::in_words(needed)
        )),
        None => refuse(
            "this is not done over the network, whoever asks: only on the node itself, over the socket of its storaged"
                .to_owned(),
        ),
    }
}

/// Whoever is not known is told how to be (RFC 9110 11.6.1).
fn stranger(failure: Failure) -> Response {
    let unknown = failure.0.kind == ErrorKind::Unauthenticated;
    let mut answer = failure.into_response();
    if unknown {
        let how = HeaderValue::from_static("Bearer realm=\"storaged\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, how);
    }
    answer
}
