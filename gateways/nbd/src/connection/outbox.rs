//! Answers on their way out, and the room for requests on their way in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use telemetry::traffic::{self, Kind, Traffic};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::connection::ConnectionError;

/// Requests of one connection that may be unanswered at once. Twice what the deepest known client
/// (fio at depth 128) sends; a full one waits in the socket.
const REQUESTS_MAX: usize = 256;
/// Bytes that one connection's requests and answers may hold at once: two of the longest, so that
/// one is sent while the next is read. A longer queue waits in the socket.
const BYTES_MAX: u64 = 2 * crate::wire::PAYLOAD_MAX as u64;
/// Pieces handed to the kernel in one call: enough for thirty small answers; the kernel takes 1024.
const SLICES_MAX: usize = 64;

/// What one connection still owes its client. Lives on the volume's thread.
pub(super) struct Outbox {
    ready: RefCell<VecDeque<Answer>>,
    allowance: Rc<Allowance>,
    closed: Cell<bool>,
    abandoned: Cell<bool>,
    /// Whether nobody writes any more: answers that still come are dropped at once.
    gone: Cell<bool>,
    /// Wakes the writer.
    outgoing: Notify,
}

/// The room that the connection's requests take. Apart from the outbox, for answers that wait in the
/// outbox hold it, and must not hold the outbox.
struct Allowance {
    /// Where requests are counted.
    traffic: Rc<Traffic>,
    requests: Cell<usize>,
    bytes: Cell<u64>,
    /// Wakes the reader.
    freed: Notify,
}

struct Answer {
    pieces: Vec<Bytes>,
    /// Gives the room back once the pieces are written.
    room: Room,
}

/// The right, and the duty, to answer one request.
pub(super) struct Ticket {
    outbox: Rc<Outbox>,
    room: Option<Room>,
}

/// What one request takes of the allowance, until it is dropped.
pub(super) struct Room {
    allowance: Rc<Allowance>,
    weight: u64,
    /// What is counted when the request is answered.
    counted: Option<traffic::Ticket>,
}

impl Outbox {
    pub(super) fn new(traffic: Rc<Traffic>) -> Rc<Self> {
        Rc::new(Self {
            ready: RefCell::default(),
            allowance: Rc::new(Allowance {
                traffic,
                requests: Cell::new(0),
                bytes: Cell::new(0),
                freed: Notify::new(),
            }),
            closed: Cell::new(false),
            abandoned: Cell::new(false),
            gone: Cell::new(false),
            outgoing: Notify::new(),
        })
    }

    /// Waits until there is room for one more request of `weight` bytes, at most half of the limit.
    pub(super) async fn admit(&self, weight: u64) -> Room {
        let allowance = &self.allowance;
        while allowance.requests.get() >= REQUESTS_MAX || allowance.bytes.get() + weight > BYTES_MAX {
            allowance.freed.notified().await;
        }
        Room::take(allowance, weight)
    }

    /// Takes on the duty to answer a request that has been read in full.
    pub(super) fn ticket(self: &Rc<Self>, mut room: Room, kind: Kind, bytes: u64) -> Ticket {
        let mut counted = self.allowance.traffic.take(Instant::now());
        counted.is_for(kind, bytes);
        room.counted = Some(counted);
        Ticket {
            outbox: self.clone(),
            room: Some(room),
        }
    }

    /// No request will be admitted any more: [`Outbox::write_to`] ends with the last answer.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.outgoing.notify_one();
    }

    /// Nobody writes any more: what waits is dropped, and what comes too.
    pub(super) fn abandon(&self) {
        self.gone.set(true);
        self.ready.take();
    }

    /// Writes answers as they become ready, all that are there in one go.
    pub(super) async fn write_to<W: AsyncWrite + Unpin>(
        &self,
        output: &mut W,
    ) -> Result<(), ConnectionError> {
        loop {
            let mut batch = self.ready.take();
            if self.abandoned.get() {
                return Err(ConnectionError::Abandoned);
            }
            if batch.is_empty() {
                if self.closed.get() && self.allowance.requests.get() == 0 {
                    return Ok(());
                }
                self.outgoing.notified().await;
                continue;
            }
            let counted = batch.iter_mut().filter_map(|answer| answer.room.counted.take());
            self.allowance.traffic.publish(counted);
            write_batch(output, batch).await?;
        }
    }
}

