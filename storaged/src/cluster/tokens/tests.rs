//! A token lets one machine in, within its time, and each way not to be let in has its own sentence.

use std::collections::BTreeSet;

use coordination::Embedded;

use super::*;

fn tokens() -> (Arc<Embedded>, Tokens) {
    let store = Arc::new(Embedded::in_memory().unwrap());
    let identities = Arc::new(Identities::new(store.clone()));
    let tokens = Tokens::new(store.clone(), identities, NodeId(1));
    (store, tokens)
}

async fn refused(tokens: &Tokens, id: TokenId, secret: &Secret) -> (Refusal, String) {
    match tokens.look(id, secret).await {
        Err(TokenRefused::No(refusal, sentence)) => (refusal, sentence),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_used_once_and_the_second_bearer_is_told_by_whom() {
    let (_, tokens) = tokens();
    let made = tokens.make(LIMIT_DEFAULT).await.unwrap();
    // Two look at the same time: both find it good, one is let in.
    let first = tokens.look(made.id, &made.secret).await.unwrap();
    let second = tokens.look(made.id, &made.secret).await.unwrap();
    tokens.use_up(first, "host-2", "10.0.0.2").await.unwrap();
    let late = tokens.use_up(second, "host-3", "10.0.0.3").await.unwrap_err();
    assert!(matches!(late, TokenRefused::No(Refusal::Used, _)), "{late}");
    let (refusal, sentence) = refused(&tokens, made.id, &made.secret).await;
    assert_eq!(refusal, Refusal::Used);
    assert!(
        sentence.contains("host-2") && sentence.contains("10.0.0.2"),
        "{sentence}"
    );
    let (_, record) = tokens.all().await.unwrap().remove(0);
    assert_eq!(record.used.unwrap().name, "host-2");
}

#[tokio::test]
async fn the_store_holds_the_hash_and_never_the_secret() {
    let (store, tokens) = tokens();
    let made = tokens.make(LIMIT_DEFAULT).await.unwrap();
    let entry = store.range(JOIN_TOKENS).await.unwrap().entries.remove(0);
    let record: JoinTokenRecord = records::decode(&entry).unwrap();
    assert_eq!(record.hash, made.secret.hash(made.id));
    assert!(entry.lease.is_some());
    let everything = store.range("/storaged/").await.unwrap().entries;
    let secret = serde_json::to_vec(&made.secret.0).unwrap();
    for entry in everything {
        let found = entry.value.windows(secret.len()).any(|window| window == secret);
        assert!(!found, "{} holds the secret", entry.key);
    }
}

#[tokio::test]
async fn a_wrong_secret_is_told_nothing_else_and_uses_nothing_up() {
    let (_, tokens) = tokens();
    let made = tokens.make(LIMIT_DEFAULT).await.unwrap();
    let mut wrong = made.secret.clone();
    wrong.0[15] ^= 1;
    assert_eq!(refused(&tokens, made.id, &wrong).await.0, Refusal::Wrong);
    let good = tokens.look(made.id, &made.secret).await.unwrap();
    tokens.use_up(good, "host-2", "10.0.0.2").await.unwrap();
    let (refusal, sentence) = refused(&tokens, made.id, &wrong).await;
    assert_eq!(refusal, Refusal::Wrong);
    assert!(!sentence.contains("host-2"), "{sentence}");
}

#[test]
fn a_token_is_good_until_its_end_and_not_at_it() {
    let secret = Secret([4; 16]);
    let record = JoinTokenRecord {
        hash: secret.hash(TokenId(1)),
        node: NodeId(1),
        made_ms: 0,
        expires_ms: 5000,
        used: None,
    };
    assert!(judge(TokenId(1), &record, &secret, 4999).is_ok());
    for (now, says) in [(5000, "expired 0 s ago"), (9000, "expired 4 s ago")] {
        let error = judge(TokenId(1), &record, &secret, now).unwrap_err();
        assert!(matches!(error, TokenRefused::No(Refusal::Expired, _)));
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_was_taken_back_or_never_made_is_unknown() {
    let (store, tokens) = tokens();
    let made = tokens.make(LIMIT_DEFAULT).await.unwrap();
    let good = tokens.look(made.id, &made.secret).await.unwrap();
    tokens.revoke(made.id).await.unwrap();
    assert_eq!(refused(&tokens, made.id, &made.secret).await.0, Refusal::Unknown);
    // Somebody who was being let in meanwhile is not.
    let late = tokens.use_up(good, "host-2", "10.0.0.2").await.unwrap_err();
    assert!(matches!(late, TokenRefused::No(Refusal::Used, _)), "{late}");
    let again = tokens.revoke(made.id).await.unwrap_err();
    assert!(matches!(again, OperationError::NotFound(_)), "{again}");
    assert_eq!(
        refused(&tokens, TokenId(1), &made.secret).await.0,
        Refusal::Unknown
    );
    let events = store.range("/storaged/event/").await.unwrap().entries;
    let kinds: BTreeSet<String> = events
        .iter()
        .map(|entry| records::decode::<records::EventRecord>(entry).unwrap().kind)
        .collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
}

#[tokio::test]
async fn a_time_that_makes_no_sense_is_refused() {
    let (_, tokens) = tokens();
    for limit in [Duration::ZERO, LIMIT_MAX + Duration::from_secs(1)] {
        let error = tokens.make(limit).await.unwrap_err();
        assert!(matches!(error, OperationError::Invalid(_)), "{error}");
    }
    assert!(tokens.all().await.unwrap().is_empty());
}

#[tokio::test]
async fn there_is_an_end_to_the_number_of_tokens() {
    let (_, tokens) = tokens();
    for _ in 0..TOKENS_MAX {
        tokens.make(LIMIT_DEFAULT).await.unwrap();
    }
    let error = tokens.make(LIMIT_DEFAULT).await.unwrap_err();
    assert!(error.to_string().contains("cluster revoke"), "{error}");
}
