//! The handshake, byte by byte: what a client may say in which order, and what it is answered.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "client/dialogue.rs"]
mod dialogue;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use dialogue::{ACK, Gateway, context_query, export_query, option, request};

const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const STARTTLS: u32 = 5;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const LIST_CONTEXTS: u32 = 9;
const SET_CONTEXTS: u32 = 10;
const EXTENDED_HEADERS: u32 = 11;
const META_CONTEXT: u32 = 4;
const POLICY: u32 = 0x8000_0002;
const UNSUPPORTED: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;
const TOO_BIG: u32 = 0x8000_0009;
const EXTENDED_AGREED: u32 = 0x8000_000a;

#[test]
fn the_old_way_to_choose_an_export_works() {
    // Clients from before NBD_OPT_GO know no other.
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect_to_disk();
    client.say(&[request(1, 7, 512, 3), b"abc".to_vec(), request(0, 8, 511, 5)].concat());
    assert_eq!(client.simple_reply(), (0, 7));
    assert_eq!(client.simple_reply(), (0, 8));
    assert_eq!(client.take(5), b"\0abc\0");
    client.say(&request(2, 9, 0, 0));
    assert!(client.is_over(), "a good-bye has no answer");
}

#[test]
fn an_unknown_export_ends_the_old_way_and_is_refused_in_the_new() {
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect();
    let (kind, text) = client.ask_once(GO, &export_query("nowhere", &[]));
    assert_eq!((kind, text.as_str()), (UNKNOWN, "there is no export \"nowhere\""));
    let (kind, _) = client.ask_once(INFO, &export_query("disk@", &[]));
    assert_eq!(kind, UNKNOWN);
    client.say(&option(EXPORT_NAME, b"nowhere"));
    assert!(client.is_over());
}

#[test]
fn a_refused_choice_may_be_followed_by_another() {
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect();
    assert_eq!(client.ask_once(GO, &export_query("nowhere", &[])).0, UNKNOWN);
    let answers = client.ask(GO, &export_query("disk", &[1, 2]));
    let texts: Vec<&[u8]> = answers
        .iter()
        .filter(|(_, data)| data.len() > 14)
        .map(|(_, data)| &data[2..])
        .collect();
    assert_eq!(texts, [b"storaged volume, 1048576 bytes, read and write"]);
    assert!(answers.contains(&(3, b"\0\x01disk".to_vec())), "{answers:?}");
    client.say(&request(3, 1, 0, 0));
    assert_eq!(client.simple_reply(), (0, 1));
}

#[test]
fn the_empty_name_is_an_export_only_if_the_server_says_so() {
    let without = Gateway::start(|_| ());
    assert_eq!(
        without.connect().ask_once(INFO, &export_query("", &[])).0,
        UNKNOWN
    );
    let with = Gateway::start(|settings| settings.default_export = Some("other".into()));
    let answers = with.connect().ask(INFO, &export_query("", &[1]));
    assert!(answers.contains(&(3, b"\0\x01other".to_vec())), "{answers:?}");
}

#[test]
fn contexts_need_structured_replies_and_an_export() {
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect();
    let query = context_query("disk", &["base:allocation"]);
    assert_eq!(client.ask_once(SET_CONTEXTS, &query).0, INVALID);
    assert_eq!(client.ask_once(STRUCTURED_REPLY, b"").0, ACK);
    assert_eq!(
        client
            .ask_once(SET_CONTEXTS, &context_query("nowhere", &["base:allocation"]))
            .0,
        UNKNOWN
    );
    assert_eq!(
        client.ask(LIST_CONTEXTS, &context_query("disk", &[]))[0].1,
        b"\0\0\0\0base:allocation"
    );
    assert_eq!(
        client.ask(SET_CONTEXTS, &context_query("disk", &["base:", "x:y"])),
        [(ACK, vec![])]
    );
    let answers = client.ask(SET_CONTEXTS, &query);
    assert_eq!(answers[0], (META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec()));
}

#[test]
fn a_context_counts_for_the_export_that_it_was_chosen_for() {
    // Otherwise block status would be answered to a client that never asked for it on that export.
    let gateway = Gateway::start(|_| ());
    for (export, error) in [("disk", None), ("other", Some(22))] {
        let mut client = gateway.connect();
        client.ask_once(STRUCTURED_REPLY, b"");
        client.ask(SET_CONTEXTS, &context_query("disk", &["base:allocation"]));
        client.ask(GO, &export_query(export, &[]));
        client.say(&request(7, 5, 0, 1 << 20));
        assert_eq!(client.number::<4>(), 0x668e_33ef);
        let (kind, _cookie, _length) = (client.number::<4>(), client.number::<8>(), client.number::<4>());
        let expected = if error.is_some() {
            1 << 16 | 0x8001
        } else {
            1 << 16 | 5
        };
        assert_eq!(kind, expected, "{export}");
        let first = client.number::<4>();
        assert_eq!(first, error.unwrap_or(1), "the error, or the context");
    }
}

