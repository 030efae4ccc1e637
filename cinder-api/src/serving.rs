//! Connections: how many there are at once, how long a silent or slow peer keeps one, and how they end with the process. What
//! is answered on them is the router's business.
//!
//! HTTP/1.1 only, which is all that OpenStack's clients and load balancers speak to it. TLS is the load balancer's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::limits::{HEADER_BYTES_MAX, Limits};
use crate::metrics;

mod impatient;

use impatient::Impatient;
pub use impatient::PROGRESS_BYTES;

/// After a failure to accept that is the process's own, not the peer's: out of files, for example.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// When fewer than this part of all places is free, connections end with their next answer, so that those who wait for a
/// place need not wait until somebody's connection has been idle for long.
const FREE_PART: usize = 4;

/// What all listeners of one router share.
#[derive(Clone)]
pub struct Serving {
    router: Router,
    limits: Limits,
    places: Arc<Semaphore>,
}

impl Serving {
    /// Nothing listens yet.
    pub fn new(router: Router, limits: Limits) -> Self {
        Self {
            router,
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
        }
    }

    /// Serves a listener until it is to stop. Then idle connections are closed, and what is being answered is answered to its
    /// end, as long as the limit for that lasts.
    pub async fn run(self, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
        let open = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener) => accepted,
                _ = stopping.wait_for(|stop| *stop) => break,
            };
            let Some((stream, place)) = accepted else {
                return;
            };
            let connection = open.watch(self.connection(stream));
            tokio::spawn(async move {
                let _counted = metrics::connection();
                if let Err(error) = connection.await {
                    debug!(%error, "a connection ended early");
                }
                drop(place);
            });
        }
        drop(listener);
        if tokio::time::timeout(self.limits.shutdown, open.shutdown())
            .await
            .is_err()
        {
            warn!("connections are cut off: what is asked on them takes longer than limits.shutdown_seconds");
        }
    }

    /// The next connection, when there is a place for it. Nothing if there are no places any more.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let place = self.places.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, place)),
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
    ) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + 'static + use<>
    {
        // Answers are written whole: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(Impatient::new(stream, self.limits.answer));
        let serving = self.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let serving = serving.clone();
            async move { serving.answer(request.map(axum::body::Body::new)).await }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(io, service)
    }

    async fn answer(&self, request: Request) -> Result<Response, std::convert::Infallible> {
        let mut response = self.router.clone().oneshot(request).await?;
        if self.places.available_permits() < self.limits.connections / FREE_PART {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(response)
    }
}

/// Whether a failure to accept is about the one connection only.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
