//! What every coordination store promises, as the trait says it.

use std::time::Duration;

use coordination::engine::{KEY_LENGTH_MAX, VALUE_LENGTH_MAX};
use coordination::store::TRANSACTION_STEPS_MAX;
use coordination::{Compare, Coordination, CoordinationError, Event, Outcome, Revision, Transaction};

/// Long enough that no slow machine lets it lapse within a test.
pub(crate) const LONG: Duration = Duration::from_hours(1);
/// Lapses while a test waits for it.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

/// Nothing here takes that long unless it hangs.
const LIMIT: Duration = Duration::from_mins(1);

/// Waits for something, and says what if it does not come.
pub(crate) async fn in_time<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, wanted).await {
        Ok(came) => came,
        Err(late) => panic!("waited in vain for {what}: {late}"),
    }
}

/// Writes a key.
pub(crate) async fn put(store: &dyn Coordination, key: &str, value: &str) -> Revision {
    committed(store.commit(Transaction::new().put(key, value.as_bytes())).await)
}

/// The revision of what must have been committed.
pub(crate) fn committed(outcome: Result<Outcome, CoordinationError>) -> Revision {
    match outcome {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

async fn of_two_that_race_for_a_key_one_wins(store: &dyn Coordination) {
    let attempt = |value: &'static [u8]| {
        store.commit(
            Transaction::new()
                .when(Compare::Absent("/storaged/race".to_owned()))
                .put("/storaged/race", value),
        )
    };
    let (a, b) = tokio::join!(attempt(b"a"), attempt(b"b"));
    let winners = [&a, &b]
        .iter()
        .filter(|o| matches!(o, Ok(Outcome::Committed(_))))
        .count();
    assert_eq!(winners, 1, "{a:?} {b:?}");
    let value = store.get("/storaged/race").await.unwrap().unwrap().value;
    assert_eq!(
        &*value,
        if matches!(a, Ok(Outcome::Committed(_))) {
            b"a"
        } else {
            b"b"
        }
    );
}

async fn a_range_has_its_prefix_only_and_is_in_order(store: &dyn Coordination) {
    for key in ["/storaged/r/b", "/storaged/r/a", "/storaged/ra", "/storaged/q/z"] {
        put(store, key, "x").await;
    }
    let range = store.range("/storaged/r/").await.unwrap();
    let keys: Vec<_> = range.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["/storaged/r/a", "/storaged/r/b"]);
}

async fn a_watch_tells_every_change_once_from_the_revision_that_was_asked(store: &dyn Coordination) {
    let before = put(store, "/storaged/w/a", "0").await;
    let first = put(store, "/storaged/w/a", "1").await;
    let mut watch = store.watch("/storaged/w/", before).await.unwrap();
    let elsewhere = put(store, "/storaged/elsewhere", "x").await;
    let second = committed(
        store
            .commit(
                Transaction::new()
                    .delete("/storaged/w/a")
                    .put("/storaged/w/b", *b"2"),
            )
            .await,
    );
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (first, 1));
    // A change elsewhere tells how far the watch is, so that one can wait for a revision.
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (elsewhere, 0));
    let batch = watch.next().await.unwrap();
    assert_eq!(batch.revision, second);
    assert_eq!(batch.events[0], Event::Deleted("/storaged/w/a".to_owned()));
    assert!(matches!(&batch.events[1], Event::Put(entry) if &*entry.value == b"2"));
}

async fn a_lease_that_nobody_keeps_takes_its_key_and_watchers_hear_of_it(store: &dyn Coordination) {
    let lease = store.grant_lease(SHORT).await.unwrap();
    let revision = committed(
        store
            .commit(Transaction::new().put_leased("/storaged/lease/a", *b"1", lease))
            .await,
    );
    let mut watch = store.watch("/storaged/lease/", revision).await.unwrap();
    let batch = watch.next().await.unwrap();
    assert_eq!(batch.events, [Event::Deleted("/storaged/lease/a".to_owned())]);
    assert_eq!(store.get("/storaged/lease/a").await.unwrap(), None);
    assert_eq!(store.keep_lease(lease).await, Err(CoordinationError::NoLease));
}

async fn a_revoked_lease_takes_its_keys_at_once(store: &dyn Coordination) {
    let lease = store.grant_lease(LONG).await.unwrap();
    committed(
        store
            .commit(Transaction::new().put_leased("/storaged/revoke/a", *b"1", lease))
            .await,
    );
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.get("/storaged/revoke/a").await.unwrap(), None);
    // Again: nothing to do.
    store.revoke_lease(lease).await.unwrap();
}

