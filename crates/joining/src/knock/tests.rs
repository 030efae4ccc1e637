//! The secret is shown to the cluster of the token and to nobody else, however he poses.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;

use super::*;
use crate::door::Door;
use crate::message::EtcdAccess;
use crate::token::{Secret, TokenId};

struct Authority {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&pair).unwrap().pem();
        let key = pair.serialize_pem();
        Self {
            certificate,
            key,
            issuer: Issuer::new(params, pair),
        }
    }

    fn door(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Door {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let certificate = params.signed_by(&pair, &self.issuer).unwrap().pem();
        Door::from_pem(&self.certificate, &certificate, &pair.serialize_pem()).unwrap()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap())
    }

    fn bundle(&self) -> Box<Bundle> {
        Box::new(Bundle {
            cluster: [1; 16],
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            etcd: EtcdAccess::default(),
        })
    }
}

fn token(authority: Fingerprint, address: &str) -> Token {
    Token {
        id: TokenId(7),
        authority,
        secret: Secret([3; 16]),
        addresses: vec![address.to_owned()],
    }
}

/// Somebody who stands at this door and gives this answer; what he heard, and what the one who knocks got.
async fn met(
    door: Door,
    answer: Answer,
    authority: Fingerprint,
) -> (io::Result<Question>, Result<Admitted, KnockError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let host = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (question, asker) = door.hear(stream).await?;
        // Who knocks may have gone.
        let _ = asker.answer(&answer).await;
        Ok(question)
    };
    let token = token(authority, &address);
    tokio::join!(host, knock(&token, "host-2"))
}

#[tokio::test]
async fn the_cluster_of_the_token_hears_the_secret_and_hands_over() {
    let ours = Authority::new();
    let (heard, got) = met(
        ours.door(NAME, |_| {}),
        Answer::Granted(ours.bundle()),
        ours.fingerprint(),
    )
    .await;
    let question = heard.unwrap();
    assert_eq!((question.id, question.name.as_str()), (TokenId(7), "host-2"));
    assert_eq!(question.secret, Secret([3; 16]));
    let admitted = got.unwrap();
    assert_eq!(admitted.bundle, ours.bundle());
    assert_eq!(admitted.own_address.to_string(), "127.0.0.1");
}

#[tokio::test]
async fn whoever_cannot_prove_that_he_is_of_the_cluster_hears_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // The authority's certificate is no secret: somebody shows it beside one that it did not sign.
    let pair = KeyPair::generate().unwrap();
    let forged = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let forged = forged.signed_by(&pair, &theirs.issuer).unwrap().pem();
    let forged = Door::from_pem(&ours.certificate, &forged, &pair.serialize_pem()).unwrap();
    let front_end = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    for (what, door) in [
        ("another cluster's", theirs.door(NAME, |_| {})),
        ("a forged one", forged),
        (
            "a node's, which is no door's",
            ours.door("node-1.nodes.storaged", |_| {}),
        ),
        ("one that is for clients", ours.door(NAME, front_end)),
    ] {
        let answer = Answer::Granted(ours.bundle());
        let (heard, got) = met(door, answer, ours.fingerprint()).await;
        assert!(heard.is_err(), "{what}");
        assert!(matches!(got, Err(KnockError::Impostor { .. })), "{what}: {got:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_time_is_told_as_a_matter_of_clocks() {
    let ours = Authority::new();
    let door = ours.door(NAME, |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2000, 1, 2);
    });
    let (heard, got) = met(door, Answer::Granted(ours.bundle()), ours.fingerprint()).await;
    assert!(heard.is_err());
    assert!(matches!(got, Err(KnockError::Clock { .. })), "{got:?}");
}

#[tokio::test]
async fn another_authority_than_the_tokens_is_not_taken_even_from_the_cluster() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let answer = Answer::Granted(theirs.bundle());
    let (_, got) = met(ours.door(NAME, |_| {}), answer, ours.fingerprint()).await;
    assert!(matches!(got, Err(KnockError::Lost { .. })), "{got:?}");
}

#[tokio::test]
async fn a_refusal_comes_through_in_words() {
    let ours = Authority::new();
    let answer = Answer::Refused(Refusal::Expired, "too late".to_owned());
    let (_, got) = met(ours.door(NAME, |_| {}), answer, ours.fingerprint()).await;
    let Err(KnockError::Refused { refusal, sentence }) = got else {
        panic!("it was not refused: {got:?}");
    };
    assert_eq!((refusal, sentence.as_str()), (Refusal::Expired, "too late"));
}

#[tokio::test]
async fn the_next_address_is_tried_where_nobody_is_at_the_first() {
    let ours = Authority::new();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let alone = token(ours.fingerprint(), &closed);
    let error = knock(&alone, "host-2").await.unwrap_err();
    assert!(matches!(error, KnockError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains(&closed), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let both = Token {
        addresses: vec![closed, open.clone()],
        ..alone
    };
    let door = ours.door(NAME, |_| {});
    let host = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (_, asker) = door.hear(stream).await.unwrap();
        asker.answer(&Answer::Granted(ours.bundle())).await.unwrap();
    };
    let ((), got) = tokio::join!(host, knock(&both, "host-2"));
    assert_eq!(got.unwrap().door, open);
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_leaves_a_doubt_that_is_told() {
    let ours = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = ours.door(NAME, |_| {});
    let host = async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(door.hear(stream).await.unwrap());
    };
    let token = token(ours.fingerprint(), &address);
    let limit = Duration::from_secs(20);
    let ((), got) = tokio::join!(host, timeout(limit, knock(&token, "host-2")));
    let error = got.unwrap().unwrap_err().to_string();
    assert!(error.contains("may be used up"), "{error}");
}
