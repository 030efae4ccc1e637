//! One connection of a session: its login, then requests in and responses out until it ends.
//!
//! `stream` reads and writes PDUs, `outbox` queues them, `entry` is the login, `commands` carries SCSI commands out,
//! `functions` is task management. Refuses to know which units there are: its target does.

mod arrival;
mod commands;
pub(crate) mod entry;
mod functions;
mod outbox;
pub mod stream;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::login::parameters::Parameters;
use crate::session::numbers::{Turn, WINDOW};
use crate::target::session::{LOG_OUT_LIMIT, Session, Stay};
use crate::target::{Home, Newcomer};
use crate::wire::header::{Header, NO_TAG};
use crate::wire::request::{Kind, Request, parse};
use crate::wire::response::{asynchronous, logout_response, nop_in, ping, reject, text_response};
use crate::wire::text::Text;
use arrival::Data;
use commands::Write;
use outbox::Outbox;
use stream::{Digests, PduReader, ReadError};

/// How long a command waits for those before it, which come by other connections.
const TURN_MAX: Duration = Duration::from_secs(30);
/// How long an initiator may be silent before it is pinged, and then until it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long the last responses may take to be sent once the connection is to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Data of commands under way and of responses not sent, in bytes, of one connection. A command that does not fit is told
/// that the task set is full.
const UNDER_WAY_MAX: usize = 64 << 20;

/// Tasks of a session under way. Immediate commands are not kept by the window of numbers, so there may be more of them than
/// it has.
const TASKS_MAX: u32 = 2 * WINDOW;

/// Reasons of Reject (RFC 7143 section 11.17.1).
mod reason {
    pub(super) const DATA_DIGEST: u8 = 0x02;
    pub(super) const SNACK: u8 = 0x03;
    pub(super) const PROTOCOL: u8 = 0x04;
    pub(super) const NOT_SUPPORTED: u8 = 0x05;
}

/// What an initiator is told unasked (RFC 7143 section 11.9.1).
mod event {
    pub(super) const LOG_OUT: u8 = 1;
    pub(super) const SESSION_ENDS: u8 = 3;
}

