//! The wire protocol: bodies of any bytes, and streams of frames that arrive in any pieces.

use bytes::{Bytes, BytesMut};
use protocol::codec;
use protocol::frame::{Header, Kind};
use protocol::inbox::Inbox;

/// One frame: its kind, the length of its body, its body, its payload.
pub(crate) fn message(input: &[u8]) {
    let Some((kind, rest)) = kind(input) else { return };
    let Some((length, rest)) = rest.split_at_checked(2) else {
        return;
    };
    let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(rest.len());
    let (body, payload) = rest.split_at(length);
    let Ok(message) = codec::decode(kind, body, Bytes::copy_from_slice(payload)) else {
        return;
    };
    let mut written = BytesMut::new();
    let tail = codec::encode(&mut written, 7, &message);
    let written_body = written.get(protocol::frame::HEADER_LEN..).unwrap_or_default();
    if !matches!(
        kind,
        Kind::SessionRequest | Kind::SessionReply | Kind::SessionPush
    ) {
        // Laid out by hand: there is one way only to write a message.
        assert_eq!(written_body, body, "{message:?}");
    }
    assert_eq!(codec::decode(kind, written_body, tail).as_ref(), Ok(&message));
}

/// A stream: pieces of any length, each either raw bytes or a frame whose checksums are sound, so that
/// the fuzzer gets past them.
pub(crate) fn stream(input: &[u8]) {
    let mut inbox = Inbox::new();
    let mut rest = input;
    while let Some((head, after)) = rest.split_at_checked(4) {
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(after.len());
        let (content, next) = after.split_at(length);
        let sent = if head[0] % 4 == 0 {
            content.to_vec()
        } else {
            sound_frame(head[3], content)
        };
        if !feed(&mut inbox, &sent, usize::from(head[0]) + 1) {
            return;
        }
        rest = next;
    }
}

/// A frame around `content`: a part of it as the body, the rest as the payload.
fn sound_frame(parts: u8, content: &[u8]) -> Vec<u8> {
    let Some((kind, content)) = kind(content) else {
        return Vec::new();
    };
    let (body, payload) = content.split_at(content.len() * usize::from(parts) / 255);
    let header = Header {
        kind,
        number: 1,
        body_len: u32::try_from(body.len()).unwrap_or(0),
        payload_len: u32::try_from(payload.len()).unwrap_or(0),
        body_crc: protocol::checksum::crc(body),
    };
    [&header.encode(), body, payload].concat()
}

/// Hands bytes over in pieces of at most `piece`. False once the connection is of no use any more.
fn feed(inbox: &mut Inbox, mut bytes: &[u8], piece: usize) -> bool {
    loop {
        match inbox.take_message() {
            Ok(Some((number, message))) => drop(codec::encode(&mut BytesMut::new(), number, &message)),
            Ok(None) if bytes.is_empty() => return true,
            Ok(None) => {
                let mut taken = 0;
                for mut space in inbox.spaces() {
                    let count = space.len().min(bytes.len()).min(piece - taken);
                    let (now, later) = bytes.split_at(count);
                    space[..count].copy_from_slice(now);
                    (bytes, taken) = (later, taken + count);
                }
                assert!(taken > 0, "an inbox has always room");
                inbox.received(taken);
            }
            Err(_) => return false,
        }
    }
}

fn kind(input: &[u8]) -> Option<(Kind, &[u8])> {
    let (number, rest) = input.split_first()?;
    Some((Kind::ALL[usize::from(*number) % Kind::ALL.len()], rest))
}
