//! The transmission phase of one connection: reads requests, hands them to the device, sends what
//! comes back, in whatever order it comes.
//!
//! Two halves share an [`Outbox`]: the reader admits requests while there is room for them, the
//! writer sends all that is ready in one go and makes room again.

mod outbox;
mod task;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use aligned_vec::{AVec, ConstAlign};
use bytes::Bytes;
use client::device::BlockDevice;
use telemetry::traffic::{Kind, Traffic};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::watch;

use crate::connection::outbox::Outbox;
use crate::socket::Stream;
use crate::wire::PAYLOAD_MAX;
use crate::wire::reply::{Replier, ReplyFormat};
use crate::wire::request::{Bounds, EXTENDED_LENGTH, HeaderLayout, Request, Task};

/// What a client and this server agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How replies look, and with them the layout of requests.
    pub format: ReplyFormat,
    /// Whether `base:allocation` was chosen.
    pub allocation: bool,
}

impl Terms {
    fn layout(self) -> HeaderLayout {
        match self.format {
            ReplyFormat::Simple | ReplyFormat::Structured => HeaderLayout::Compact,
            ReplyFormat::Extended => HeaderLayout::Extended,
        }
    }
}

/// Why a connection ended other than by the client's wish.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed or was closed in the middle of something.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came was no request.
    #[error("the client sent something that is not a request")]
    NotARequest,
    /// More payload than anybody may send.
    #[error("the client announced a payload of {0} bytes; 32 MiB is the most")]
    Oversized(u64),
    /// The device ended without answering.
    #[error("the volume was closed with requests unanswered")]
    Abandoned,
}

/// How many bytes are read from the socket in one go. A payload that is longer than what is left
/// of it goes straight to where it stays.
const READ_BUFFER: usize = 64 * 1024;

/// Waits until the flag is up, or nobody is left to raise it.
pub async fn raised(flag: &mut watch::Receiver<bool>) {
    // An error means that nobody can raise it: then the owner of the flag is gone, which is the same.
    let _ = flag.wait_for(|raised| *raised).await;
}

/// How long a client may take to read the last answers once the connection is to end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What ends a connection when it goes up: the process leaves, the volume is gone, the client is to connect anew.
pub type Flags = [watch::Receiver<bool>; 3];

/// Serves one client until it leaves, breaks off, or one of the flags goes up. Requests that were read are answered before
/// it ends, unless the client is gone or does not listen.
pub async fn serve(
    stream: Stream,
    terms: Terms,
    device: Rc<dyn BlockDevice>,
    traffic: Rc<Traffic>,
    flags: Flags,
) -> Result<(), ConnectionError> {
    let outbox = Outbox::new(traffic);
    let served = converse(stream, terms, device, &outbox, flags).await;
    outbox.abandon();
    served
}

async fn converse(
    stream: Stream,
    terms: Terms,
    device: Rc<dyn BlockDevice>,
    outbox: &Rc<Outbox>,
    [mut leaving, mut stopped, mut dismissed]: Flags,
) -> Result<(), ConnectionError> {
    let (input, mut output) = tokio::io::split(stream);
    let input = BufReader::with_capacity(READ_BUFFER, input);
    let mut reader = Reader {
        input,
        terms,
        device,
        outbox: outbox.clone(),
    };
    let mut writing = std::pin::pin!(outbox.write_to(&mut output));
    tokio::select! {
        ended = reader.run() => ended?,
        written = &mut writing => return written,
        () = raised(&mut leaving) => {}
        () = raised(&mut stopped) => {}
        () = raised(&mut dismissed) => {}
    }
    outbox.close();
    let drained = tokio::time::timeout(DRAIN_MAX, writing).await;
    drained.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

struct Reader<R> {
    input: BufReader<R>,
    terms: Terms,
    device: Rc<dyn BlockDevice>,
    outbox: Rc<Outbox>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Ends well when the client says good-bye, or closes its side between two requests.
    async fn run(&mut self) -> Result<(), ConnectionError> {
        while let Some(request) = self.header().await? {
            if request.payload > u64::from(PAYLOAD_MAX) {
                return Err(ConnectionError::Oversized(request.payload));
            }
            let replier = Replier {
                format: self.terms.format,
                cookie: request.cookie,
                offset: request.offset,
            };
            let judged = request.judge(self.terms.layout(), &self.bounds());
            let weight = match judged {
                Ok(Task::Disconnect) => return Ok(()),
                Ok(Task::Read { length, .. }) => length,
                _ => request.payload,
            };
            let room = self.outbox.admit(weight).await;
            let payload = self.payload(request.payload).await?;
            let (kind, bytes) = judged.as_ref().map_or((Kind::Refused, 0), task::amount);
            let ticket = self.outbox.ticket(room, kind, bytes);
            match judged {
                Ok(task) => task::start(task, payload, &self.device, replier, ticket),
                Err(refusal) => ticket.fail(replier.error(refusal.errno, refusal.message, None)),
            }
        }
        Ok(())
    }

    async fn header(&mut self) -> Result<Option<Request>, ConnectionError> {
        if self.input.fill_buf().await?.is_empty() {
            return Ok(None);
        }
        let mut space = [0; EXTENDED_LENGTH];
        let header = &mut space[..self.terms.layout().length()];
        self.input.read_exact(header).await?;
        Request::parse(self.terms.layout(), header)
            .map(Some)
            .ok_or(ConnectionError::NotARequest)
    }

    /// Reads a payload into memory that a disk can write from as it is.
    async fn payload(&mut self, length: u64) -> Result<Bytes, ConnectionError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let length = usize::try_from(length).map_err(|_| ConnectionError::Oversized(length))?;
        let mut buffer: AVec<u8, ConstAlign<4096>> = AVec::with_capacity(4096, length);
        buffer.resize(length, 0);
        self.input.read_exact(&mut buffer).await?;
        Ok(Bytes::from_owner(buffer))
    }

    /// The size is asked for each time: a volume may grow under its clients.
    fn bounds(&self) -> Bounds {
        let info = self.device.info();
        Bounds {
            size: info.size,
            alignment: info.alignment,
            read_only: info.read_only,
            structured: self.terms.format != ReplyFormat::Simple,
            allocation: self.terms.allocation,
        }
    }
}
