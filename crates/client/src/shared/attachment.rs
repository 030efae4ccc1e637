//! The connection to `storaged` by which a front end counts among those who share a volume: keeps the attachment's
//! lease, and hears who else is there and who owns the volume.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use protocol::Generation;
use protocol::codec::Message;
use protocol::session::{SessionPush, SessionRefusal, SessionReply, SessionRequest};
use protocol::shared::{AttachmentView, SharedReply, SharedRequest};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::transport::{Address, Credentials, Link, Listener};
use crate::volume::session::greet::{GREETING_LIMIT, converse, greet, out_of_turn};
use crate::volume::{OpenError, Options, credentials};

/// Part of the lease time after which the lease is kept anew.
const KEEP_PART: u32 = 5;
/// How long the end of an attachment may take to be told.
const DETACH_LIMIT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Attachment {
    options: Options,
    link: RefCell<Option<Link>>,
    view: watch::Sender<AttachmentView>,
    /// What to show to peers on other nodes; nothing where nodes speak in plaintext.
    credentials: Option<watch::Sender<Credentials>>,
    /// Where others are told to come.
    addresses: Vec<String>,
    /// What this front end owned the volume with last, if it ever did: with it an attachment that has lapsed comes back.
    owned: Cell<Option<Generation>>,
    /// Sockets to be removed at the end.
    sockets: Vec<PathBuf>,
    /// Told the next answer to a look.
    looking: RefCell<Option<oneshot::Sender<AttachmentView>>>,
}

/// What came of a look at the connection.
enum Heard {
    /// Nothing more for now.
    Silence,
    /// The attachment has lapsed.
    Lapsed(String),
}

/// What came of connecting again.
enum Reattached {
    /// The attachment goes on.
    Again,
    /// It has lapsed, and somebody else may have seen what it lacks.
    Lapsed(String),
}

impl Attachment {
    /// Attaches, and listens where others are told to come.
    pub(super) async fn open(options: Options) -> Result<(Rc<Self>, Vec<Listener>), OpenError> {
        let greeted = greet(&options.program, &options.storaged).await?;
        let (mut link, address) = (greeted.link, greeted.address);
        let unreachable = |source| OpenError::Unreachable {
            address: address.to_string(),
            source,
        };
        let credentials = greeted.credentials.map(watch::Sender::new);
        let places = match ask(&mut link, 1, SharedRequest::Meet)
            .await
            .map_err(unreachable)?
        {
            SessionReply::Shared(SharedReply::Meet { addresses }) => addresses,
            reply => return Err(refused(reply, unreachable)),
        };
        let watched = credentials.as_ref().map(watch::Sender::subscribe);
        let (mut listeners, mut addresses, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for place in places.iter().filter_map(|place| place.parse::<Address>().ok()) {
            match Listener::bind_with(&place, watched.as_ref()).await {
                Ok(listener) => {
                    addresses.push(announced(&place, &listener).map_err(unreachable)?.to_string());
                    listeners.push(listener);
                    if let Address::Unix(path) = place {
                        sockets.push(path);
                    }
                }
                Err(error) => info!(%place, %error, "cannot listen there for others who share the volume"),
            }
        }
        let volume = options.volume.clone();
        let attach = SharedRequest::Attach {
            volume,
            addresses: addresses.clone(),
        };
        let view = match ask(&mut link, 2, attach).await.map_err(unreachable)? {
            SessionReply::Shared(SharedReply::Attached(view)) => *view,
            reply => return Err(refused(reply, unreachable)),
        };
        let attachment = Self {
            options,
            link: RefCell::new(Some(link)),
            view: watch::Sender::new(view),
            credentials,
            addresses,
            owned: Cell::new(None),
            sockets,
            looking: RefCell::default(),
        };
        Ok((Rc::new(attachment), listeners))
    }

    /// Of a front end that knows of the others by this view and is told nothing more.
    #[cfg(test)]
    pub(super) fn unconnected(options: Options, view: AttachmentView) -> Rc<Self> {
        Rc::new(Self {
            options,
            link: RefCell::default(),
            view: watch::Sender::new(view),
            credentials: None,
            addresses: Vec::new(),
            owned: Cell::new(None),
            sockets: Vec::new(),
            looking: RefCell::default(),
        })
    }

    /// What is known now.
    pub(super) fn view(&self) -> AttachmentView {
        self.view.borrow().clone()
    }

    /// What is known now, and all that comes.
    pub(super) fn watch(&self) -> watch::Receiver<AttachmentView> {
        self.view.subscribe()
    }

    /// What to show to peers on other nodes.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.credentials.as_ref().map(|shown| shown.borrow().clone())
    }

