//! A front end's connection to a disk.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use client::transport::{Link, Role, Stream};
use direct::area::Window;
use protocol::DiskId;
use protocol::codec::Message;
use protocol::message::{Refusal, Request, Response, VERSIONS, common_version};
use protocol::storage::{Change, ObjectWrite};
use replication::replica::ConnectionId;
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::debug;

use super::driver::Driver;

const REFUSED: Response = Response::Refused(Refusal::Invalid);
/// How long a greeting may take to come.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// Answers that may wait to be sent, in bytes: beyond this no more requests are read. Sixteen reads
/// of the largest size; a front end that does not take its answers must not fill the memory.
const OUTBOX_MAX: usize = 64 << 20;

/// An open connection.
pub(super) struct Connection {
    link: RefCell<Link>,
    /// The front end's memory, if it shares any.
    window: RefCell<Option<Window>>,
    /// Answers gathered since the last [`Connection::send`].
    gathered: Cell<bool>,
    /// The task must look: the socket did not take everything, or is broken.
    wake: Notify,
}

impl Connection {
    /// Adds an answer to what is to be sent. True if it is the first since the last sending.
    pub(super) fn answer(&self, number: u64, response: &Response) -> bool {
        self.link.borrow_mut().outbox.push_response(number, response);
        !self.gathered.replace(true)
    }

    /// Answers what is no business of the replica's. It goes out with the next look at the socket.
    fn reply(&self, number: u64, response: &Response) {
        self.link.borrow_mut().outbox.push_response(number, response);
    }

    /// Opens the memory that the front end shares; false if that cannot be.
    fn open_window(&self, descriptor: u32) -> bool {
        let process = self.link.borrow().stream().peer_process();
        let opened = process
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
            .and_then(|process| Window::open(process, descriptor));
        match opened {
            Ok(window) => {
                *self.window.borrow_mut() = Some(window);
                true
            }
            Err(error) => {
                debug!(%error, "a front end's memory cannot be opened: its writes come through the socket");
                false
            }
        }
    }

    /// A write with its bytes, which are in the front end's memory.
    fn fetch(&self, write: ObjectWrite, at: u64) -> io::Result<ObjectWrite> {
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a write names memory that is not shared",
            )
        };
        let window = self.window.borrow();
        let bytes = window
            .as_ref()
            .and_then(|window| window.bytes(at, write.range.byte_len()))
            .ok_or_else(wrong)?;
        let Change::Data { checksums, .. } = write.change else {
            return Err(wrong());
        };
        Ok(ObjectWrite {
            change: Change::Data { bytes, checksums },
            ..write
        })
    }

    /// Sends what gathered, as far as the socket takes it.
    pub(super) fn send(&self) {
        self.gathered.set(false);
        let mut link = self.link.borrow_mut();
        if link.send().is_err() || !link.is_sent() {
            self.wake.notify_one();
        }
    }
}

/// Who this disk is, as a greeting must name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) disk: DiskId,
    pub(super) cluster: [u8; 16],
}

/// Serves one connection until it ends.
pub(super) async fn serve(driver: Rc<Driver>, stream: Stream, identity: Identity) {
    let mut link = Link::new(stream);
    let greeted = timeout(GREETING_LIMIT, greet(&mut link, identity)).await;
    if let Err(error) = greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        debug!(%error, "a connection did not greet as it should");
        return;
    }
    let connection = Rc::new(Connection {
        link: RefCell::new(link),
        window: RefCell::default(),
        gathered: Cell::new(false),
        wake: Notify::new(),
    });
    let id = driver.add(&connection);
    let ended = read(&driver, &connection, id).await;
    debug!(connection = id.0, reason = %ended, "a connection ended");
    driver.remove(id);
}

async fn greet(link: &mut Link, identity: Identity) -> io::Result<()> {
    let (number, message) = link.converse().await?;
    let answer = welcome(&message, identity, may_ask(&link.stream()));
    link.outbox.push_response(number, &answer);
    link.send()?;
    match answer {
        Response::Refused(refusal) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal)),
        _ => Ok(()),
    }
}

/// The answer to the first message of a connection, of a peer that may ask a disk or may not.
fn welcome(message: &Message, identity: Identity, may_ask: bool) -> Response {
    let Message::Request(Request::Hello {
        version_min,
        version_max,
        cluster,
        disk,
    }) = message
    else {
        return Response::Refused(Refusal::Stranger);
    };
    if !may_ask || *cluster != identity.cluster || *disk != identity.disk {
        return Response::Refused(Refusal::Stranger);
    }
    match common_version(&VERSIONS, &(*version_min..=*version_max)) {
        Some(version) => Response::Welcome {
            version,
            disk: identity.disk,
        },
        None => Response::Refused(Refusal::Version {
            lowest: *VERSIONS.start(),
            highest: *VERSIONS.end(),
        }),
    }
}

