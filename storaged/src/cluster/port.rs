//! The node's own port: one listener, at which machines that join and other nodes come. The name that a visitor asks for
//! in his first words says which he is: that of a node leads to [`Gate`], which wants a node's certificate, and any other
//! to [`Door`], which wants a token. What either of them answers is not known here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use client::transport::Role;
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tracing::{Instrument, debug, info, warn};

use super::door::Door;
use crate::config::Listen;
use crate::peers::gate::Gate;

/// Visitors whose first words are waited for; others wait in the kernel's queue.
pub(super) const NEWCOMERS_MAX: usize = 256;
/// How long first words may take. Honest visitors send them at once.
const HELLO_LIMIT: Duration = Duration::from_secs(3);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub struct Port {
    listener: TcpListener,
    address: String,
}

impl Port {
    /// Listens at the node's own port; serves when [`Port::serve`] runs.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        let listener = TcpListener::bind(format!("{}:{}", listen.host, listen.port)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self {
            listener,
            address: format!("{}:{port}", listen.advertised),
        })
    }

    /// Where others reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets visitors in, for ever: run it as a task.
    pub async fn serve(self, door: Option<Arc<Door>>, gate: Gate) {
        let room = Arc::new(Semaphore::new(NEWCOMERS_MAX));
        let mut visits = JoinSet::new();
        loop {
            // It is never closed.
            let Ok(place) = room.clone().acquire_owned().await else {
                return;
            };
            while visits.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let visit = receive(stream, from, place, door.clone(), gate.clone());
                    visits.spawn(visit.in_current_span());
                }
                Err(error) => {
                    warn!(%error, "cannot accept at the node's port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One visit. Whoever has said whom he looks for is counted there, and no more among those who have not.
async fn receive(
    stream: TcpStream,
    from: SocketAddr,
    place: OwnedSemaphorePermit,
    door: Option<Arc<Door>>,
    gate: Gate,
) {
    if gate.is_plain() {
        drop(place);
        if let Err(error) = gate.admit_plain(stream).await {
            debug!(%from, %error, "a node that asked something left");
        }
        return;
    }
    let hello = timeout(HELLO_LIMIT, LazyConfigAcceptor::new(Acceptor::default(), stream));
    let hello = match hello.await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return info!(%from, %error, "a visitor at the node's port left"),
        Err(_) => return info!(%from, "a visitor at the node's port said nothing"),
    };
    drop(place);
    if asks_for_a_node(&hello) {
        if let Err(error) = gate.admit(hello).await {
            info!(%from, %error, "somebody who asked for a node was not answered");
        }
    } else if let Some(door) = door {
        door.receive(hello, from).await;
    }
}

fn asks_for_a_node(hello: &StartHandshake<TcpStream>) -> bool {
    let role = hello.client_hello().server_name().and_then(Role::parse);
    matches!(role, Some(Role::Node(_)))
}
