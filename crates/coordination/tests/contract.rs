//! The contract of a coordination store, held against every implementation.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::time::Duration;

use coordination::{
    Compare, Coordination, CoordinationError, Embedded, Event, Outcome, Revision, Transaction,
};

/// Long enough that no slow machine lets it lapse within a test.
const LONG: Duration = Duration::from_hours(1);
/// Lapses while a test waits for it.
const SHORT: Duration = Duration::from_millis(20);

async fn put(store: &dyn Coordination, key: &str, value: &str) -> Revision {
    committed(store.commit(Transaction::new().put(key, value.as_bytes())).await)
}

fn committed(outcome: Result<Outcome, CoordinationError>) -> Revision {
    match outcome {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

async fn of_two_that_race_for_a_key_one_wins(store: &dyn Coordination) {
    let attempt = |value: &'static [u8]| {
        store.commit(
            Transaction::new()
                .when(Compare::Absent("/race".to_owned()))
                .put("/race", value),
        )
    };
    let (a, b) = tokio::join!(attempt(b"a"), attempt(b"b"));
    let winners = [&a, &b]
        .iter()
        .filter(|o| matches!(o, Ok(Outcome::Committed(_))))
        .count();
    assert_eq!(winners, 1, "{a:?} {b:?}");
    let value = store.get("/race").await.unwrap().unwrap().value;
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
    for key in ["/r/b", "/r/a", "/ra", "/q/z"] {
        put(store, key, "x").await;
    }
    let range = store.range("/r/").await.unwrap();
    let keys: Vec<_> = range.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["/r/a", "/r/b"]);
}

async fn a_watch_tells_every_change_once_from_the_revision_that_was_asked(store: &dyn Coordination) {
    let before = put(store, "/w/a", "0").await;
    let first = put(store, "/w/a", "1").await;
    let mut watch = store.watch("/w/", before).await.unwrap();
    let elsewhere = put(store, "/elsewhere", "x").await;
    let second = committed(
        store
            .commit(Transaction::new().delete("/w/a").put("/w/b", *b"2"))
            .await,
    );
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (first, 1));
    // A change elsewhere tells how far the watch is, so that one can wait for a revision.
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (elsewhere, 0));
    let batch = watch.next().await.unwrap();
    assert_eq!(batch.revision, second);
    assert_eq!(batch.events[0], Event::Deleted("/w/a".to_owned()));
    assert!(matches!(&batch.events[1], Event::Put(entry) if &*entry.value == b"2"));
}

async fn a_lease_that_nobody_keeps_takes_its_key_and_watchers_hear_of_it(store: &dyn Coordination) {
    let lease = store.grant_lease(SHORT).await.unwrap();
    let revision = committed(
        store
            .commit(Transaction::new().put_leased("/lease/a", *b"1", lease))
            .await,
    );
    let mut watch = store.watch("/lease/", revision).await.unwrap();
    let batch = watch.next().await.unwrap();
    assert_eq!(batch.events, [Event::Deleted("/lease/a".to_owned())]);
    assert_eq!(store.get("/lease/a").await.unwrap(), None);
    assert_eq!(store.keep_lease(lease).await, Err(CoordinationError::NoLease));
}

async fn a_revoked_lease_takes_its_keys_at_once(store: &dyn Coordination) {
    let lease = store.grant_lease(LONG).await.unwrap();
    committed(
        store
            .commit(Transaction::new().put_leased("/revoke/a", *b"1", lease))
            .await,
    );
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.get("/revoke/a").await.unwrap(), None);
    // Again: nothing to do.
    store.revoke_lease(lease).await.unwrap();
}

async fn the_whole_contract(store: &dyn Coordination) {
    of_two_that_race_for_a_key_one_wins(store).await;
    a_range_has_its_prefix_only_and_is_in_order(store).await;
    a_watch_tells_every_change_once_from_the_revision_that_was_asked(store).await;
    a_lease_that_nobody_keeps_takes_its_key_and_watchers_hear_of_it(store).await;
    a_revoked_lease_takes_its_keys_at_once(store).await;
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    the_whole_contract(&Embedded::in_memory().unwrap()).await;
}

#[tokio::test]
async fn the_store_in_a_file_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    the_whole_contract(&Embedded::open(&directory.path().join("coordination.redb")).unwrap()).await;
}

fn open(path: &Path) -> Embedded {
    Embedded::open(path).unwrap()
}

#[tokio::test]
async fn keys_revisions_and_leases_survive_a_restart() {
    // An owner must find its key, with the same birth, after storaged was restarted.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coordination.redb");
    let store = open(&path);
    let lease = store.grant_lease(LONG).await.unwrap();
    let born = committed(
        store
            .commit(Transaction::new().put_leased("/a", *b"1", lease))
            .await,
    );
    let entry = store.get("/a").await.unwrap();
    drop(store);

    let store = open(&path);
    assert_eq!(store.get("/a").await.unwrap(), entry);
    store.keep_lease(lease).await.unwrap();
    assert!(put(&store, "/b", "2").await > born);
    assert!(store.grant_lease(LONG).await.unwrap() > lease);
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), None);
}

#[tokio::test]
async fn a_lease_that_lapses_while_the_store_is_away_still_takes_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coordination.redb");
    let store = open(&path);
    let lease = store.grant_lease(SHORT).await.unwrap();
    let revision = committed(
        store
            .commit(Transaction::new().put_leased("/a", *b"1", lease))
            .await,
    );
    drop(store);

    let store = open(&path);
    let now = store.range("/").await.unwrap();
    if !now.entries.is_empty() {
        assert_eq!(now.revision, revision);
        let mut watch = store.watch("/", now.revision).await.unwrap();
        assert_eq!(
            watch.next().await.unwrap().events,
            [Event::Deleted("/a".to_owned())]
        );
    }
    assert_eq!(store.get("/a").await.unwrap(), None);
}

#[tokio::test]
async fn a_second_opener_of_the_file_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coordination.redb");
    let _store = open(&path);
    let error = Embedded::open(&path).err().unwrap().to_string();
    assert!(error.contains("in use"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coordination.redb");
    std::fs::write(
        &path,
        b"these bytes are no database, and there are more than a page of them",
    )
    .unwrap();
    let error = Embedded::open(&path).err().unwrap().to_string();
    assert!(error.contains("cannot open the coordination store"), "{error}");
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing() {
    // They share commits: each must still see its own outcome, and all must be there.
    let store = Embedded::in_memory().unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, &format!("/many/{number:03}"), "x").await })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200);
    assert_eq!(store.range("/many/").await.unwrap().entries.len(), 200);
}