async fn a_transaction_whose_condition_fails_changes_nothing_and_says_where_the_store_was(
    store: &dyn Coordination,
) {
    let made = put(store, "/storaged/c/a", "1").await;
    let changed = put(store, "/storaged/c/a", "2").await;
    let attempts = [
        Compare::Absent("/storaged/c/a".to_owned()),
        Compare::Present("/storaged/c/none".to_owned()),
        Compare::Modified("/storaged/c/a".to_owned(), made),
        Compare::Created("/storaged/c/a".to_owned(), changed),
        // A key that does not exist was made at no revision, zero neither.
        Compare::Modified("/storaged/c/none".to_owned(), Revision(0)),
        Compare::Created("/storaged/c/none".to_owned(), Revision(0)),
        Compare::Modified("/storaged/c/a".to_owned(), Revision(u64::MAX)),
    ];
    for compare in attempts {
        let transaction = Transaction::new()
            .when(compare.clone())
            .put("/storaged/c/a", *b"3")
            .put("/storaged/c/b", *b"3");
        match store.commit(transaction).await.unwrap() {
            Outcome::Conflict(at) => assert!(at >= changed, "{compare:?}"),
            Outcome::Committed(_) => panic!("{compare:?} does not hold"),
        }
    }
    let range = store.range("/storaged/c/").await.unwrap();
    let [entry] = range.entries.as_slice() else {
        panic!("{range:?}")
    };
    assert_eq!(
        (&*entry.value, entry.created, entry.modified),
        (b"2".as_slice(), made, changed)
    );
    assert!(range.revision >= changed);
    let holds = Transaction::new()
        .when(Compare::Modified("/storaged/c/a".to_owned(), changed))
        .when(Compare::Created("/storaged/c/a".to_owned(), made))
        .when(Compare::Present("/storaged/c/a".to_owned()))
        .when(Compare::Absent("/storaged/c/b".to_owned()))
        .delete("/storaged/c/a");
    assert!(committed(store.commit(holds).await) > changed);
    assert_eq!(store.get("/storaged/c/a").await.unwrap(), None);
}

async fn a_range_of_many_keys_is_complete_and_of_one_moment(store: &dyn Coordination) {
    for hundred in 0..7 {
        let keys = (0..100).map(|number| format!("/storaged/many/{hundred}{number:02}"));
        let transaction = keys.fold(Transaction::new(), |all, key| all.put(key, *b"x"));
        committed(store.commit(transaction).await);
    }
    let range = store.range("/storaged/many/").await.unwrap();
    assert_eq!(range.entries.len(), 700);
    assert!(range.entries.is_sorted_by(|a, b| a.key < b.key));
    let all = store.range("/storaged/").await.unwrap();
    // What a store keeps for itself is not shown.
    assert!(
        all.entries.iter().all(|entry| !entry.key.contains("etcd")),
        "{all:?}"
    );
    assert!(all.revision >= range.revision);
}

async fn what_breaks_a_limit_is_refused_in_words_and_changes_nothing(store: &dyn Coordination) {
    let before = store.range("/storaged/").await.unwrap().revision;
    let steps = |count: usize| {
        let keys = (0..count).map(|number| format!("/storaged/limit/{number}"));
        keys.fold(Transaction::new(), |all, key| all.put(key, *b"x"))
    };
    let conditions = (0..=TRANSACTION_STEPS_MAX).fold(steps(1), |all, number| {
        all.when(Compare::Absent(format!("/storaged/limit/{number}")))
    });
    let large: Vec<u8> = vec![0; VALUE_LENGTH_MAX + 1];
    let much = (0..6).fold(Transaction::new(), |all, number| {
        all.put(format!("/storaged/limit/{number}"), &large[1..])
    });
    for transaction in [
        steps(TRANSACTION_STEPS_MAX + 1),
        conditions,
        much,
        Transaction::new().put("/storaged/limit/a", large.as_slice()),
        Transaction::new()
            .put("/storaged/limit/a", *b"1")
            .delete("/storaged/limit/a"),
        Transaction::new().put("k".repeat(KEY_LENGTH_MAX + 1), *b"1"),
    ] {
        let refused = store.commit(transaction).await;
        assert!(
            matches!(refused, Err(CoordinationError::Invalid(_))),
            "{refused:?}"
        );
    }
    assert_eq!(store.range("/storaged/").await.unwrap().revision, before);
    // And what keeps it just so is made, conditions and changes.
    let most = (0..TRANSACTION_STEPS_MAX).fold(steps(TRANSACTION_STEPS_MAX), |all, number| {
        all.when(Compare::Absent(format!("/storaged/limit/{number}")))
    });
    committed(store.commit(most).await);
}

