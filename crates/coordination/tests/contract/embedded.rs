//! The embedded store, in a file and in memory.

use std::path::Path;

use coordination::{Coordination, Embedded, Event, Revision, Transaction};

use crate::law::{LONG, SHORT, committed, put, the_whole_contract};

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
    let floor = Revision(born.0 + 1000);
    store.raise_revision(floor).await.unwrap();
    drop(store);

    let store = open(&path);
    assert!(put(&store, "/b", "3").await > floor);
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
            tokio::spawn(async move { put(&store, &format!("/storaged/many/{number:03}"), "x").await })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200);
    assert_eq!(store.range("/storaged/many/").await.unwrap().entries.len(), 200);
}