/// Whether the peer may ask a disk at all. Over TLS its certificate says so: nodes do, for volumes that nobody has
/// open, and front ends. Who reaches the unix socket is of this node, and plaintext is for tests.
fn may_ask(stream: &Stream) -> bool {
    match stream {
        Stream::Unix(_) | Stream::Tcp(_) => true,
        Stream::Tls(_) => matches!(stream.peer_role(), Some(Role::Node(_) | Role::FrontEnd(_))),
    }
}

async fn read(driver: &Driver, connection: &Connection, id: ConnectionId) -> io::Error {
    let stream = connection.link.borrow().stream();
    loop {
        let interest = match take_in(driver, connection, id) {
            Ok(interest) => interest,
            Err(error) => return error,
        };
        if let Err(error) = stream.ready_or_woken(interest, &connection.wake).await {
            return error;
        }
    }
}

/// Hands in all requests that are there, and tells what to wait for.
fn take_in(driver: &Driver, connection: &Connection, id: ConnectionId) -> io::Result<Interest> {
    loop {
        // Not borrowed while a request is handled: its answer goes to the same link.
        let next = {
            let mut link = connection.link.borrow_mut();
            link.send()?;
            if link.outbox.len() > OUTBOX_MAX {
                return Ok(Interest::WRITABLE);
            }
            match link.message()? {
                Some(message) => message,
                None if link.receive()? => continue,
                None => return Ok(link.interest()),
            }
        };
        match next {
            (_, Message::Request(Request::Hello { .. })) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a second greeting"));
            }
            (number, Message::Request(Request::Share)) => {
                let here = matches!(*connection.link.borrow().stream(), Stream::Unix(_));
                let shared = driver.shared().filter(|_| here);
                connection.reply(number, shared.unwrap_or(&REFUSED));
            }
            (number, Message::Request(Request::Area { descriptor })) => {
                let opened = driver.shared().is_some() && connection.open_window(descriptor);
                connection.reply(number, if opened { &Response::Ok } else { &REFUSED });
            }
            (number, Message::Request(Request::WriteShared { scope, write, at })) => {
                let write = connection.fetch(write, at)?;
                driver.request(id, number, Request::Write { scope, write });
            }
            (number, Message::Request(Request::Question(question))) => {
                let stream = connection.link.borrow().stream();
                if driver.speaks_for(&stream, question.from) {
                    driver.question(id, number, question);
                } else {
                    connection.reply(number, &REFUSED);
                }
            }
            (number, Message::Request(request)) => driver.request(id, number, request),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request")),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Two programs of different versions speak the newest messages that both know, or hear why they cannot.
    use super::*;

    const HERE: Identity = Identity {
        disk: DiskId(7),
        cluster: [3; 16],
    };

    fn greeted(versions: (u16, u16), cluster: [u8; 16], may_ask: bool) -> Response {
        let hello = Request::Hello {
            version_min: versions.0,
            version_max: versions.1,
            cluster,
            disk: HERE.disk,
        };
        welcome(&Message::Request(hello), HERE, may_ask)
    }

    #[test]
    fn the_highest_version_that_both_speak_is_spoken() {
        for (theirs, spoken) in [
            ((1, 1), 1),
            ((1, 2), 2),
            ((1, 3), 3),
            ((3, 3), 3),
            ((1, 4), 4),
            ((1, 5), 5),
            ((1, 6), 6),
            ((2, 9), 6),
        ] {
            let answer = greeted(theirs, HERE.cluster, true);
            let wanted = Response::Welcome {
                version: spoken,
                disk: HERE.disk,
            };
            assert_eq!(answer, wanted, "{theirs:?}");
        }
    }

    #[test]
    fn who_speaks_none_of_them_is_told_what_is_spoken_here() {
        for theirs in [(7, 9), (0, 0), (3, 2)] {
            let Response::Refused(refusal) = greeted(theirs, HERE.cluster, true) else {
                panic!("{theirs:?} was let in");
            };
            assert!(
                refusal
                    .to_string()
                    .contains("speaks versions 1 to 6 of the messages"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_stranger_learns_nothing() {
        let stranger = Response::Refused(Refusal::Stranger);
        assert_eq!(greeted((1, 3), [4; 16], true), stranger);
        assert_eq!(greeted((9, 9), HERE.cluster, false), stranger);
        let request = Request::Share;
        assert_eq!(welcome(&Message::Request(request), HERE, true), stranger);
    }
}
