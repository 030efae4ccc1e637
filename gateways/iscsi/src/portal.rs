//! Where initiators come in: listens, reads the first login request, and hands the connection to its target's thread.
//! Discovery sessions, which have no target, are served here.

mod discovery;
mod redirection;
mod targets;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::connection::ConnectionError;
use crate::connection::entry::{LOGIN_MAX, login_of, numbers, send};
use crate::connection::stream::{Digests, Pdu, PduReader};
use crate::login::{Names, Refusal};
use crate::source::Source;
use crate::target::{Configured, Newcomer};
use crate::wire::response::login_refusal;
use crate::wire::text::Text;
use targets::Targets;

/// How long to wait before the next try after the system refused a connection, as it does when there are no file
/// descriptors left. Long enough not to burn a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long targets may take to end once the process leaves. Then it leaves without them: fencing keeps that safe.
const LEAVE_MAX: Duration = Duration::from_secs(15);

/// The target is at another address for now (RFC 7143 section 11.13.5).
const MOVED_FOR_NOW: (u8, u8) = (1, 1);

/// What a gateway serves.
pub struct Settings {
    /// Where volumes come from.
    pub source: Source,
    /// What targets there are.
    pub configured: Configured,
    /// The tag of the portal group that these portals are.
    pub portal_group: u16,
    /// Whether every login is sent on to a portal of another gateway.
    pub redirects: bool,
    /// Connections at once. Each may hold 128 MiB.
    pub connections: usize,
}

/// The portals of one process.
pub struct Portals {
    listeners: Vec<TcpListener>,
}

/// What every connection that comes in needs.
struct Door {
    targets: Targets,
    configured: Configured,
    portal_group: u16,
    redirects: bool,
}

impl Portals {
    /// Makes the sockets. Who connects waits until [`Portals::run`].
    pub async fn bind(listen: &[SocketAddr]) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for address in listen {
            let listener = TcpListener::bind(address).await;
            let listener =
                listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
            listeners.push(listener);
        }
        Ok(Self { listeners })
    }

    /// Where they listen, with the ports that were taken.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `leaving` is raised. Must run in a [`tokio::task::LocalSet`].
    pub async fn run(self, settings: Settings, mut leaving: watch::Receiver<bool>) {
        let Settings {
            source,
            configured,
            portal_group,
            redirects,
            connections,
        } = settings;
        let (alive, mut ended) = mpsc::channel(1);
        let door = Rc::new(Door {
            targets: Targets::new(source, configured.clone(), portal_group, leaving.clone(), alive),
            configured,
            portal_group,
            redirects,
        });
        let places = Arc::new(Semaphore::new(connections));
        let mut doors = JoinSet::new();
        for listener in self.listeners {
            doors.spawn_local(keep_door(listener, Rc::clone(&door), Arc::clone(&places)));
        }
        drop(door);
        // An error means that nobody can raise it any more, which is the same.
        let _ = leaving.wait_for(|raised| *raised).await;
        info!("leaving");
        doors.shutdown().await;
        if timeout(LEAVE_MAX, ended.recv()).await.is_err() {
            warn!(
                "some targets did not end in time; whoever opens their volumes next fences this process off"
            );
        }
    }
}

async fn keep_door(listener: TcpListener, door: Rc<Door>, places: Arc<Semaphore>) {
    let mut guests = JoinSet::new();
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_) = guests.join_next() => {}
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                let span = info_span!("initiator", %peer);
                guests.spawn_local(welcome(Rc::clone(&door), stream, place).instrument(span));
            }
            Err(error) => {
                warn!(%error, "cannot take a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(door: Rc<Door>, stream: TcpStream, place: OwnedSemaphorePermit) {
    match receive(&door, stream, place).await {
        Ok(()) => {}
        Err(ConnectionError::Io(error)) => debug!(%error, "an initiator is gone"),
        Err(error) => info!(%error, "an initiator was turned away"),
    }
}

async fn receive(door: &Door, stream: TcpStream, place: OwnedSemaphorePermit) -> Result<(), ConnectionError> {
    prepare(&stream)?;
    let mut reader = PduReader::new(stream);
    let first = timeout(LOGIN_MAX, reader.read())
        .await
        .map_err(|_| ConnectionError::Silent)??;
    let (request, login) = login_of(&first)?;
    let found = find(door, reader.get_ref().local_addr(), &first);
    let turn_away = async |mut stream: TcpStream, status, text: Vec<u8>| {
        let response = login_refusal(request.task_tag, login.isid, status, text.into());
        let numbers = numbers(&request, request.expected_status);
        send(&mut stream, response, numbers, Digests::default()).await
    };
    match found {
        Ok(Wanted::Discovery) => discovery::serve(door, reader, first).await,
        Ok(Wanted::Elsewhere(address)) => {
            let mut text = Text::default();
            text.add("TargetAddress", address.as_str());
            turn_away(reader.into_inner()?, MOVED_FOR_NOW, text.encode()).await?;
            debug!(address, "an initiator was sent on");
            Ok(())
        }
        Ok(Wanted::Target(target)) => {
            let newcomer = Newcomer {
                stream: reader.into_inner()?.into_std()?,
                first,
                portal_group: door.portal_group,
                place,
            };
            door.targets.hand_over(target, newcomer).await
        }
        Err(refusal) => {
            turn_away(reader.into_inner()?, refusal.status(), Vec::new()).await?;
            Err(refusal.into())
        }
    }
}

/// Where a connection belongs.
enum Wanted {
    /// A discovery session.
    Discovery,
    /// This target, here.
    Target(String),
    /// A portal of another gateway.
    Elsewhere(String),
}

/// Where a connection that came in at this address belongs.
fn find(door: &Door, own: io::Result<SocketAddr>, first: &Pdu) -> Result<Wanted, Refusal> {
    let text = Text::parse(&first.data).map_err(|_| Refusal::Initiator)?;
    let names = Names::of(&text)?;
    let Some(target) = names.target else {
        return Ok(Wanted::Discovery);
    };
    let configuration = door.configured.borrow();
    let mut targets = configuration.targets.iter();
    let known = targets.find(|known| known.name == target);
    let known = known.ok_or(Refusal::NotFound)?;
    if !door.redirects {
        return Ok(Wanted::Target(target));
    }
    // Proof is for the gateway that serves; who is not on the list need not learn where that is.
    known.lets_in(&names.initiator).ok_or(Refusal::Authorization)?;
    let own = own.map_err(|_| Refusal::Unavailable)?;
    redirection::choose(&configuration.portals, own, &names.initiator, &target)
        .map(Wanted::Elsewhere)
        .ok_or(Refusal::Unavailable)
}

/// Prepares a socket that was just accepted.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}
