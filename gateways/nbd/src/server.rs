//! Listens, lets clients in, and hands those who have chosen to their volume's thread.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::address::ListenAddress;
use crate::connection::raised;
use crate::control;
use crate::negotiation::{Rules, negotiate};
use crate::registry::{Leaving, Registry};
use crate::socket::{Socket, Stream, prepare_tcp};
use crate::source::Source;
use crate::volume::{Client, Order};

/// A connection's place among all; given back when it is dropped.
pub type Place = OwnedSemaphorePermit;

/// How long to wait before the next try after the system refused a connection, as it does when
/// there are no file descriptors left. Long enough not to burn a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Clients of the socket's group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Only the process's own user may ask: nobody is asked who he is.
const CONTROL_MODE: u32 = 0o600;
/// Questions of operators that may wait for an answer; those who ask further wait before the channel.
const QUESTIONS_MAX: usize = 8;
/// How long volumes may take to end once the process leaves. Then it leaves without them: fencing
/// keeps that safe.
const LEAVE_MAX: Duration = Duration::from_secs(15);

/// What a server is to be.
pub struct Settings {
    /// Where exports come from.
    pub source: Source,
    /// Where clients come in.
    pub listen: Vec<ListenAddress>,
    /// Where an operator asks, if he may.
    pub control: Option<PathBuf>,
    /// Who this server is, if TLS is offered.
    pub tls: Option<TlsAcceptor>,
    /// Whether TCP clients may do without TLS; on the loopback interface only.
    pub plaintext: bool,
    /// Which export the empty name stands for.
    pub default_export: Option<String>,
    /// Connections at once, at least 1. Each may hold 64 MiB.
    pub connections: usize,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Which.
        address: ListenAddress,
        /// Why.
        reason: String,
    },
    /// Settings that would let strangers in.
    #[error("{0}")]
    Unsafe(String),
}

/// A server whose sockets are there; clients wait until it runs.
pub struct Server {
    settings: Settings,
    listeners: Vec<(Listener, ListenAddress)>,
    control: Option<(UnixListener, SocketFile)>,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Server {
    /// Checks the settings and makes the sockets.
    pub async fn bind(settings: Settings) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for address in &settings.listen {
            check_safety(address, &settings)?;
            let failed = |error: io::Error| StartError::Listen {
                address: address.clone(),
                reason: error.to_string(),
            };
            listeners.push(match address {
                ListenAddress::Unix(path) => (
                    Listener::Unix(bind_unix(path, SOCKET_MODE).map_err(failed)?),
                    address.clone(),
                ),
                ListenAddress::Tcp(wanted) => {
                    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
                    let bound = ListenAddress::Tcp(listener.local_addr().map_err(failed)?);
                    (Listener::Tcp(listener), bound)
                }
            });
        }
        let control = match &settings.control {
            Some(path) => Some((control_listener(path)?, SocketFile(path.clone()))),
            None => None,
        };
        Ok(Self {
            settings,
            listeners,
            control,
        })
    }

    /// Where it listens, with the ports that were taken.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.listeners.iter().map(|(_, address)| address)
    }

    /// Serves until `leaving` is raised; then answers what was asked, closes the volumes and ends.
    /// Must run in a [`tokio::task::LocalSet`].
    pub async fn run(self, mut leaving: Leaving) {
        let Self {
            settings,
            listeners,
            control,
        } = self;
        let (registry, ended) = Registry::new(settings.source, leaving.clone());
        let places = Arc::new(Semaphore::new(settings.connections));
        let mut doors = JoinSet::new();
        let mut files = Vec::new();
        if let Some((listener, file)) = control {
            let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
            doors.spawn_local(control::answer(registry.clone(), questions));
            doors.spawn_local(control::serve(listener, ask));
            files.push(file);
        }
        for (listener, address) in listeners {
            let over_tcp = matches!(listener, Listener::Tcp(_));
            let rules = Rules {
                registry: registry.clone(),
                tls: settings.tls.clone().filter(|_| over_tcp),
                tls_required: over_tcp && !settings.plaintext,
                default_export: settings.default_export.clone(),
            };
            if let ListenAddress::Unix(path) = address {
                files.push(SocketFile(path));
            }
            doors.spawn_local(keep_door(listener, rules, places.clone()));
        }
        drop(registry);
        raised(&mut leaving).await;
        info!("leaving");
        // Clients in the middle of a handshake hold the registry: they go with their door.
        doors.shutdown().await;
        wait_for_volumes(ended).await;
    }
}

