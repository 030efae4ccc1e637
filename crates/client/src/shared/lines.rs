//! Connections between those who share a volume: a peer's to the owner, and the owner's to each peer. What is said on
//! them is done elsewhere.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use protocol::codec::Message;
use protocol::message::Refusal;
use protocol::session::{SessionRefusal, SessionReply, SessionRequest};
use protocol::shared::{
    AttachmentView, COMPARE_SINCE, NOTICE_SINCE, SharedReply, SharedRequest, SharingOwner, VERSIONS,
};
use protocol::{Generation, VolumeId};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::host::{Host, Line};
use super::words::{self, Answer, Asked};
use crate::device::BlockDevice;
use crate::pieces::{Number, Piece, What};
use crate::transport::{self, Address, Credentials, Link, Role, Stream};

/// How long the first words on a connection may take.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// A peer's connection to the owner.
pub(super) struct Forward {
    pub(super) link: RefCell<Link>,
    wake: Notify,
    volume: VolumeId,
    generation: Generation,
    /// The highest version that both speak.
    version: u16,
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
            Ok((link, generation, version)) => {
                return Ok(Rc::new(Forward::new(link, view.volume, generation, version)));
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
) -> io::Result<(Link, Generation, u16)> {
    let mut link = Link::new(transport::connect(address, credentials).await?);
    let join = SharedRequest::Join {
        version: *VERSIONS.start(),
        cluster: view.cluster,
        volume: view.volume,
        attachment: view.attachment,
        speaks: *VERSIONS.end(),
    };
    link.outbox.push_session_request(0, &SessionRequest::Shared(join));
    match link.converse().await? {
        (_, Message::SessionReply(SessionReply::Shared(SharedReply::Joined { generation, version }))) => {
            Ok((link, generation, version.min(*VERSIONS.end())))
        }
        (_, Message::SessionReply(SessionReply::Refused { message, .. })) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
        }
        _ => Err(out_of_turn()),
    }
}

impl Forward {
    pub(super) fn new(link: Link, volume: VolumeId, generation: Generation, version: u16) -> Self {
        Self {
            link: RefCell::new(link),
            wake: Notify::new(),
            volume,
            generation,
            version,
            arrived: RefCell::default(),
        }
    }

    /// Whether the owner knows what this is.
    pub(super) fn takes(&self, what: &What) -> bool {
        self.version >= COMPARE_SINCE || !matches!(what, What::CompareAndWrite { .. })
    }

    /// The owner's generation.
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// Has the owner do a piece.
    pub(super) fn send(&self, number: Number, piece: &Piece) {
        if let Some(request) = words::request(self.volume, self.generation, piece) {
            self.link.borrow_mut().outbox.push(number, &request);
            self.wake.notify_one();
        }
    }

    /// All that a former owner did not answer has been sent.
    pub(super) fn rejoined(&self) {
        self.say(SharedRequest::Rejoined);
    }

    /// The answer to a write has come.
    pub(super) fn arrived(&self, number: Number) {
        self.arrived.borrow_mut().push(number);
    }

    /// Says which answers have come.
    pub(super) fn confirm(&self, link: &mut Link) {
        let numbers = std::mem::take(&mut *self.arrived.borrow_mut());
        if !numbers.is_empty() {
            let confirm = SharedRequest::Confirm { numbers };
            link.outbox
                .push_session_request(0, &SessionRequest::Shared(confirm));
        }
    }

    /// Asks that all others take notice. False if the owner does not know of notices.
    pub(super) fn notice(&self) -> bool {
        let knows = self.version >= NOTICE_SINCE;
        if knows {
            self.say(SharedRequest::Notice);
        }
        knows
    }

    /// A notice was taken.
    pub(super) fn took_notice(&self, notice: u64) {
        self.say(SharedRequest::TookNotice { notice });
    }

    fn say(&self, request: SharedRequest) {
        let request = SessionRequest::Shared(request);
        self.link.borrow_mut().outbox.push_session_request(0, &request);
        self.wake.notify_one();
    }

    /// Hands what comes to `heard` until the connection ends; the error says why it did.
    pub(super) async fn run(&self, heard: impl Fn(Heard)) -> io::Error {
        let stream = self.link.borrow().stream();
        loop {
            let interest = match self.take_in(&heard) {
                Ok(interest) => interest,
                Err(error) => return error,
            };
            if let Err(error) = stream.ready_or_woken(interest, &self.wake).await {
                return error;
            }
        }
    }

    fn take_in(&self, heard: &impl Fn(Heard)) -> io::Result<tokio::io::Interest> {
        loop {
            let next = {
                let mut link = self.link.borrow_mut();
                match link.message()? {
                    Some(message) => message,
                    None if link.receive()? => continue,
                    None => {
                        self.confirm(&mut link);
                        link.send()?;
                        return Ok(link.interest());
                    }
                }
            };
            heard(Heard::of(next)?);
        }
    }
}

/// What an owner says to a peer.
pub(super) enum Heard {
    /// What became of a piece.
    Answer(Number, Answer),
    /// The peer is to take notice.
    TakeNotice(u64),
    /// All others took the peer's notice.
    Noticed,
}

impl Heard {
    pub(super) fn of((number, message): (Number, Message)) -> io::Result<Self> {
        Ok(match message {
            Message::Response(response) => Self::Answer(number, Answer::Response(response)),
            Message::Compared(compared) => Self::Answer(number, Answer::Compared(compared)),
            Message::SessionReply(SessionReply::Shared(SharedReply::TakeNotice { notice })) => {
                Self::TakeNotice(notice)
            }
            Message::SessionReply(SessionReply::Shared(SharedReply::Noticed)) => Self::Noticed,
            _ => return Err(out_of_turn()),
        })
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
        speaks,
    })) = message
    else {
        return Err(out_of_turn());
    };
    let found = host().filter(|host| {
        let ours = host.volume().identity() == volume && named == cluster && version <= *VERSIONS.end();
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
    let joined = SessionReply::Shared(SharedReply::Joined {
        generation,
        version: *VERSIONS.end(),
    });
    link.outbox.push_session_reply(number, &joined);
    let line = Line::new(link);
    host.join(attachment, speaks, &line);
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
        let (number, message) = next;
        hear(host, host.volume().identity(), who, number, message)?;
    }
}

/// A peer of this volume says something.
pub(super) fn hear<V: BlockDevice + 'static>(
    host: &Rc<Host<V>>,
    volume: VolumeId,
    who: u64,
    number: Number,
    message: Message,
) -> io::Result<()> {
    match message {
        Message::Request(request) => request_came(host, who, number, words::asked(volume, request)),
        Message::Compare(compare) => request_came(host, who, number, words::compare(volume, &compare)),
        Message::SessionRequest(SessionRequest::Shared(SharedRequest::Rejoined)) => {
            host.rejoined(who);
            Ok(())
        }
        Message::SessionRequest(SessionRequest::Shared(SharedRequest::Confirm { numbers })) => {
            host.confirm(who, &numbers);
            Ok(())
        }
        Message::SessionRequest(SessionRequest::Shared(SharedRequest::Notice)) => {
            host.notice(who).ok_or_else(out_of_turn)
        }
        Message::SessionRequest(SessionRequest::Shared(SharedRequest::TookNotice { notice })) => {
            host.took_notice(who, notice).ok_or_else(out_of_turn)
        }
        _ => Err(out_of_turn()),
    }
}

fn request_came<V: BlockDevice + 'static>(
    host: &Rc<Host<V>>,
    who: u64,
    number: Number,
    asked: Result<Asked, Refusal>,
) -> io::Result<()> {
    match asked {
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
