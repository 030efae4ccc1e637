//! Where the admin API listens, and how it stops.

use std::path::Path;
use std::time::Duration;

use axum::{Extension, Router};
use client::transport::Address;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument, info, warn};

use super::network::{self, Network};
use crate::config::AdminListen;

/// How long requests that run may go on when `storaged` stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// Only the owner of the process may speak to the socket: the API asks nobody who he is.
const SOCKET_MODE: u32 = 0o600;

/// Marks a request that came over TCP: who may send those is not known. Over the unix socket it is this user.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverTcp;

/// Why the admin API does not listen.
#[derive(Debug, thiserror::Error)]
#[error("the admin API cannot listen at {address}: {source}")]
pub struct ListenError {
    /// Where.
    pub address: AdminListen,
    /// What the system said.
    pub source: std::io::Error,
}

/// The admin API, being served.
pub struct Admin {
    servers: JoinSet<()>,
    stop: watch::Sender<bool>,
    addresses: Vec<AdminListen>,
}

impl Admin {
    /// Listens everywhere, then serves. What the network needs is there if anything listens for it.
    pub async fn start(
        router: &Router,
        listen: &[AdminListen],
        network: Option<Network>,
    ) -> Result<Self, ListenError> {
        let (stop, stopping) = watch::channel(false);
        let mut admin = Self {
            servers: JoinSet::new(),
            stop,
            addresses: Vec::new(),
        };
        for address in listen {
            let failed = |source| ListenError {
                address: address.clone(),
                source,
            };
            let bound = match address {
                AdminListen::Here(Address::Unix(path)) => {
                    let listener = bind_unix(path).map_err(failed)?;
                    let server = axum::serve(listener, router.clone());
                    admin.spawn(server.with_graceful_shutdown(stopped(stopping.clone())));
                    address.clone()
                }
                AdminListen::Here(Address::Tcp(host)) => {
                    let (listener, bound) = bind_tcp(host).await.map_err(failed)?;
                    let server = axum::serve(listener, router.clone().layer(Extension(OverTcp)));
                    admin.spawn(server.with_graceful_shutdown(stopped(stopping.clone())));
                    AdminListen::Here(Address::Tcp(bound))
                }
                AdminListen::Network(host) => {
                    let unsupported = || failed(std::io::ErrorKind::Unsupported.into());
                    let network = network.clone().ok_or_else(unsupported)?;
                    let (listener, bound) = bind_tcp(host).await.map_err(failed)?;
                    let router = router.clone().layer(Extension(OverTcp));
                    let server = network::serve(listener, router, network, stopped(stopping.clone()));
                    admin.servers.spawn(server.in_current_span());
                    AdminListen::Network(bound)
                }
                AdminListen::Here(Address::Tls { .. }) => {
                    return Err(failed(std::io::ErrorKind::Unsupported.into()));
                }
            };
            admin.addresses.push(bound);
        }
        for address in &admin.addresses {
            info!(%address, "the admin API listens");
        }
        Ok(admin)
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> &[AdminListen] {
        &self.addresses
    }

    /// Where it listens for the network: `HOST:PORT`.
    pub fn network_addresses(&self) -> Vec<String> {
        let hosts = self.addresses.iter().filter_map(|address| match address {
            AdminListen::Network(host) => Some(host.clone()),
            AdminListen::Here(_) => None,
        });
        hosts.collect()
    }

    /// Ends: requests that run may finish, for a short while.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let drained = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
            warn!("requests to the admin API were cut off");
        }
    }

    fn spawn(&mut self, server: impl IntoFuture<Output = std::io::Result<()>, IntoFuture: Send + 'static>) {
        let server = server.into_future();
        self.servers.spawn(async move {
            if let Err(error) = server.await {
                warn!(%error, "the admin API ended");
            }
        });
    }
}

/// A listener, and where it is.
async fn bind_tcp(host: &str) -> std::io::Result<(TcpListener, String)> {
    let listener = TcpListener::bind(host).await?;
    let bound = listener.local_addr()?.to_string();
    Ok((listener, bound))
}

fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    // Left by a process that was killed. That nobody serves it is known: the work directory's
    // records can be open only once.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode)?;
    Ok(listener)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender is gone only when the process ends anyway.
    let _ = stopping.wait_for(|stop| *stop).await;
}
