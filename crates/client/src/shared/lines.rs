//! Connections between those who share a volume: a peer's to the owner, and the owner's to each peer. What is said on
//! them is done elsewhere.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use protocol::codec::Message;
use protocol::message::{Request, Response};
use protocol::session::{SessionRefusal, SessionReply, SessionRequest};
use protocol::shared::{AttachmentView, SharedReply, SharedRequest, SharingOwner, VERSION};
use protocol::{Generation, VolumeId};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::host::{Host, Line};
use super::words;
use crate::pieces::{Number, Piece};
use crate::transport::{self, Address, Credentials, Link, Role, Stream};

/// How long the first words on a connection may take.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// A peer's connection to the owner.
pub(super) struct Forward {
    link: RefCell<Link>,
    wake: Notify,
    volume: VolumeId,
    generation: Generation,
    /// Writes whose answers have come since the last confirmation.
    arrived: RefCell<Vec<Number>>,
}

/// Connects to the owner, and is let in.
pub(super) async fn reach(
    view: &AttachmentView,
    owner: &SharingOwner,
    credentials: Option<&Credentials>,
) -> io::Result<Rc<Forward>> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the owner has no address");
    for address in owner
        .addresses
        .iter()
        .filter_map(|text| text.parse::<Address>().ok())
    {
        let attempt = timeout(GREETING_LIMIT, greet(&address, view, credentials)).await;
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((link, generation)) => {
                return Ok(Rc::new(Forward {
                    link: RefCell::new(link),
                    wake: Notify::new(),
                    volume: view.volume,
                    generation,
                    arrived: RefCell::default(),
                }));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn greet(
    address: &Address,
    view: &AttachmentView,
    credentials: Option<&Credentials>,
) -> io::Result<(Link, Generation)> {
    let mut link = Link::new(transport::connect(address, credentials).await?);
    let join = SharedRequest::Join {
        version: VERSION,
        cluster: view.cluster,
        volume: view.volume,
        attachment: view.attachment,
    };
    link.outbox.push_session_request(0, &SessionRequest::Shared(join));
    match link.converse().await? {
        (_, Message::SessionReply(SessionReply::Shared(SharedReply::Joined { generation }))) => {
            Ok((link, generation))
        }
        (_, Message::SessionReply(SessionReply::Refused { message, .. })) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
        }
        _ => Err(out_of_turn()),
    }
}

impl Forward {
    /// The owner's generation.
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// Has the owner do a piece.
    pub(super) fn send(&self, number: Number, piece: &Piece) {
        if let Some(request) = words::request(self.volume, self.generation, piece) {
            self.link.borrow_mut().outbox.push_request(number, &request);
            self.wake.notify_one();
        }
    }

    /// All that a former owner did not answer has been sent.
    pub(super) fn rejoined(&self) {
        let rejoined = SessionRequest::Shared(SharedRequest::Rejoined);
        self.link.borrow_mut().outbox.push_session_request(0, &rejoined);
        self.wake.notify_one();
    }

    /// The answer to a write has come.
    pub(super) fn arrived(&self, number: Number) {
        self.arrived.borrow_mut().push(number);
    }

    /// Hands answers to `answered` until the connection ends; the error says why it did.
    pub(super) async fn run(&self, answered: impl Fn(Number, Response)) -> io::Error {
        let stream = self.link.borrow().stream();
        loop {
            let interest = match self.take_in(&answered) {
                Ok(interest) => interest,
                Err(error) => return error,
            };
            if let Err(error) = stream.ready_or_woken(interest, &self.wake).await {
                return error;
            }
        }
    }

    fn take_in(&self, answered: &impl Fn(Number, Response)) -> io::Result<tokio::io::Interest> {
        loop {
            let next = {
                let mut link = self.link.borrow_mut();
                match link.message()? {
                    Some(message) => message,
                    None if link.receive()? => continue,
                    None => {
                        let numbers = std::mem::take(&mut *self.arrived.borrow_mut());
                        if !numbers.is_empty() {
                            let confirm = SharedRequest::Confirm { numbers };
                            link.outbox
                                .push_session_request(0, &SessionRequest::Shared(confirm));
                        }
                        link.send()?;
                        return Ok(link.interest());
                    }
                }
            };
            match next {
                (number, Message::Response(response)) => answered(number, response),
                _ => return Err(out_of_turn()),
            }
        }
    }
}

/// Lets a peer in, if somebody who has it on the roster is there, and does what it asks for until it leaves.
pub(super) async fn attend(
    stream: Stream,
    cluster: [u8; 16],
    host: impl Fn() -> Option<Rc<Host>>,
) -> io::Result<()> {
    let mut link = Link::new(stream);
    let first = timeout(GREETING_LIMIT, link.converse()).await;
    let (number, message) = first.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    // Over TLS it is known by now whose certificate that was.
    if let Stream::Tls(_) = &*link.stream()
        && !matches!(link.stream().peer_role(), Some(Role::FrontEnd(_)))
    {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "who connects is no front end",
        ));
    }
    let Message::SessionRequest(SessionRequest::Shared(SharedRequest::Join {
        version,
        cluster: named,
        volume,
        attachment,
    })) = message
    else {
        return Err(out_of_turn());
    };
    let found = host().filter(|host| {
        let ours = host.volume().identity() == volume && named == cluster && version == VERSION;
        ours && host.knows(attachment)
    });
    let Some(host) = found else {
        let refused = SessionReply::Refused {
            kind: SessionRefusal::Unavailable,
            message: "this front end does not own the volume, or does not know of the attachment yet"
                .to_owned(),
        };
        link.outbox.push_session_reply(number, &refused);
        return link.send();
    };
    let generation = host.volume().generation();
    let joined = SessionReply::Shared(SharedReply::Joined { generation });
    link.outbox.push_session_reply(number, &joined);
    let line = Line::new(link);
    host.join(attachment, &line);
    let stream = line.link.borrow().stream();
    while !line.over.get() {
        let interest = take_in(&host, attachment, &line)?;
        stream.ready_or_woken(interest, &line.wake).await?;
    }
    Ok(())
}

fn take_in(host: &Rc<Host>, who: u64, line: &Line) -> io::Result<tokio::io::Interest> {
    loop {
        let next = {
            let mut link = line.link.borrow_mut();
            match link.message()? {
                Some(message) => message,
                None if link.receive()? => continue,
                None => {
                    link.send()?;
                    return Ok(link.interest());
                }
            }
        };
        if line.over.get() {
            // Somebody may have been told that nothing of it is done any more.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match next {
            (number, Message::Request(request)) => request_came(host, who, number, request)?,
            (_, Message::SessionRequest(SessionRequest::Shared(SharedRequest::Rejoined))) => {
                host.rejoined(who);
            }
            (_, Message::SessionRequest(SessionRequest::Shared(SharedRequest::Confirm { numbers }))) => {
                host.confirm(who, &numbers);
            }
            _ => return Err(out_of_turn()),
        }
    }
}

fn request_came(host: &Rc<Host>, who: u64, number: Number, request: Request) -> io::Result<()> {
    match words::asked(host.volume().identity(), request) {
        Ok(asked) => {
            let taken = host.take(who, number, asked);
            taken.ok_or_else(|| io::Error::other("it has more under way than it may"))
        }
        Err(refusal) => {
            host.refuse(who, number, refusal);
            Ok(())
        }
    }
}

fn out_of_turn() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "who shares the volume said something that was not asked",
    )
}