    /// Who is there now: no older than this call. Nothing if the connection breaks before the answer comes.
    pub(super) async fn look(&self) -> Option<AttachmentView> {
        let (tell, told) = oneshot::channel();
        self.looking.replace(Some(tell));
        self.say(SharedRequest::Look).ok()?;
        told.await.ok()
    }

    /// Takes note of what this front end owns the volume with.
    pub(super) fn owns(&self, generation: Generation) {
        self.owned.set(Some(generation));
    }

    /// Keeps the lease and listens, until the attachment has lapsed and cannot come back. `owns` tells what this front end
    /// owns the volume with now, if it does.
    pub(super) async fn keep(&self, owns: impl Fn() -> Option<Generation>) {
        loop {
            let ended = self.serve().await;
            self.link.borrow_mut().take();
            self.looking.borrow_mut().take();
            match ended {
                Ok(reason) => warn!(reason, "the attachment to the shared volume has lapsed"),
                Err(error) => info!(%error, "the connection of the attachment ended, connecting again"),
            }
            let mut backoff = Backoff::default();
            loop {
                if let Some(generation) = owns() {
                    self.owns(generation);
                }
                match self.reattach().await {
                    Ok(Reattached::Again) => break,
                    Ok(Reattached::Lapsed(reason)) => {
                        warn!(reason, "the attachment to the shared volume does not come back");
                        return;
                    }
                    Err(error) => debug!(%error, "the attachment is not connected again yet"),
                }
                backoff.pause().await;
            }
        }
    }

    /// Gives the reason if the attachment has lapsed.
    async fn serve(&self) -> io::Result<String> {
        let every = Duration::from_millis(self.view.borrow().lease_ms) / KEEP_PART;
        let mut due = Instant::now();
        loop {
            if due <= Instant::now() {
                self.say(SharedRequest::Keep)?;
                due = Instant::now() + every;
            }
            if let Heard::Lapsed(reason) = self.take_in()? {
                return Ok(reason);
            }
            let (stream, interest) = {
                let link = self.link.borrow();
                let link = link.as_ref().ok_or(io::ErrorKind::NotConnected)?;
                (link.stream(), link.interest())
            };
            tokio::select! {
                ready = stream.ready(interest) => ready?,
                () = sleep_until(due) => {}
            }
        }
    }

    fn say(&self, request: SharedRequest) -> io::Result<()> {
        let mut link = self.link.borrow_mut();
        let link = link.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        link.outbox
            .push_session_request(3, &SessionRequest::Shared(request));
        link.send()
    }

