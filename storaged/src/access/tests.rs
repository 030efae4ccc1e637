//! A token is good for what it was made for, until it is taken back or its time is over.

use coordination::Embedded;

use super::*;

fn tokens() -> AccessTokens {
    let store = Arc::new(Embedded::in_memory().unwrap());
    let identities = Arc::new(Identities::new(store.clone()));
    AccessTokens::new(store, identities, NodeId(1))
}

#[tokio::test]
async fn the_bearer_of_a_token_is_known_until_it_is_taken_back() {
    let tokens = tokens();
    let made = tokens
        .make("pve", AccessRole::Operator, LIMIT_DEFAULT)
        .await
        .unwrap();
    let text = made.word.reveal();
    let caller = tokens.judge(&text).await.unwrap();
    assert_eq!((caller.name.as_str(), caller.role), ("pve", AccessRole::Operator));
    let all = tokens.all().await.unwrap();
    assert_eq!(all.len(), 1);
    assert!(
        !format!("{all:?}").contains(&hex(&made.word.secret)),
        "the secret is kept"
    );
    tokens.revoke(made.word.id).await.unwrap();
    assert!(matches!(tokens.judge(&text).await, Err(NotKnown::Wrong)));
    let again = tokens.revoke(made.word.id).await.unwrap_err();
    assert!(matches!(again, OperationError::NotFound(_)), "{again}");
}

#[tokio::test]
async fn a_wrong_secret_and_a_wrong_number_are_told_alike() {
    let tokens = tokens();
    let made = tokens.make("a", AccessRole::Viewer, LIMIT_DEFAULT).await.unwrap();
    let mut wrong = made.word.clone();
    wrong.secret[31] ^= 1;
    let mut stranger = made.word.clone();
    stranger.id.0 ^= 1;
    for word in [wrong, stranger] {
        let refused = tokens.judge(&word.reveal()).await.unwrap_err();
        assert!(matches!(refused, NotKnown::Wrong), "{refused}");
    }
    for text in ["", "sdaccess_", "Bearer x", "sdjoinabc"] {
        assert!(matches!(tokens.judge(text).await, Err(NotKnown::Wrong)), "{text}");
    }
}

#[tokio::test]
async fn a_token_whose_time_is_over_says_so() {
    let tokens = tokens();
    let made = tokens.make("a", AccessRole::Viewer, LIMIT_MIN).await.unwrap();
    let text = made.word.reveal();
    let deadline = Instant::now() + LIMIT_MIN * 10;
    let refused = loop {
        match tokens.judge(&text).await {
            Err(refused) => break refused,
            Ok(_) if Instant::now() > deadline => panic!("it never expires"),
            Ok(_) => tokio::time::sleep((deadline - Instant::now()).min(LIMIT_MIN / 20)).await,
        }
    };
    assert!(refused.to_string().contains("expired"), "{refused}");
}

#[tokio::test]
async fn a_token_that_another_node_made_or_took_back_is_known_to_be() {
    let tokens = tokens();
    let other = AccessTokens::new(tokens.store.clone(), tokens.identities.clone(), NodeId(2));
    assert!(matches!(
        tokens
            .judge(&format!("sdaccess_{:016x}_{}", 1, "00".repeat(32)))
            .await,
        Err(NotKnown::Wrong)
    ));
    let made = other.make("a", AccessRole::Viewer, LIMIT_DEFAULT).await.unwrap();
    let text = made.word.reveal();
    // What is known is as old as if the time had passed.
    age(&tokens, LOOK_AGAIN * 2).await;
    tokens.judge(&text).await.unwrap();
    other.revoke(made.word.id).await.unwrap();
    tokens.judge(&text).await.unwrap();
    age(&tokens, FRESH * 2).await;
    assert!(matches!(tokens.judge(&text).await, Err(NotKnown::Wrong)));
}

async fn age(tokens: &AccessTokens, by: Duration) {
    let mut known = tokens.known.lock().await;
    known.read = known.read.and_then(|read| read.checked_sub(by));
}

#[tokio::test]
async fn what_is_no_name_or_no_time_is_refused_in_words() {
    let tokens = tokens();
    let long = "a".repeat(NAME_LENGTH_MAX + 1);
    for (name, limit) in [
        ("", LIMIT_DEFAULT),
        (" ", LIMIT_DEFAULT),
        ("a\n", LIMIT_DEFAULT),
        (&long, LIMIT_DEFAULT),
        ("a", Duration::ZERO),
        ("a", LIMIT_MAX + LIMIT_MIN),
    ] {
        let error = tokens.make(name, AccessRole::Viewer, limit).await.err().unwrap();
        assert!(
            matches!(error, OperationError::Invalid(_)),
            "{name:?} {limit:?}: {error}"
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    crate::cluster::identity::hexadecimal(bytes)
}