impl Ticket {
    /// Sends the answer.
    pub(super) fn answer(mut self, pieces: Vec<Bytes>) {
        let outbox = &self.outbox;
        if let Some(room) = self.room.take()
            && !outbox.gone.get()
        {
            outbox.ready.borrow_mut().push_back(Answer { pieces, room });
            outbox.outgoing.notify_one();
        }
    }

    /// Sends an answer that tells of a failure.
    pub(super) fn fail(mut self, pieces: Vec<Bytes>) {
        if let Some(counted) = self.room.as_mut().and_then(|room| room.counted.as_mut()) {
            counted.has_failed();
        }
        self.answer(pieces);
    }
}

impl Drop for Ticket {
    /// A request that nobody answers would leave its client waiting for ever: better to hang up.
    fn drop(&mut self) {
        if self.room.is_some() {
            self.outbox.abandoned.set(true);
            self.outbox.outgoing.notify_one();
        }
    }
}

impl Room {
    fn take(allowance: &Rc<Allowance>, weight: u64) -> Self {
        allowance.requests.set(allowance.requests.get() + 1);
        allowance.bytes.set(allowance.bytes.get() + weight);
        Self {
            allowance: allowance.clone(),
            weight,
            counted: None,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let allowance = &self.allowance;
        // Given up unanswered, with its client.
        if let Some(mut counted) = self.counted.take() {
            counted.has_failed();
            allowance.traffic.publish(std::iter::once(counted));
        }
        allowance.requests.set(allowance.requests.get() - 1);
        allowance.bytes.set(allowance.bytes.get() - self.weight);
        allowance.freed.notify_one();
    }
}

async fn write_batch<W: AsyncWrite + Unpin>(output: &mut W, batch: VecDeque<Answer>) -> io::Result<()> {
    let mut pieces: VecDeque<Bytes> = VecDeque::new();
    // Answers are held until the last piece is out: that is when their memory is free again.
    let mut held = Vec::with_capacity(batch.len());
    for mut answer in batch {
        pieces.extend(answer.pieces.drain(..).filter(|piece| !piece.is_empty()));
        held.push(answer);
    }
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = pieces.len().min(SLICES_MAX);
        for (slice, piece) in slices.iter_mut().zip(&pieces) {
            *slice = IoSlice::new(piece);
        }
        let written = output.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(&mut pieces, written);
    }
    output.flush().await
}

fn advance(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = pieces.front_mut() {
        if written < first.len() {
            first.advance(written);
            return;
        }
        written -= first.len();
        pieces.pop_front();
    }
}

#[cfg(test)]
mod tests {
    //! The laws of the outbox: all that was answered is written in full, room comes back, and a
    //! request that nobody answers ends the connection instead of hanging it.
    use super::*;
    use proptest::prelude::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn outbox() -> Rc<Outbox> {
        Outbox::new(Rc::new(Traffic::new(&[Kind::Read])))
    }

    async fn ticket(outbox: &Rc<Outbox>, weight: u64) -> Ticket {
        outbox.ticket(outbox.admit(weight).await, Kind::Read, weight)
    }