#[test]
fn structured_replies_do_not_follow_extended_headers() {
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect();
    assert_eq!(client.ask_once(STRUCTURED_REPLY, b"").0, ACK);
    assert_eq!(client.ask_once(EXTENDED_HEADERS, b"").0, ACK);
    assert_eq!(client.ask_once(STRUCTURED_REPLY, b"").0, EXTENDED_AGREED);
}

#[test]
fn options_that_make_no_sense_are_answered_and_the_next_one_is_heard() {
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect();
    assert_eq!(client.ask_once(99, b"whatever").0, UNSUPPORTED);
    assert_eq!(client.ask_once(GO, b"\xff").0, INVALID);
    assert_eq!(client.ask_once(LIST, b"data").0, INVALID);
    assert_eq!(client.ask_once(GO, &vec![0; 100_000]).0, TOO_BIG);
    assert_eq!(client.ask_once(STARTTLS, b"").0, POLICY);
    assert_eq!(client.ask(LIST, b"").len(), 3, "two exports and an end");
    assert_eq!(client.ask_once(ABORT, b"").0, ACK);
    assert!(client.is_over());
}

#[test]
fn what_is_no_option_ends_the_handshake() {
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect();
    client.say(&[0x55; 16]);
    assert!(client.is_over());
    let mut client = gateway.connect();
    let mut huge = option(GO, b"");
    huge[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    client.say(&huge);
    assert!(client.is_over(), "four gigabytes are not waited for");
}

#[test]
fn as_many_clients_as_allowed_are_let_in_and_a_place_is_given_back() {
    let gateway = Gateway::start(|settings| settings.connections = 1);
    let mut first = gateway.connect_to_disk();
    let second = std::os::unix::net::UnixStream::connect(gateway.socket()).unwrap();
    let greeting = std::io::Read::read_to_end(&mut &second, &mut Vec::new());
    assert_eq!(greeting.unwrap_or(0), 0, "the second is turned away");
    first.say(&request(2, 0, 0, 0));
    assert!(first.is_over());
    // The place is given back just after the socket is closed: ask until it is there.
    let again = (0..10_000).any(|_| {
        let mut stream = std::os::unix::net::UnixStream::connect(gateway.socket()).unwrap();
        std::io::Read::read_exact(&mut stream, &mut [0; 18]).is_ok()
    });
    assert!(again, "the place of a client that left was not given back");
}

#[test]
fn a_server_that_leaves_answers_what_it_was_asked() {
    let gateway = Gateway::start(|_| ());
    let mut client = gateway.connect_to_disk();
    client.say(&[request(1, 1, 0, 4), b"last".to_vec()].concat());
    assert_eq!(client.simple_reply(), (0, 1));
    gateway.leave();
    assert!(client.is_over());
}

/// What a control socket answers to a question with an empty body: its status, and what follows the headers.
fn ask_control(socket: &std::path::Path, method: &str, path: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let question = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(question.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Clients are told a size once: those of a volume that has grown must connect anew, and those of others must not.
#[test]
fn clients_of_one_export_are_made_to_connect_anew_and_have_their_answers_first() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control.sock");
    let gateway = Gateway::start(|settings| settings.control = Some(control.clone()));
    let (status, body) = ask_control(&control, "POST", "/v1/exports/disk/disconnect");
    assert_eq!(status, 404, "{body}");
    let mut clients = [gateway.connect_to_disk(), gateway.connect_to_disk()];
    let mut other = gateway.connect();
    other.say(&option(EXPORT_NAME, b"other"));
    other.take(10);
    for client in &mut clients {
        client.say(&request(0, 7, 0, 512));
        client.take(16 + 512);
    }
    let (status, body) = ask_control(&control, "POST", "/v1/exports/disk/disconnect");
    assert_eq!((status, body.as_str()), (200, r#"{"connections":2}"#));
    for client in &mut clients {
        assert!(client.is_over());
    }
    other.say(&request(0, 8, 0, 512));
    other.take(16 + 512);
    let mut again = gateway.connect_to_disk();
    again.say(&request(0, 9, 0, 512));
    again.take(16 + 512);
    let (status, body) = ask_control(&control, "POST", "/v1/exports/@/disconnect");
    assert_eq!(status, 404, "{body}");
}
