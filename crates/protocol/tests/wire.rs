//! The wire format as other versions of storaged will meet it: golden bytes, round trips, rubbish.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in the shared functions as well"
)]

#[path = "wire/samples.rs"]
mod samples;
#[path = "wire/strategies.rs"]
mod strategies;

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use protocol::codec::{self, Message};
use protocol::frame::{HEADER_LEN, Header, Kind};

/// A whole frame: header, body and payload.
fn frame(number: u64, message: &Message) -> BytesMut {
    let mut out = BytesMut::new();
    let payload = codec::encode(&mut out, number, message);
    out.extend_from_slice(&payload);
    out
}

fn parse(frame: &[u8]) -> Message {
    let header = Header::decode(frame.first_chunk::<HEADER_LEN>().unwrap()).unwrap();
    let (body, payload) = frame[HEADER_LEN..].split_at(header.body_len as usize);
    assert_eq!(payload.len(), header.payload_len as usize);
    codec::decode(header.kind, body, Bytes::copy_from_slice(payload)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Law: version 1 keeps its bytes. A change here is a new version of the format, with a file of its
/// own beside this one. (Payloads are cut from the lines: they are the data itself.)
#[test]
fn the_bytes_of_version_1_stay_what_they_are() {
    let mut lines = String::new();
    for (name, message) in samples::all() {
        let bytes = frame(0x0102_0304_0506_0708, &message);
        let header = Header::decode(bytes.first_chunk::<HEADER_LEN>().unwrap()).unwrap();
        let head = &bytes[..HEADER_LEN + header.body_len as usize];
        writeln!(lines, "{name} {}", hex(head)).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wire-v1.txt");
    if std::env::var_os("STORAGED_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &lines).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (ours, theirs) in lines.lines().zip(golden.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(lines.lines().count(), golden.lines().count());
}

/// Law: there is a golden line for each kind of frame, so that none can change unseen.
#[test]
fn every_kind_of_frame_has_a_sample() {
    for kind in Kind::ALL {
        let seen = samples::all()
            .iter()
            .any(|(_, message)| frame(1, message)[5] == kind as u8);
        assert!(seen, "{kind:?}");
    }
}

#[test]
fn the_samples_come_back_as_they_were() {
    for (name, message) in samples::all() {
        assert_eq!(parse(&frame(3, &message)), message, "{name}");
    }
}

/// Law: a body that is cut at any byte, or has one more, is refused; it is never read as another.
#[test]
fn a_body_that_is_too_short_or_too_long_is_refused() {
    for (name, message) in samples::all() {
        let bytes = frame(3, &message);
        let header = Header::decode(bytes.first_chunk::<HEADER_LEN>().unwrap()).unwrap();
        let (body, payload) = bytes[HEADER_LEN..].split_at(header.body_len as usize);
        let payload = Bytes::copy_from_slice(payload);
        for cut in 0..body.len() {
            assert!(
                codec::decode(header.kind, &body[..cut], payload.clone()).is_err(),
                "{name} cut at {cut}"
            );
        }
        let mut longer = body.to_vec();
        longer.push(0);
        assert!(
            codec::decode(header.kind, &longer, payload).is_err(),
            "{name} with a byte more"
        );
    }
}

/// Law: a payload of another length than the body speaks of is refused.
#[test]
fn a_payload_of_the_wrong_length_is_refused() {
    for (name, message) in samples::all() {
        let bytes = frame(3, &message);
        let header = Header::decode(bytes.first_chunk::<HEADER_LEN>().unwrap()).unwrap();
        if header.kind.payload_max() == 0 {
            continue;
        }
        let body = &bytes[HEADER_LEN..HEADER_LEN + header.body_len as usize];
        for length in [
            header.payload_len as usize + 1,
            header.payload_len as usize + 4096,
            1,
        ] {
            let payload = Bytes::from(vec![0; length]);
            assert!(
                codec::decode(header.kind, body, payload).is_err(),
                "{name} with {length} bytes"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_message_comes_back_as_it_was(message in strategies::message(), number in any::<u64>()) {
        let bytes = frame(number, &message);
        prop_assert_eq!(parse(&bytes), message);
    }

    #[test]
    fn any_bytes_are_refused_or_read_and_never_panic(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        body in prop::collection::vec(any::<u8>(), 0..300),
        payload in prop::sample::select(vec![0usize, 1, 4096, 8192]),
    ) {
        let _ = codec::decode(kind, &body, Bytes::from(vec![0; payload]));
    }

    #[test]
    fn damaged_bodies_are_refused_or_read_and_never_panic(
        message in strategies::message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let bytes = frame(1, &message);
        let header = Header::decode(bytes.first_chunk::<HEADER_LEN>().unwrap()).unwrap();
        let (body, payload) = bytes[HEADER_LEN..].split_at(header.body_len as usize);
        let mut body = body.to_vec();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = codec::decode(header.kind, &body, Bytes::copy_from_slice(payload));
    }
}