    #[test]
    fn every_request_is_counted_once_whatever_becomes_of_it() {
        run(async {
            let outbox = outbox();
            let traffic = Rc::clone(&outbox.allowance.traffic);
            let (good, bad) = (ticket(&outbox, 10).await, ticket(&outbox, 10).await);
            let (unsent, unanswered) = (ticket(&outbox, 10).await, ticket(&outbox, 10).await);
            assert_eq!(traffic.in_flight(), 4);
            good.answer(Vec::new());
            bad.fail(Vec::new());
            let mut sink = Vec::new();
            tokio::select! {
                biased;
                _ = outbox.write_to(&mut sink) => panic!("two are unanswered"),
                () = tokio::task::yield_now() => {}
            }
            assert_eq!(
                traffic.in_flight(),
                2,
                "what was answered is counted when it is written"
            );
            unsent.answer(Vec::new());
            outbox.abandon();
            drop(unanswered);
            assert_eq!(traffic.in_flight(), 0);
            let (_, figures) = traffic.figures().swap_remove(0);
            assert_eq!((figures.requests, figures.bytes, figures.errors), (4, 10, 3));
        });
    }

    #[test]
    fn it_ends_when_the_last_answer_is_written() {
        run(async {
            let outbox = outbox();
            let (first, second) = (ticket(&outbox, 10).await, ticket(&outbox, 0).await);
            let mut written = Vec::new();
            outbox.close();
            let answering = async {
                second.answer(vec![Bytes::from_static(b"two")]);
                tokio::task::yield_now().await;
                first.answer(vec![
                    Bytes::from_static(b"o"),
                    Bytes::new(),
                    Bytes::from_static(b"ne"),
                ]);
            };
            let (result, ()) = tokio::join!(outbox.write_to(&mut written), answering);
            result.unwrap();
            assert_eq!(written, b"twoone");
            assert_eq!(outbox.allowance.bytes.get(), 0);
        });
    }

    #[test]
    fn a_request_that_nobody_answers_ends_the_connection() {
        run(async {
            let outbox = outbox();
            drop(ticket(&outbox, 1).await);
            let result = outbox.write_to(&mut Vec::new()).await;
            assert!(matches!(result, Err(ConnectionError::Abandoned)));
        });
    }

    #[test]
    fn a_request_waits_for_room_and_gets_it() {
        run(async {
            let outbox = outbox();
            let first = ticket(&outbox, BYTES_MAX).await;
            let mut second = std::pin::pin!(ticket(&outbox, 1));
            let waits =
                std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending()));
            assert!(waits.await, "there is no room yet");
            first.answer(Vec::new());
            let mut sink = Vec::new();
            let ticket = tokio::select! {
                ticket = &mut second => ticket,
                result = outbox.write_to(&mut sink) => panic!("the writer ended: {result:?}"),
            };
            ticket.answer(Vec::new());
        });
    }

    #[test]
    fn answers_that_were_never_sent_are_freed_with_their_connection() {
        // Found by fuzzing: an answer that waited held the outbox that held it, so that each client
        // that broke off left its unsent answers in memory for ever.
        run(async {
            let outbox = outbox();
            let (sent, late) = (ticket(&outbox, 1).await, ticket(&outbox, 1).await);
            let payload = Bytes::from(vec![1; 100]);
            sent.answer(vec![payload.clone()]);
            let (watched, allowance) = (Rc::downgrade(&outbox), Rc::downgrade(&outbox.allowance));
            outbox.abandon();
            late.answer(vec![payload.clone()]);
            assert!(payload.is_unique(), "no answer is kept");
            drop(outbox);
            assert!(watched.upgrade().is_none() && allowance.upgrade().is_none());
        });
    }

    proptest! {
        #[test]
        fn advancing_skips_exactly_what_was_written(
            lengths in proptest::collection::vec(1usize..10, 1..8), share in 0usize..100,
        ) {
            let all: Vec<u8> = (0..100).collect();
            let mut at = 0;
            let mut pieces: VecDeque<Bytes> = lengths.iter().map(|length| {
                at += length;
                Bytes::copy_from_slice(&all[at - length..at])
            }).collect();
            let written = at * share / 100;
            advance(&mut pieces, written);
            let left: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            prop_assert_eq!(left, &all[written..at]);
        }
    }
}
