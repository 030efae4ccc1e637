//! PDUs that wait to be sent, in the order in which their numbers were given.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::connection::stream::Digests;
use crate::target::session::Session;
use crate::wire::digest::{digest, digest_of, padding};
use crate::wire::response::{Numbering, Numbers, Outgoing};

/// Pieces of one write to the socket: what the kernel takes in one call is 1024.
const PIECES_MAX: usize = 256;
/// PDUs that wait before no more requests are read.
const WAITING_MAX: usize = 1024;
/// Bytes that wait before no more requests are read.
const BYTES_MAX: usize = 64 << 20;

static ZEROS: [u8; 3] = [0; 3];

/// See the module.
pub(super) struct Outbox {
    digests: Digests,
    session: Rc<Session>,
    /// The next `StatSN`.
    status_number: Cell<u32>,
    waiting: RefCell<VecDeque<Outgoing>>,
    bytes: Cell<usize>,
    closed: Cell<bool>,
    filled: Notify,
    emptied: Notify,
}

impl Outbox {
    pub(super) fn new(digests: Digests, status_number: u32, session: Rc<Session>) -> Rc<Self> {
        Rc::new(Self {
            digests,
            session,
            status_number: Cell::new(status_number),
            waiting: RefCell::default(),
            bytes: Cell::new(0),
            closed: Cell::new(false),
            filled: Notify::new(),
            emptied: Notify::new(),
        })
    }

    /// Gives a PDU its numbers and queues it.
    pub(super) fn send(&self, mut pdu: Outgoing) {
        if self.closed.get() {
            return;
        }
        let status = self.status_number.get();
        let (expected_command, command_max) = self.session.numbers.borrow_mut().tell();
        pdu.stamp(Numbers {
            status,
            expected_command,
            command_max,
        });
        if pdu.numbering == Numbering::Takes {
            self.status_number.set(status.wrapping_add(1));
        }
        self.bytes.set(self.bytes.get() + pdu.header.data_length());
        self.waiting.borrow_mut().push_back(pdu);
        self.filled.notify_one();
    }

    /// Waits until there is room for the answers to one more request.
    pub(super) async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.waiting.borrow().len() < WAITING_MAX && self.bytes.get() < BYTES_MAX {
                return;
            }
            emptied.await;
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Nothing more is taken; what waits is still sent.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.filled.notify_one();
    }

    /// Sends until the outbox is closed and empty.
    pub(super) async fn write_to<W: AsyncWrite + Unpin>(&self, output: &mut W) -> io::Result<()> {
        let mut pieces = VecDeque::new();
        loop {
            self.gather(&mut pieces);
            if pieces.is_empty() {
                if self.closed.get() {
                    return output.shutdown().await;
                }
                self.filled.notified().await;
                continue;
            }
            write_all(output, &mut pieces).await?;
            self.emptied.notify_waiters();
        }
    }

    fn gather(&self, pieces: &mut VecDeque<Bytes>) {
        let mut waiting = self.waiting.borrow_mut();
        while pieces.len() < PIECES_MAX
            && let Some(pdu) = waiting.pop_front()
        {
            self.bytes
                .set(self.bytes.get().saturating_sub(pdu.header.data_length()));
            encode(pdu, self.digests, pieces);
        }
    }
}

/// Lays a PDU out as the pieces that are sent.
pub(super) fn encode(pdu: Outgoing, digests: Digests, pieces: &mut VecDeque<Bytes>) {
    let mut header = pdu.header.0.to_vec();
    if digests.header {
        header.extend_from_slice(&digest(&pdu.header.0));
    }
    pieces.push_back(header.into());
    let length = pdu.header.data_length();
    if length == 0 {
        return;
    }
    let sum = digests
        .data
        .then(|| digest_of(pdu.data.iter().map(|piece| &piece[..])));
    pieces.extend(pdu.data.into_iter().filter(|piece| !piece.is_empty()));
    if padding(length) > 0 {
        pieces.push_back(Bytes::from_static(&ZEROS[..padding(length)]));
    }
    if let Some(sum) = sum {
        pieces.push_back(Bytes::copy_from_slice(&sum));
    }
}

/// Writes all pieces.
pub(super) async fn write_all<W: AsyncWrite + Unpin>(
    output: &mut W,
    pieces: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .take(PIECES_MAX)
            .map(|piece| IoSlice::new(piece))
            .collect();
        let mut written = output.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            pieces.pop_front();
        }
    }
    output.flush().await
}
