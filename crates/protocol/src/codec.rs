//! Messages as frames, and frames as messages: the only code that knows the bytes of a body.
//!
//! Everything is laid out by hand in little endian (`docs/protocol/wire.md`); a change of any byte
//! is a new version. Bytes from outside never panic and reserve no memory that they do not fill.

mod chunks;
mod delta;
mod field;
mod place;
mod ranges;
mod recovery;
mod request;
mod response;
mod shared;
mod vouch;

use bytes::{BufMut, Bytes, BytesMut};

use crate::checksum::crc;
use crate::frame::{HEADER_LEN, Header, Kind, WireError};
use crate::message::{Request, Response};
use crate::session::{SessionPush, SessionReply, SessionRequest};
use crate::shared::{CompareAndWrite, Compared};

/// Anything that a frame can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From an owner to a replica.
    Request(Request),
    /// From a replica to an owner.
    Response(Response),
    /// From a front end to its `storaged`.
    SessionRequest(SessionRequest),
    /// The answer to that.
    SessionReply(SessionReply),
    /// From `storaged` to a front end, unasked.
    SessionPush(SessionPush),
    /// From one who shares a volume to its owner.
    Compare(CompareAndWrite),
    /// The answer to that.
    Compared(Compared),
}

/// Appends a request's header and body to `out` and gives the payload to be sent right after.
pub fn encode_request(out: &mut BytesMut, number: u64, request: &Request) -> Bytes {
    framed(out, number, |out| request::put_request(out, request))
}

/// Appends an answer's header and body to `out` and gives the payload to be sent right after.
pub fn encode_response(out: &mut BytesMut, number: u64, response: &Response) -> Bytes {
    framed(out, number, |out| response::put_response(out, response))
}

/// Appends a whole frame with a session request.
pub fn encode_session_request(out: &mut BytesMut, number: u64, request: &SessionRequest) {
    framed(out, number, |out| put_json(out, Kind::SessionRequest, request));
}

/// Appends a whole frame with a session reply.
pub fn encode_session_reply(out: &mut BytesMut, number: u64, reply: &SessionReply) {
    framed(out, number, |out| put_json(out, Kind::SessionReply, reply));
}

/// Appends a whole frame with a session push; pushes answer nothing, so their number is zero.
pub fn encode_session_push(out: &mut BytesMut, push: &SessionPush) {
    framed(out, 0, |out| put_json(out, Kind::SessionPush, push));
}

/// Appends any message's header and body to `out` and gives the payload to be sent right after. The
/// number of a push is zero, whatever `number` says.
pub fn encode(out: &mut BytesMut, number: u64, message: &Message) -> Bytes {
    match message {
        Message::Request(request) => return encode_request(out, number, request),
        Message::Response(response) => return encode_response(out, number, response),
        Message::SessionRequest(request) => encode_session_request(out, number, request),
        Message::SessionReply(reply) => encode_session_reply(out, number, reply),
        Message::SessionPush(push) => encode_session_push(out, push),
        Message::Compare(compare) => return framed(out, number, |out| shared::put_compare(out, compare)),
        Message::Compared(compared) => {
            return framed(out, number, |out| shared::put_compared(out, *compared));
        }
    }
    Bytes::new()
}

fn framed(out: &mut BytesMut, number: u64, body: impl FnOnce(&mut BytesMut) -> (Kind, Bytes)) -> Bytes {
    let start = out.len();
    out.put_bytes(0, HEADER_LEN);
    let (kind, payload) = body(out);
    let body = &out[start + HEADER_LEN..];
    // A length that does not fit saturates, and the other side refuses it: the limits of bodies and
    // payloads are far below.
    let header = Header {
        kind,
        number,
        body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        body_crc: crc(body),
    };
    out[start..start + HEADER_LEN].copy_from_slice(&header.encode());
    payload
}

fn put_json(out: &mut BytesMut, kind: Kind, message: &impl serde::Serialize) -> (Kind, Bytes) {
    // The session's types are plain structs and enums with string tags, for which JSON has no
    // error; should one ever come up, the cut body does not parse, and the other side hangs up.
    let _ = serde_json::to_writer(out.writer(), message);
    (kind, Bytes::new())
}

/// Reads the message of a frame. `body` has been checked against the header's checksum, and both
/// parts have the lengths that the header names.
pub fn decode(kind: Kind, body: &[u8], payload: Bytes) -> Result<Message, WireError> {
    match kind {
        Kind::Hello
        | Kind::Fence
        | Kind::Read
        | Kind::Write
        | Kind::Map
        | Kind::Pull
        | Kind::Level
        | Kind::Complete
        | Kind::Ping
        | Kind::Share
        | Kind::Places
        | Kind::Area
        | Kind::WriteShared
        | Kind::Question
        | Kind::Vouch
        | Kind::Column
        | Kind::Replace
        | Kind::WriteFront
        | Kind::ReadSeveral => request::read_request(kind, body, payload).map(Message::Request),
        Kind::Welcome
        | Kind::Ok
        | Kind::Doubt
        | Kind::Data
        | Kind::Runs
        | Kind::Delta
        | Kind::Refused
        | Kind::Shared
        | Kind::Placed
        | Kind::Told
        | Kind::Standing
        | Kind::Columns => response::read_response(kind, body, payload).map(Message::Response),
        Kind::SessionRequest => read_json(kind, body).map(Message::SessionRequest),
        Kind::SessionReply => read_json(kind, body).map(Message::SessionReply),
        Kind::SessionPush => read_json(kind, body).map(Message::SessionPush),
        Kind::Compare => shared::read_compare(kind, body, payload).map(Message::Compare),
        Kind::Compared => shared::read_compared(kind, body).map(Message::Compared),
    }
}

fn read_json<'a, T: serde::Deserialize<'a>>(kind: Kind, body: &'a [u8]) -> Result<T, WireError> {
    serde_json::from_slice(body).map_err(|_| WireError::Field { kind, field: "JSON" })
}