    fn take_in(&self) -> io::Result<Heard> {
        loop {
            let message = {
                let mut link = self.link.borrow_mut();
                let link = link.as_mut().ok_or(io::ErrorKind::NotConnected)?;
                match link.message()? {
                    Some((_, message)) => message,
                    None if link.receive()? => continue,
                    None => {
                        link.send()?;
                        return Ok(Heard::Silence);
                    }
                }
            };
            match message {
                Message::SessionPush(SessionPush::Attachment(view)) => {
                    self.view.send_replace(*view);
                }
                Message::SessionReply(SessionReply::Shared(SharedReply::Attached(view))) => {
                    if let Some(tell) = self.looking.borrow_mut().take() {
                        // Whoever asked may have given up.
                        let _ = tell.send((*view).clone());
                    }
                    self.view.send_replace(*view);
                }
                Message::SessionPush(SessionPush::Revoked { reason, .. }) => {
                    return Ok(Heard::Lapsed(reason));
                }
                Message::SessionPush(SessionPush::Credentials(view)) => {
                    if let (Some(shown), Some(new)) = (&self.credentials, credentials::usable(&view)) {
                        shown.send_replace(new);
                    }
                }
                Message::SessionReply(SessionReply::Refused {
                    kind: SessionRefusal::Lost | SessionRefusal::NotFound,
                    message,
                }) => return Ok(Heard::Lapsed(message)),
                Message::SessionPush(_) | Message::SessionReply(_) => {}
                _ => return Err(out_of_turn()),
            }
        }
    }

    async fn reattach(&self) -> io::Result<Reattached> {
        let greeted = greet(&self.options.program, &self.options.storaged).await;
        let mut link = greeted.map_err(io::Error::other)?.link;
        let (volume, attachment) = {
            let view = self.view.borrow();
            (view.volume, view.attachment)
        };
        let request = SharedRequest::Reattach {
            volume,
            attachment,
            addresses: self.addresses.clone(),
            owned: self.owned.get(),
        };
        match ask(&mut link, 1, request).await? {
            SessionReply::Shared(SharedReply::Attached(view)) => {
                self.view.send_replace(*view);
            }
            SessionReply::Refused {
                kind: SessionRefusal::Lost | SessionRefusal::NotFound,
                message,
            } => return Ok(Reattached::Lapsed(message)),
            SessionReply::Refused { message, .. } => return Err(io::Error::other(message)),
            _ => return Err(out_of_turn()),
        }
        *self.link.borrow_mut() = Some(link);
        info!("the attachment is connected again");
        Ok(Reattached::Again)
    }

    /// Says that the attachment is over, if it is heard in time.
    pub(super) async fn detach(&self) {
        let link = self.link.borrow_mut().take();
        if let Some(mut link) = link {
            let detached = async {
                link.outbox
                    .push_session_request(4, &SessionRequest::Shared(SharedRequest::Detach));
                // Answers to what was asked before come first.
                while link.converse().await?.0 != 4 {}
                io::Result::Ok(())
            };
            if timeout(DETACH_LIMIT, detached).await.is_err() {
                warn!("storaged does not answer: the attachment ends when its lease lapses");
            }
        }
        for socket in &self.sockets {
            // `storaged` may have done so.
            let _ = std::fs::remove_file(socket);
        }
    }
}

async fn ask(link: &mut Link, number: u64, request: SharedRequest) -> io::Result<SessionReply> {
    link.outbox
        .push_session_request(number, &SessionRequest::Shared(request));
    timeout(GREETING_LIMIT, converse(link))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn refused(reply: SessionReply, unreachable: impl Fn(io::Error) -> OpenError) -> OpenError {
    match reply {
        SessionReply::Refused { kind, message } => OpenError::Refused { kind, message },
        _ => unreachable(out_of_turn()),
    }
}

/// Where others are told to come: by the name that they can reach, with the port that was chosen.
fn announced(place: &Address, listener: &Listener) -> io::Result<Address> {
    let host = |host: &str, chosen: &str| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let port = chosen.rsplit_once(':').map_or("", |(_, port)| port);
        format!("{name}:{port}")
    };
    Ok(match (place, listener.address()?) {
        (Address::Tcp(told), Address::Tcp(chosen)) => Address::Tcp(host(told, &chosen)),
        (Address::Tls { name, host: told }, Address::Tls { host: chosen, .. }) => Address::Tls {
            name: name.clone(),
            host: host(told, &chosen),
        },
        (_, chosen) => chosen,
    })
}