async fn large_changes_are_told_whole(store: &dyn Coordination) {
    // Together larger than an answer of etcd may be: they come in parts.
    let before = store.range("/storaged/").await.unwrap().revision;
    let mut made = Vec::new();
    for number in 0..5_u8 {
        let keys = (0..5).map(|key| format!("/storaged/large/{key}"));
        let value = vec![number; 240 * 1024];
        let transaction = keys.fold(Transaction::new(), |all, key| all.put(key, value.as_slice()));
        made.push((committed(store.commit(transaction).await), number));
    }
    let mut watch = store.watch("/storaged/large/", before).await.unwrap();
    for (revision, number) in made {
        let batch = watch.next().await.unwrap();
        assert_eq!((batch.revision, batch.events.len()), (revision, 5));
        for event in batch.events {
            let is_whole =
                |value: &[u8]| value.len() == 240 * 1024 && value.iter().all(|byte| *byte == number);
            assert!(matches!(event, Event::Put(entry) if is_whole(&entry.value)));
        }
    }
}

async fn a_key_cannot_be_bound_to_a_lease_that_is_gone(store: &dyn Coordination) {
    let lease = store.grant_lease(LONG).await.unwrap();
    store.keep_lease(lease).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let transaction =
        Transaction::new()
            .put("/storaged/gone/a", *b"1")
            .put_leased("/storaged/gone/b", *b"1", lease);
    assert_eq!(store.commit(transaction).await, Err(CoordinationError::NoLease));
    assert!(store.range("/storaged/gone/").await.unwrap().entries.is_empty());
    assert_eq!(store.keep_lease(lease).await, Err(CoordinationError::NoLease));
}

async fn a_key_that_is_written_without_its_lease_outlives_it(store: &dyn Coordination) {
    let lease = store.grant_lease(LONG).await.unwrap();
    let leased = Transaction::new().put_leased("/storaged/kept", *b"1", lease);
    committed(store.commit(leased).await);
    assert_eq!(
        store.get("/storaged/kept").await.unwrap().unwrap().lease,
        Some(lease)
    );
    put(store, "/storaged/kept", "2").await;
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.get("/storaged/kept").await.unwrap().unwrap().lease, None);
}

async fn raised_revisions_change_no_old_number_and_are_never_given_again(store: &dyn Coordination) {
    let old = put(store, "/storaged/raise/a", "1").await;
    let mut watch = store.watch("/storaged/raise/", old).await.unwrap();
    let floor = Revision(old.0 + 1_000_000);
    store.raise_revision(floor).await.unwrap();
    // Again, and lower: nothing to do.
    store.raise_revision(floor).await.unwrap();
    store.raise_revision(old).await.unwrap();
    let nonsense = store.raise_revision(Revision(u64::MAX)).await;
    assert!(
        matches!(nonsense, Err(CoordinationError::Invalid(_))),
        "{nonsense:?}"
    );
    assert_eq!(
        store.get("/storaged/raise/a").await.unwrap().unwrap().modified,
        old
    );
    let change = Transaction::new()
        .when(Compare::Modified("/storaged/raise/a".to_owned(), old))
        .put("/storaged/raise/b", *b"2");
    let new = committed(store.commit(change).await);
    assert!(new > floor, "{new} {floor}");
    let batch = loop {
        let batch = watch.next().await.unwrap();
        if !batch.events.is_empty() {
            break batch;
        }
    };
    assert_eq!(batch.revision, new);
    // A number in between has been given to nobody.
    let lost = Revision(old.0 + 500);
    let unknown = Transaction::new()
        .when(Compare::Modified("/storaged/raise/a".to_owned(), lost))
        .put("/storaged/raise/b", *b"3");
    assert!(matches!(store.commit(unknown).await.unwrap(), Outcome::Conflict(at) if at >= new));
    assert!(store.range("/storaged/").await.unwrap().revision >= new);
}

/// All that a coordination store promises.
pub(crate) async fn the_whole_contract(store: &dyn Coordination) {
    of_two_that_race_for_a_key_one_wins(store).await;
    a_range_has_its_prefix_only_and_is_in_order(store).await;
    a_watch_tells_every_change_once_from_the_revision_that_was_asked(store).await;
    a_lease_that_nobody_keeps_takes_its_key_and_watchers_hear_of_it(store).await;
    a_revoked_lease_takes_its_keys_at_once(store).await;
    a_transaction_whose_condition_fails_changes_nothing_and_says_where_the_store_was(store).await;
    a_range_of_many_keys_is_complete_and_of_one_moment(store).await;
    what_breaks_a_limit_is_refused_in_words_and_changes_nothing(store).await;
    large_changes_are_told_whole(store).await;
    a_key_cannot_be_bound_to_a_lease_that_is_gone(store).await;
    a_key_that_is_written_without_its_lease_outlives_it(store).await;
    raised_revisions_change_no_old_number_and_are_never_given_again(store).await;
}
