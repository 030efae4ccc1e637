//! Where other nodes are answered: a connection in, one question and its answer. Who comes must show a certificate of
//! a node; front ends and machines that join have no business here. What is answered is not known here.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use admin_api::{ErrorBody, ErrorKind};
use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use client::transport::{CredentialsWatch, Role, role_of};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::StartHandshake;

/// Nodes that are answered at the same time. Each asks at most one thing at a time of each other.
const VISITORS_MAX: usize = 256;
/// How long one may take, from the connection to the end of the answer: longer than any asker waits.
const VISIT_LIMIT: Duration = Duration::from_secs(5);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    credentials: Option<CredentialsWatch>,
    router: Arc<OnceLock<Router>>,
    room: Arc<Semaphore>,
}

impl Gate {
    /// Shows visitors the newest of these certificates; with none, nodes speak in plaintext, on loopback.
    pub fn new(credentials: Option<CredentialsWatch>) -> Self {
        Self {
            credentials,
            router: Arc::default(),
            room: Arc::new(Semaphore::new(VISITORS_MAX)),
        }
    }

    /// What is answered from now on. Before that, visitors are told to come again.
    pub fn open(&self, router: Router) {
        // A second one does not come: there is one start in a process.
        let _ = self.router.set(router);
    }

    /// Whether nodes speak in plaintext here.
    pub fn is_plain(&self) -> bool {
        self.credentials.is_none()
    }

    /// Answers somebody who asked for a node by its name.
    pub async fn admit(&self, hello: StartHandshake<TcpStream>) -> io::Result<()> {
        let Some(credentials) = &self.credentials else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        let accepting = credentials.borrow().accepting();
        let visit = async {
            let stream = hello.into_stream(accepting).await?;
            match role_of(stream.get_ref().1.peer_certificates()) {
                Some(Role::Node(_)) => self.answer(stream).await,
                _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is no node")),
            }
        };
        self.limited(visit).await
    }

    /// Answers somebody in plaintext.
    pub async fn admit_plain(&self, stream: TcpStream) -> io::Result<()> {
        self.limited(self.answer(stream)).await
    }

    async fn limited(&self, visit: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let full = |_| io::Error::new(io::ErrorKind::WouldBlock, "too many nodes ask at the same time");
        let _place = self.room.try_acquire().map_err(full)?;
        timeout(VISIT_LIMIT, visit)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn answer(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> io::Result<()> {
        let router = self
            .router
            .get()
            .cloned()
            .unwrap_or_else(|| Router::new().fallback(starting));
        http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
            .await
            .map_err(io::Error::other)
    }
}

async fn starting() -> impl IntoResponse {
    let body = ErrorBody::new(ErrorKind::Unavailable, "it is starting");
    (StatusCode::SERVICE_UNAVAILABLE, Json(body))
}