/// Why a connection ended other than by the initiator's wish.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed or was closed in the middle of something.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came was no PDU, or damaged.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// The login did not end well.
    #[error("the login was refused: {0}")]
    Login(#[from] crate::login::Refusal),
    /// A rule was broken.
    #[error("the initiator broke a rule: {0}")]
    Protocol(&'static str),
    /// It does not answer.
    #[error("the initiator does not answer")]
    Silent,
    /// This process stood still: what waits to be read may have been given up, and done by another portal.
    #[error("this gateway stood still, and takes no command that waited meanwhile")]
    StoodStill,
}

/// What a connection is made of, for the tasks that it has started.
struct Connection {
    home: Rc<Home>,
    session: Rc<Session>,
    parameters: Parameters,
    outbox: Rc<Outbox>,
    /// Writes whose data is not there yet, by the initiator's names for them.
    writes: RefCell<HashMap<u32, Write>>,
    /// Bytes of commands under way.
    under_way: Cell<usize>,
}

/// Serves one connection until it ends.
pub async fn serve(home: Rc<Home>, newcomer: Newcomer) {
    match converse(home, newcomer).await {
        Ok(()) => debug!("an initiator left"),
        Err(ConnectionError::Io(error)) => debug!(%error, "an initiator is gone"),
        Err(error) => warn!(%error, "a connection was ended"),
    }
}

async fn converse(home: Rc<Home>, newcomer: Newcomer) -> Result<(), ConnectionError> {
    let Newcomer {
        stream,
        first,
        portal_group,
        place,
    } = newcomer;
    let (input, mut output) = TcpStream::from_std(stream)?.into_split();
    let mut reader = PduReader::new(input);
    let entered = timeout(
        entry::LOGIN_MAX,
        entry::enter(&home, &mut reader, &mut output, first, portal_group),
    )
    .await;
    let entered = entered.map_err(|_| ConnectionError::Silent)??;
    let session = Rc::clone(&entered.session);
    let (cid, ended) = (entered.connection, entered.ended.clone());
    let result = full_feature(home.clone(), reader, output, entered).await;
    // At error recovery level 0 a connection that breaks takes its session with it.
    if result.is_err() {
        session.limit(Stay::Over);
    }
    drop(place);
    if session.leave(cid, &ended) {
        // What it still copies ends.
        session.limit(Stay::Over);
        home.forget_session(&session).await;
    }
    result
}

async fn full_feature(
    home: Rc<Home>,
    mut reader: PduReader<OwnedReadHalf>,
    mut output: OwnedWriteHalf,
    entered: entry::Entered,
) -> Result<(), ConnectionError> {
    let digests = Digests {
        header: entered.parameters.header_digest,
        data: entered.parameters.data_digest,
    };
    reader.expect(digests);
    let outbox = Outbox::new(digests, entered.status_number, Rc::clone(&entered.session));
    let mut stay = entered.session.stay();
    // It may be over already.
    stay.mark_changed();
    let mut connection_ended = entered.ended;
    let connection = Rc::new(Connection {
        home,
        session: entered.session,
        parameters: entered.parameters,
        outbox: outbox.clone(),
        writes: RefCell::default(),
        under_way: Cell::new(0),
    });
    let mut writing = std::pin::pin!(outbox.write_to(&mut output));
    let mut reading = std::pin::pin!(connection.read(&mut reader));
    let result = loop {
        tokio::select! {
            ended = &mut reading => break ended,
            written = &mut writing => {
                // A write that waits for data holds the connection, and its place in the unit's task set.
                connection.writes.borrow_mut().clear();
                return written.map_err(Into::into);
            }
            Ok(()) = stay.changed() => if connection.look_at_stay(*stay.borrow_and_update()) {
                break Ok(());
            },
            _ = connection_ended.wait_for(|ended| *ended) => break Ok(()),
        }
    };
    connection.writes.borrow_mut().clear();
    outbox.close();
    // Whoever does not read any more is not waited for.
    let _ = timeout(DRAIN_MAX, writing).await;
    result
}

impl Connection {
    /// Tells the initiator how long its session may stay, if it does not know. Says whether it is over.
    fn look_at_stay(&self, stay: Stay) -> bool {
        match stay {
            Stay::Welcome | Stay::Over => {}
            Stay::AskedToLeave => {
                let seconds = u16::try_from(LOG_OUT_LIMIT.as_secs()).unwrap_or(u16::MAX);
                self.outbox.send(asynchronous(event::LOG_OUT, [0, 0, seconds]));
            }
            Stay::Dismissed => {
                // It may come again at once, and finds no task of the session.
                self.outbox.send(asynchronous(event::SESSION_ENDS, [0, 0, 0]));
            }
        }
        stay >= Stay::Dismissed
    }

    /// Takes requests until the initiator logs out or closes its side between two of them.
    async fn read(self: &Rc<Self>, reader: &mut PduReader<OwnedReadHalf>) -> Result<(), ConnectionError> {
        let mut pinged = false;
        loop {
            self.outbox.room().await;
            let Ok(read) = timeout(SILENCE_MAX, reader.ready()).await else {
                if pinged {
                    return Err(ConnectionError::Silent);
                }
                pinged = true;
                self.outbox.send(ping(0));
                continue;
            };
            pinged = false;
            if !read? {
                return Ok(());
            }
            let header = reader.header().await?;
            let request = parse(&header).ok();
            let (data, damaged) = self.arrive(reader, &header, request.as_ref()).await?;
            if damaged {
                self.outbox.send(reject(reason::DATA_DIGEST, &header));
                return Err(ConnectionError::Protocol("a data digest was wrong"));
            }
            let Some(request) = request else {
                self.outbox.send(reject(reason::NOT_SUPPORTED, &header));
                continue;
            };
            if !self.awaits_turn(&request).await? {
                continue;
            }
            // Looked at when all of it is here: this process may have stood still in the middle of reading it.
            if self.home.stood_still() {
                return Err(ConnectionError::StoodStill);
            }
            if let Kind::Logout { reason: 0, .. } = request.kind {
                // Whoever is told that the session is over may have another one reserve what it had.
                self.home.give_up(&self.session.nexus).await;
            }
            if self.take(&request, header, data)? {
                return Ok(());
            }
        }
    }

    /// Whether a request is to be taken. Waits until those before it have come by other connections.
    async fn awaits_turn(&self, request: &Request) -> Result<bool, ConnectionError> {
        if request.immediate || matches!(request.kind, Kind::DataOut { .. } | Kind::Snack) {
            return Ok(true);
        }
        let turn = async {
            loop {
                let went_on = self.session.went_on.notified();
                match self.session.numbers.borrow_mut().take(request.command_number) {
                    Turn::Now => return true,
                    Turn::Never => return false,
                    Turn::Later => {}
                }
                went_on.await;
            }
        };
        let came = timeout(TURN_MAX, turn).await;
        let came =
            came.map_err(|_| ConnectionError::Protocol("commands are missing before one that came"))?;
        self.session.went_on.notify_waiters();
        Ok(came)
    }

    /// Takes one request. Says whether it was the last.
    fn take(self: &Rc<Self>, request: &Request, header: Header, data: Data) -> Result<bool, ConnectionError> {
        let (tag, length) = (request.task_tag, header.data_length());
        match request.kind {
            Kind::Command(ref command) => self.command(request, command, data, length),
            Kind::DataOut {
                target_tag,
                number,
                offset,
            } => {
                let part = (target_tag, number, offset);
                self.data_out(tag, part, request.last, data, length);
            }
            // The answer to a ping of ours has no name that asks for an answer.
            Kind::NopOut { .. } if tag == NO_TAG => {}
            Kind::NopOut { .. } => {
                let most = usize::try_from(self.parameters.send_max).unwrap_or(usize::MAX);
                let data = data.alone();
                let data = data.slice(..data.len().min(most));
                self.outbox.send(nop_in(tag, request.lun, data));
            }
            Kind::TaskManagement {
                function,
                referenced_tag,
            } => functions::start(self, tag, function, request.lun, referenced_tag),
            Kind::Text { continues, .. } => self.text(tag, continues, &header, &data.alone()),
            Kind::Logout { reason, connection } => return Ok(self.logout(tag, reason, connection)),
            Kind::Snack => self.outbox.send(reject(reason::SNACK, &header)),
            Kind::Login(_) => {
                self.outbox.send(reject(reason::PROTOCOL, &header));
                return Err(ConnectionError::Protocol("a login came after the login"));
            }
        }
        Ok(false)
    }

    /// Text in a session: the names of this target, nothing else (RFC 7143 section 13.3).
    fn text(&self, tag: u32, continues: bool, header: &Header, data: &[u8]) {
        let text = Text::parse(data);
        let (Ok(text), false) = (text, continues) else {
            self.outbox.send(reject(reason::PROTOCOL, header));
            return;
        };
        let mut answer = Text::default();
        for (key, value) in text.iter() {
            if key == "SendTargets" && (value.is_empty() || value == self.home.name) {
                answer.add("TargetName", self.home.name.as_str());
            } else if key == "SendTargets" {
                // No other target is told of in a session with this one.
            } else {
                answer.add(key, "NotUnderstood");
            }
        }
        let encoded = Bytes::from(answer.encode());
        let most = usize::try_from(self.parameters.send_max).unwrap_or(usize::MAX);
        self.outbox.send(text_response(
            tag,
            true,
            NO_TAG,
            encoded.slice(..encoded.len().min(most)),
        ));
    }

    /// A logout: of the session (0), of a connection (1), or to recover one (2), which level 0 does not know.
    fn logout(&self, tag: u32, reason: u8, connection: u16) -> bool {
        match reason {
            0 => {
                self.outbox.send(logout_response(tag, 0));
                self.session.limit(Stay::Over);
                true
            }
            1 => {
                let found = self.session.end_connection(connection);
                self.outbox.send(logout_response(tag, u8::from(!found)));
                false
            }
            _ => {
                self.outbox.send(logout_response(tag, 2));
                false
            }
        }
    }
}
