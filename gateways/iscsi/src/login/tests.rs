//! Dialogues of logins, with and without proof, and with rules broken.
use super::chap::{Algorithm, answer_to};
use super::*;
use crate::wire::text::{binary, hexadecimal};
use proptest::prelude::*;

fn request(stage: u8, next: Option<u8>) -> LoginRequest {
    LoginRequest {
        transit: next.is_some(),
        continues: false,
        stage,
        next_stage: next.unwrap_or(0),
        version_min: 0,
        isid: [0x80, 0, 0, 0, 0, 1],
        tsih: 0,
        connection: 0,
    }
}

fn login(chap: bool, mutual: bool) -> Login {
    let credentials = |user: &str, secret: &str| Credentials {
        user: user.to_owned(),
        secret: secret.to_owned(),
    };
    let demands = Demands {
        chap: chap.then(|| credentials("alice", "secret-of-alice")),
        mutual: mutual.then(|| credentials("target", "secret-of-target")),
        portal_group: Some(1),
    };
    Login::new(demands, [7; 33])
}

fn text(answer: &Answer) -> Text {
    let Answer::Text { text, .. } = answer else {
        panic!("{answer:?} is no text")
    };
    Text::parse(text).unwrap()
}

/// Both first requests of a CHAP login; gives the answer with the challenge.
fn challenged(login: &mut Login, algorithms: &str) -> Text {
    let first = login.take(&request(0, Some(1)), b"AuthMethod=CHAP,None\0");
    assert_eq!(text(&first).get("AuthMethod"), Some("CHAP"));
    let second = login.take(&request(0, None), format!("CHAP_A={algorithms}\0").as_bytes());
    text(&second)
}

fn proven(challenge: &Text, algorithm: Algorithm, secret: &str, more: &str) -> Vec<u8> {
    let identifier = challenge.get("CHAP_I").unwrap().parse().unwrap();
    let bytes = binary(challenge.get("CHAP_C").unwrap()).unwrap();
    let answer = hexadecimal(&answer_to(algorithm, identifier, secret.as_bytes(), &bytes));
    format!("CHAP_N=alice\0CHAP_R={answer}\0{more}").into_bytes()
}

#[test]
fn without_demands_both_stages_may_be_passed_at_once() {
    let mut login = login(false, false);
    let answer = login.take(
        &request(1, Some(3)),
        b"HeaderDigest=None\0MaxRecvDataSegmentLength=8192\0",
    );
    let Answer::Text {
        transit: true,
        stages: (1, 3),
        ..
    } = answer
    else {
        panic!("{answer:?}")
    };
    let text = text(&answer);
    assert_eq!(text.get("TargetPortalGroupTag"), Some("1"));
    assert_eq!(text.get("HeaderDigest"), Some("None"));
    assert!(text.get("MaxRecvDataSegmentLength").is_some());
    assert_eq!(login.parameters().send_max, 8192);
}

#[test]
fn each_algorithm_proves_who_it_is_and_the_strongest_is_chosen() {
    for (offered, algorithm, code) in [
        ("5", Algorithm::Md5, "5"),
        ("5,6", Algorithm::Sha1, "6"),
        ("5,6,7", Algorithm::Sha256, "7"),
        ("8,5", Algorithm::Sha3, "8"),
    ] {
        let mut login = login(true, false);
        let challenge = challenged(&mut login, offered);
        assert_eq!(challenge.get("CHAP_A"), Some(code));
        let answer = login.take(
            &request(0, Some(1)),
            &proven(&challenge, algorithm, "secret-of-alice", ""),
        );
        assert!(matches!(answer, Answer::Text { transit: true, .. }), "{answer:?}");
        assert_eq!(login.proof(), Proof::Given);
        assert!(matches!(
            login.take(&request(1, Some(3)), b""),
            Answer::Text { transit: true, .. }
        ));
    }
}

