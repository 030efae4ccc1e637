//! The bytes are an interface: golden, bounded, and safe whatever comes.

use proptest::prelude::*;

use super::*;

fn question() -> Question {
    Question {
        id: TokenId(0x0102_0304_0506_0708),
        secret: Secret([0x55; 16]),
        name: "host-2".to_owned(),
    }
}

fn bundle() -> Bundle {
    Bundle {
        cluster: [9; 16],
        certificate: "C".to_owned(),
        key: "K".to_owned(),
        etcd: EtcdAccess {
            endpoints: vec!["http://a:1".to_owned(), "http://b:1".to_owned()],
            prefix: "/p".to_owned(),
            ca: Some(b"ca".to_vec()),
            certificate: Some(b"ec".to_vec()),
            key: Some(b"ek".to_vec()),
            user: Some("u".to_owned()),
            password: Some(b"pw".to_vec()),
        },
    }
}

fn asked(bytes: &[u8]) -> Result<Question, MessageError> {
    let (head, name) = bytes.split_first_chunk().ok_or(MessageError::Malformed)?;
    Question::decode(head, name)
}

fn answered(bytes: &[u8]) -> Result<Answer, MessageError> {
    let (head, body) = bytes.split_first_chunk().ok_or(MessageError::Malformed)?;
    Answer::decode(head, body)
}

#[test]
fn a_question_keeps_its_golden_bytes() {
    let golden = b"sdjq\x01\x00\x06\x00\x08\x07\x06\x05\x04\x03\x02\x01UUUUUUUUUUUUUUUUhost-2";
    assert_eq!(question().encode().unwrap(), golden);
    assert_eq!(asked(golden).unwrap(), question());
}

#[test]
fn answers_keep_their_golden_bytes() {
    let refused = Answer::Refused(Refusal::Used, "no".to_owned());
    let golden = b"sdja\x01\x00\x04\x00\x02\x00\x00\x00no";
    assert_eq!(refused.encode().unwrap(), golden);
    let small = Bundle {
        etcd: EtcdAccess::default(),
        ..bundle()
    };
    let golden = b"sdja\x01\x00\x00\x00\x32\x00\x00\x00\
        \x01\x00\x00\x00\x10\x00\x00\x00\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\
        \x02\x00\x00\x00\x01\x00\x00\x00C\x03\x00\x00\x00\x01\x00\x00\x00K\x05\x00\x00\x00\x00\x00\x00\x00";
    assert_eq!(Answer::Granted(Box::new(small)).encode().unwrap(), golden);
}

#[test]
fn every_answer_comes_back() {
    let refusals = Refusal::ALL.map(|(refusal, _)| Answer::Refused(refusal, "why".to_owned()));
    for answer in refusals.into_iter().chain([Answer::Granted(Box::new(bundle()))]) {
        assert_eq!(answered(&answer.encode().unwrap()), Ok(answer));
    }
}

#[test]
fn what_is_too_long_or_of_another_kind_is_refused() {
    let long = Question {
        name: "a".repeat(NAME_LENGTH_MAX + 1),
        ..question()
    };
    assert_eq!(long.encode(), Err(MessageError::Malformed));
    let good = question().encode().unwrap();
    for (at, byte, expected) in [
        (0, b'x', MessageError::Foreign),
        (4, 2, MessageError::Version(2)),
        (6, 64, MessageError::Malformed),
        (6, 5, MessageError::Malformed),
        (32, b' ', MessageError::Malformed),
        (32, 0xff, MessageError::Malformed),
    ] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        assert_eq!(asked(&bytes), Err(expected), "{at}");
    }
    let mut head = *b"sdja\x01\x00\x00\x00\x00\x00\x00\x00";
    head[8..].copy_from_slice(&u32::try_from(BODY_LENGTH_MAX + 1).unwrap().to_le_bytes());
    assert_eq!(Answer::body_length(&head), Err(MessageError::Malformed));
    assert_eq!(
        answered(b"sdja\x01\x00\x07\x00\x00\x00\x00\x00"),
        Err(MessageError::Malformed)
    );
    // A grant without an authority is none.
    assert_eq!(
        answered(b"sdja\x01\x00\x00\x00\x00\x00\x00\x00"),
        Err(MessageError::Malformed)
    );
}

#[test]
fn a_field_that_nobody_knows_is_passed_over() {
    let mut bytes = Answer::Granted(Box::new(bundle())).encode().unwrap();
    let more = b"\x63\x00\x00\x00\x01\x00\x00\x00x";
    bytes.extend_from_slice(more);
    let length = u32::try_from(bytes.len() - ANSWER_LENGTH).unwrap();
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    assert_eq!(answered(&bytes), Ok(Answer::Granted(Box::new(bundle()))));
}

proptest! {
    #[test]
    fn any_bytes_are_safe_to_read(
        question_tail in prop::collection::vec(any::<u8>(), 0..100),
        answer_tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = b"sdjq\x01\x00".to_vec();
        bytes.extend_from_slice(&question_tail);
        _ = asked(&bytes);
        let mut bytes = b"sdja\x01\x00\x00\x00".to_vec();
        bytes.extend_from_slice(&u32::try_from(answer_tail.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&answer_tail);
        _ = answered(&bytes);
    }
}
