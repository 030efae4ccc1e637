//! An etcd that was restored from an older backup: what it has forgotten is not given a second meaning.

use coordination::etcd::Options;
use coordination::{Compare, Coordination, CoordinationError, Etcd, Outcome, Revision, Transaction};

use crate::etcd::{changes, connect};
use crate::law::{LONG, committed, put};

/// An etcd that was restored from a backup, with what came after it lost.
struct Restored {
    etcd: test_node::Etcd,
    /// Connected all the time.
    store: Etcd,
    /// Of the last change in the backup.
    saved: Revision,
    /// Of the last change that was lost.
    lost: Revision,
}

impl Restored {
    async fn new() -> Self {
        let mut etcd = test_node::Etcd::start(1).unwrap();
        let store = connect(&etcd).await;
        let saved = put(&store, "/storaged/a", "saved").await;
        let backup = etcd.save("backup").unwrap();
        let mut lost = saved;
        for number in 0..10 {
            lost = put(&store, "/storaged/a", &format!("lost {number}")).await;
        }
        etcd.restore(&backup).unwrap();
        Self {
            etcd,
            store,
            saved,
            lost,
        }
    }
}

#[tokio::test]
async fn a_generation_is_higher_than_all_that_were_seen_before_etcd_was_restored() {
    let Restored {
        etcd: _etcd,
        store,
        lost,
        ..
    } = Restored::new().await;
    let lease = store.grant_lease(LONG).await.unwrap();
    let owner = Transaction::new().put_leased("/storaged/owner", *b"1", lease);
    let generation = committed(store.commit(owner).await);
    assert!(generation > lost, "{generation} {lost}");
    let entry = store.get("/storaged/owner").await.unwrap().unwrap();
    assert_eq!(entry.created, generation);
}

#[tokio::test]
async fn one_who_has_only_read_what_was_lost_makes_nothing_below_it_either() {
    let mut etcd = test_node::Etcd::start(1).unwrap();
    let (writer, reader) = (connect(&etcd).await, connect(&etcd).await);
    put(&writer, "/storaged/a", "saved").await;
    let backup = etcd.save("backup").unwrap();
    let lost = put(&writer, "/storaged/a", "lost").await;
    assert_eq!(reader.get("/storaged/a").await.unwrap().unwrap().modified, lost);
    drop(writer);
    etcd.restore(&backup).unwrap();
    assert!(put(&reader, "/storaged/b", "new").await > lost);
}

#[tokio::test]
async fn one_who_remembers_what_was_lost_is_told_so_and_what_was_kept_keeps_its_number() {
    let Restored {
        etcd: _etcd,
        store,
        saved,
        lost,
    } = Restored::new().await;
    let entry = store.get("/storaged/a").await.unwrap().unwrap();
    assert_eq!((&*entry.value, entry.modified), (b"saved".as_slice(), saved));
    let on_lost = Transaction::new()
        .when(Compare::Modified("/storaged/a".to_owned(), lost))
        .put("/storaged/a", *b"x");
    assert!(matches!(store.commit(on_lost).await, Ok(Outcome::Conflict(at)) if at > lost));
    let gone = store.watch("/storaged/", lost).await.err();
    assert_eq!(gone, Some(CoordinationError::Compacted(lost)));
    let on_saved = Transaction::new()
        .when(Compare::Modified("/storaged/a".to_owned(), saved))
        .put("/storaged/a", *b"x");
    committed(store.commit(on_saved).await);
}

#[tokio::test]
async fn a_watch_that_knows_what_was_lost_ends_and_one_that_does_not_goes_on() {
    let mut etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    let saved = put(&store, "/storaged/a", "saved").await;
    let mut watch = store.watch("/storaged/", saved).await.unwrap();
    let backup = etcd.save("backup").unwrap();
    let lost = put(&store, "/storaged/a", "lost").await;
    assert_eq!(changes(&mut watch).await.revision, lost);
    etcd.restore(&backup).unwrap();
    while let Ok(batch) = watch.next().await {
        assert!(batch.events.is_empty(), "{batch:?} after what was lost");
    }
    let mut watch = store.watch("/storaged/", saved).await.unwrap();
    let next = put(&store, "/storaged/b", "new").await;
    assert_eq!(changes(&mut watch).await.revision, next);
}

#[tokio::test]
async fn a_client_that_slept_through_the_restore_makes_nothing_on_what_it_remembers() {
    let Restored {
        etcd, store, lost, ..
    } = Restored::new().await;
    // It has seen nothing of what was lost, but a disk has: its node says so.
    let new = connect(&etcd).await;
    new.raise_revision(lost).await.unwrap();
    let mut after = Revision(0);
    for number in 0..30 {
        after = put(&new, "/storaged/b", &number.to_string()).await;
        assert!(after > lost);
    }
    // By now etcd itself counts further than the sleeper has ever seen.
    let on_lost = Transaction::new()
        .when(Compare::Modified("/storaged/a".to_owned(), lost))
        .put("/storaged/a", *b"x");
    assert!(matches!(store.commit(on_lost).await, Ok(Outcome::Conflict(at)) if at >= after));
    assert!(put(&store, "/storaged/a", "y").await > after);
}

#[tokio::test]
async fn an_etcd_that_was_lost_altogether_counts_on_from_what_disks_remember() {
    let etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    let remembered = Revision(123_456);
    store.raise_revision(remembered).await.unwrap();
    let made = put(&store, "/storaged/a", "1").await;
    assert!(made > remembered);
    // For everybody, and after a restart of any.
    let other = Etcd::connect(&Options::plain(etcd.endpoints())).await.unwrap();
    assert_eq!(other.get("/storaged/a").await.unwrap().unwrap().modified, made);
    assert!(put(&other, "/storaged/a", "2").await > made);
}