#[test]
fn a_wrong_secret_no_proof_and_a_stage_skipped_are_refused() {
    let mut wrong = login(true, false);
    let challenge = challenged(&mut wrong, "5");
    let answer = wrong.take(
        &request(0, Some(1)),
        &proven(&challenge, Algorithm::Md5, "another secret", ""),
    );
    assert_eq!(answer, Answer::Refuse(Refusal::Authentication));
    let answer = login(true, false).take(&request(1, Some(3)), b"");
    assert_eq!(answer, Answer::Refuse(Refusal::Authentication));
    let answer = login(true, false).take(&request(0, Some(1)), b"AuthMethod=None\0");
    assert_eq!(answer, Answer::Refuse(Refusal::Authentication));
    let answer = login(true, false).take(&request(0, Some(3)), b"");
    assert!(matches!(
        answer,
        Answer::Refuse(_) | Answer::Text { transit: false, .. }
    ));
}

#[test]
fn the_target_proves_itself_and_does_not_answer_its_own_challenge() {
    let mut good = login(true, true);
    let challenge = challenged(&mut good, "7");
    let more = "CHAP_I=9\0CHAP_C=0x0102030405060708090a0b0c0d0e0f10\0";
    let proof = proven(&challenge, Algorithm::Sha256, "secret-of-alice", more);
    let answer = text(&good.take(&request(0, Some(1)), &proof));
    let own: Vec<u8> = (1..=16).collect();
    let expected = hexadecimal(&answer_to(Algorithm::Sha256, 9, b"secret-of-target", &own));
    assert_eq!(
        (answer.get("CHAP_N"), answer.get("CHAP_R")),
        (Some("target"), Some(expected.as_str()))
    );

    let mut reflected = login(true, true);
    let challenge = challenged(&mut reflected, "7");
    let more = format!("CHAP_I=9\0CHAP_C={}\0", challenge.get("CHAP_C").unwrap());
    let proof = proven(&challenge, Algorithm::Sha256, "secret-of-alice", &more);
    assert_eq!(
        reflected.take(&request(0, Some(1)), &proof),
        Answer::Refuse(Refusal::Authentication)
    );

    let mut asked_in_vain = login(true, false);
    let challenge = challenged(&mut asked_in_vain, "7");
    let more = "CHAP_I=9\0CHAP_C=0x0102030405060708090a0b0c0d0e0f10\0";
    let proof = proven(&challenge, Algorithm::Sha256, "secret-of-alice", more);
    assert_eq!(
        asked_in_vain.take(&request(0, Some(1)), &proof),
        Answer::Refuse(Refusal::Authentication)
    );
}

#[test]
fn a_negotiation_ends_even_if_the_initiator_does_not_end_it() {
    let mut login = login(false, false);
    let refused = (0..100).any(|_| login.take(&request(1, None), b"") == Answer::Refuse(Refusal::Initiator));
    assert!(refused);
    let mut endless = self::login(false, false);
    let go_on = LoginRequest {
        continues: true,
        ..request(1, None)
    };
    let refused = (0..100).any(|_| matches!(endless.take(&go_on, &[b'a'; 8192]), Answer::Refuse(_)));
    assert!(refused);
}

#[test]
fn the_first_request_must_say_who_wants_what() {
    let names = |bytes: &[u8]| Names::of(&Text::parse(bytes).unwrap());
    assert_eq!(names(b"TargetName=iqn.t\0"), Err(Refusal::Missing));
    assert_eq!(names(b"InitiatorName=iqn.i\0"), Err(Refusal::Missing));
    assert_eq!(
        names(b"InitiatorName=iqn.i\0SessionType=Other\0"),
        Err(Refusal::SessionType)
    );
    let discovery = names(b"InitiatorName=iqn.I\0SessionType=Discovery\0").unwrap();
    assert_eq!((discovery.initiator.as_str(), discovery.target), ("iqn.i", None));
}

proptest! {
    #[test]
    fn any_dialogue_ends_in_answers(
        steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u8..4, 0u8..4, "[A-Za-z_=,0-9\0]{0,80}"), 0..12),
        chap in any::<bool>(),
    ) {
        let mut login = login(chap, chap);
        for (transit, continues, stage, next_stage, text) in steps {
            let request = LoginRequest { transit, continues, next_stage, ..request(stage, None) };
            let answer = login.take(&request, text.as_bytes());
            if let Answer::Text { transit: true, stages, .. } = answer {
                prop_assert!(stages.1 > stages.0);
                prop_assert!(!chap, "nobody proves anything with random text");
            }
        }
    }
}