/// Removes the socket's file at the end.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already; nothing depends on it.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn wait_for_volumes(mut ended: mpsc::Receiver<()>) {
    if tokio::time::timeout(LEAVE_MAX, ended.recv()).await.is_err() {
        warn!("some volumes did not end in time; whoever opens them next fences this process off");
    }
}

fn check_safety(address: &ListenAddress, settings: &Settings) -> Result<(), StartError> {
    let ListenAddress::Tcp(_) = address else {
        return Ok(());
    };
    if settings.plaintext && address.is_remote() {
        return Err(StartError::Unsafe(format!(
            "{address} can be reached from other machines, and without TLS anybody there could read and \
             write every volume: give certificates, or listen on 127.0.0.1"
        )));
    }
    if !settings.plaintext && settings.tls.is_none() {
        return Err(StartError::Unsafe(format!(
            "{address} needs TLS: give --tls-certificate, --tls-key and --tls-client-authority, or \
             --plaintext on the loopback interface"
        )));
    }
    Ok(())
}

/// Takes the place of a dead process's socket file, never of a living one's.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if stale {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens there",
                ));
            }
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

fn control_listener(path: &Path) -> Result<UnixListener, StartError> {
    bind_unix(path, CONTROL_MODE).map_err(|error| StartError::Listen {
        address: ListenAddress::Unix(path.to_owned()),
        reason: error.to_string(),
    })
}

async fn keep_door(listener: Listener, rules: Rules, places: Arc<Semaphore>) {
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = clients.join_next() => continue,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            warn!(
                peer,
                "a client was turned away: there are as many connections as allowed"
            );
            continue;
        };
        let span = info_span!("client", peer);
        clients.spawn_local(receive(Stream::Plain(socket), rules.clone(), place).instrument(span));
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(Socket, String)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = unix_peer(&stream);
                Ok((Socket::Unix(stream), peer))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let peer = tcp_peer(&stream, address);
                Ok((Socket::Tcp(stream), peer))
            }
        }
    }
}

fn unix_peer(stream: &UnixStream) -> String {
    let process = stream.peer_cred().ok().and_then(|who| who.pid());
    process.map_or_else(|| "a local process".to_owned(), |pid| format!("process {pid}"))
}

fn tcp_peer(stream: &TcpStream, address: std::net::SocketAddr) -> String {
    if let Err(error) = prepare_tcp(stream) {
        // The connection works without; only a silent death of the client goes unnoticed longer.
        warn!(%error, "cannot set the options of a client's socket");
    }
    address.to_string()
}

async fn receive(stream: Stream, rules: Rules, place: Place) {
    match negotiate(stream, rules).await {
        Ok(Some(chosen)) => {
            let handle = chosen.handle.clone();
            let stream = match chosen.stream.detach() {
                Ok(stream) => stream,
                Err(error) => return warn!(%error, "cannot hand a connection over"),
            };
            let client = Client {
                stream,
                terms: chosen.terms,
                handle: chosen.handle,
                place,
            };
            if handle.send(Order::Serve(Box::new(client))).await.is_err() {
                warn!("the volume was closed while a client came in");
            }
        }
        Ok(None) => debug!("a client left without choosing an export"),
        Err(error) => debug!(%error, "a handshake failed"),
    }
}
