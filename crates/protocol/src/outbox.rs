//! The sending end of a connection: messages go in, slices for vectored writes come out.
//!
//! Many messages leave in one write, and payloads are never copied. Knows nothing of sockets. It
//! has no limit of its own: whoever fills it looks at [`Outbox::len`] and stops reading requests, or
//! stops sending, as its own limit of bytes in flight says.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::{self, Message};
use crate::message::{Request, Response};
use crate::session::{SessionPush, SessionReply, SessionRequest};

/// Slices in one write. Linux takes 1024; 64 are 32 writes with their data, by which time the
/// system call is a small part of the cost.
const SLICES_MAX: usize = 64;

/// Gathers frames until the socket takes them.
#[derive(Default)]
pub struct Outbox {
    /// Headers and bodies that no segment holds yet.
    head: BytesMut,
    segments: VecDeque<Bytes>,
    /// Bytes in `segments`.
    sealed: usize,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that wait to be sent.
    pub fn len(&self) -> usize {
        self.sealed + self.head.len()
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds any message.
    pub fn push(&mut self, number: u64, message: &Message) {
        let payload = codec::encode(&mut self.head, number, message);
        self.push_payload(payload);
    }

    /// Adds a request.
    pub fn push_request(&mut self, number: u64, request: &Request) {
        let payload = codec::encode_request(&mut self.head, number, request);
        self.push_payload(payload);
    }

    /// Adds an answer.
    pub fn push_response(&mut self, number: u64, response: &Response) {
        let payload = codec::encode_response(&mut self.head, number, response);
        self.push_payload(payload);
    }

    /// Adds a request of a front end to its `storaged`.
    pub fn push_session_request(&mut self, number: u64, request: &SessionRequest) {
        codec::encode_session_request(&mut self.head, number, request);
    }

    /// Adds the answer to one.
    pub fn push_session_reply(&mut self, number: u64, reply: &SessionReply) {
        codec::encode_session_reply(&mut self.head, number, reply);
    }

    /// Adds what `storaged` tells a front end unasked.
    pub fn push_session_push(&mut self, push: &SessionPush) {
        codec::encode_session_push(&mut self.head, push);
    }

    fn push_payload(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            self.seal();
            self.sealed += payload.len();
            self.segments.push_back(payload);
        }
    }

    fn seal(&mut self) {
        if !self.head.is_empty() {
            self.sealed += self.head.len();
            self.segments.push_back(self.head.split().freeze());
        }
    }

    /// What to write next, in order; empty only if nothing waits.
    pub fn slices(&mut self) -> Vec<IoSlice<'_>> {
        self.seal();
        self.segments
            .iter()
            .take(SLICES_MAX)
            .map(|segment| IoSlice::new(segment))
            .collect()
    }

    /// Says that the first `count` bytes of [`Self::slices`] were written.
    pub fn sent(&mut self, count: usize) {
        let mut rest = count.min(self.sealed);
        self.sealed -= rest;
        while let Some(front) = self.segments.front_mut() {
            if rest < front.len() {
                front.advance(rest);
                break;
            }
            rest -= front.len();
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Nothing is lost, doubled or reordered when a socket takes a part at a time.
    use super::*;
    use crate::id::DiskId;
    use crate::stamp::Stamp;

    #[test]
    fn partial_writes_lose_nothing() {
        let data = Bytes::from(vec![9; 4096]);
        let checksums = crate::checksum::of_blocks(&data);
        let read = Response::Data {
            stamp: Stamp::ZERO,
            checksums,
            bytes: data,
        };
        let messages = [
            Response::Ok,
            read.clone(),
            read,
            Response::Welcome {
                version: 1,
                disk: DiskId(3),
            },
        ];
        let fill = || {
            let mut outbox = Outbox::new();
            (0..)
                .zip(&messages)
                .for_each(|(number, message)| outbox.push_response(number, message));
            outbox
        };
        let mut outbox = fill();
        let whole: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(whole.len(), outbox.len());
        for step in [1, 7, 32, 4096, 5000] {
            let (mut outbox, mut sent) = (fill(), Vec::new());
            while !outbox.is_empty() {
                let bytes: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                let part = step.min(bytes.len());
                sent.extend_from_slice(&bytes[..part]);
                outbox.sent(part);
            }
            assert_eq!(sent, whole);
            assert_eq!(outbox.slices().len(), 0);
        }
    }
}
