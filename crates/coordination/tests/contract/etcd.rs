//! A real etcd keeps the contract, with one member and with three; what other users of it do disturbs
//! nobody; watches outlive its restarts.

use coordination::etcd::Options;
use coordination::store::{Batch, Event};
use coordination::{Coordination, CoordinationError, Etcd, Revision, Transaction, Watch};

use crate::law::{LONG, SHORT, committed, in_time, put, the_whole_contract};

/// A client of all members.
pub(crate) async fn connect(etcd: &test_node::Etcd) -> Etcd {
    Etcd::connect(&Options::plain(etcd.endpoints())).await.unwrap()
}

/// The next changes of a watch.
pub(crate) async fn changes(watch: &mut Watch) -> Batch {
    let next = async {
        loop {
            let batch = watch.next().await.unwrap();
            if !batch.events.is_empty() {
                return batch;
            }
        }
    };
    in_time("the next changes of a watch", next).await
}

#[tokio::test]
async fn an_etcd_of_one_member_keeps_the_contract() {
    let etcd = test_node::Etcd::start(1).unwrap();
    the_whole_contract(&connect(&etcd).await).await;
}

#[tokio::test]
async fn an_etcd_of_three_members_keeps_the_contract() {
    let etcd = test_node::Etcd::start(3).unwrap();
    the_whole_contract(&connect(&etcd).await).await;
}

#[tokio::test]
async fn clusters_with_prefixes_of_their_own_share_an_etcd_and_see_nothing_of_each_other() {
    let etcd = test_node::Etcd::start(1).unwrap();
    let with_prefix = async |prefix: &str| {
        let options = Options {
            prefix: prefix.to_owned(),
            ..Options::plain(etcd.endpoints())
        };
        Etcd::connect(&options).await.unwrap()
    };
    let (a, b) = (with_prefix("/a").await, with_prefix("/b").await);
    put(&a, "/storaged/x", "of a").await;
    put(&b, "/storaged/x", "of b").await;
    assert_eq!(&*a.get("/storaged/x").await.unwrap().unwrap().value, b"of a");
    assert_eq!(a.range("/storaged/").await.unwrap().entries.len(), 1);
    let ours = etcd
        .etcdctl(&["get", "/a/storaged/x", "--print-value-only"])
        .unwrap();
    assert_eq!(ours.trim(), "of a");
}

#[tokio::test]
async fn a_watch_gets_as_far_as_what_was_told_although_only_others_changed_anything() {
    // storaged waits for its map to be as far as a revision that it was told: it must not wait for ever
    // because that revision was somebody else's.
    let etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    let after = put(&store, "/storaged/a", "1").await;
    let mut watch = store.watch("/storaged/", after).await.unwrap();
    for number in 0..5 {
        etcd.etcdctl(&["put", "/somebody/else", &number.to_string()])
            .unwrap();
    }
    let told = store.range("/storaged/").await.unwrap().revision;
    assert!(told > after);
    let reached = async { while watch.next().await.unwrap().revision < told {} };
    in_time("the watch to get there", reached).await;
}

#[tokio::test]
async fn a_watch_outlives_a_restart_of_etcd_and_neither_misses_nor_repeats_a_change() {
    let mut etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    let before = store.range("/storaged/").await.unwrap().revision;
    let mut watch = store.watch("/storaged/", before).await.unwrap();
    let first = put(&store, "/storaged/a", "1").await;
    assert_eq!(changes(&mut watch).await.revision, first);
    etcd.kill().unwrap();
    etcd.start_again().unwrap();
    // By another client, as far as this one knows it is still away.
    let other = connect(&etcd).await;
    let second = put(&other, "/storaged/a", "2").await;
    let third = committed(other.commit(Transaction::new().delete("/storaged/a")).await);
    assert_eq!(changes(&mut watch).await.revision, second);
    let batch = changes(&mut watch).await;
    assert_eq!(
        (batch.revision, batch.events),
        (third, vec![Event::Deleted("/storaged/a".to_owned())])
    );
}

#[tokio::test]
async fn a_watch_whose_past_was_compacted_says_so_instead_of_leaving_something_out() {
    let mut etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    let old = put(&store, "/storaged/a", "1").await;
    let mut watch = store.watch("/storaged/", old).await.unwrap();
    // It breaks, and what comes next is compacted before it is back.
    etcd.kill().unwrap();
    etcd.start_again().unwrap();
    let other = connect(&etcd).await;
    put(&other, "/storaged/a", "2").await;
    let deleted = committed(other.commit(Transaction::new().delete("/storaged/a")).await);
    let newest = put(&other, "/storaged/b", "3").await;
    etcd.etcdctl(&["compact", &newest.0.to_string()]).unwrap();
    // Either it was back in time and tells all of it, or it ends.
    let mut seen = old;
    while let Ok(batch) = watch.next().await {
        if !batch.events.is_empty() {
            assert_eq!(batch.events.len(), 1);
            seen = batch.revision;
        }
        if seen == newest {
            break;
        }
    }
    assert!(seen == newest || seen == old, "{seen}: something was left out");
    for past in [old, Revision(deleted.0 - 1)] {
        let refused = other.watch("/storaged/", past).await.err();
        assert_eq!(refused, Some(CoordinationError::Compacted(past)));
    }
    let mut watch = other.watch("/storaged/", newest).await.unwrap();
    let next = put(&other, "/storaged/b", "4").await;
    assert_eq!(changes(&mut watch).await.revision, next);
}

#[tokio::test]
async fn the_lease_of_a_client_that_died_lapses_and_watchers_hear_of_it() {
    let etcd = test_node::Etcd::start(1).unwrap();
    let dead = connect(&etcd).await;
    let lease = dead.grant_lease(SHORT).await.unwrap();
    let owner = Transaction::new().put_leased("/storaged/owner", *b"1", lease);
    let revision = committed(dead.commit(owner).await);
    drop(dead);
    let store = connect(&etcd).await;
    let mut watch = store.watch("/storaged/", revision).await.unwrap();
    let batch = changes(&mut watch).await;
    assert_eq!(batch.events, [Event::Deleted("/storaged/owner".to_owned())]);
    assert_eq!(store.keep_lease(lease).await, Err(CoordinationError::NoLease));
}

#[tokio::test]
async fn leases_outlive_a_restart_of_etcd() {
    let mut etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    let lease = store.grant_lease(LONG).await.unwrap();
    let owner = Transaction::new().put_leased("/storaged/owner", *b"1", lease);
    let born = committed(store.commit(owner).await);
    etcd.kill().unwrap();
    etcd.start_again().unwrap();
    store.keep_lease(lease).await.unwrap();
    assert_eq!(store.get("/storaged/owner").await.unwrap().unwrap().created, born);
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.get("/storaged/owner").await.unwrap(), None);
}

#[tokio::test]
async fn transactions_go_on_after_the_lease_of_their_marks_has_lapsed() {
    let etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    put(&store, "/storaged/a", "1").await;
    let leases = etcd.etcdctl(&["lease", "list"]).unwrap();
    let lease = leases.lines().last().unwrap().to_owned();
    etcd.etcdctl(&["lease", "revoke", &lease]).unwrap();
    put(&store, "/storaged/a", "2").await;
    // And if it is the user's lease that is gone, that is still found out.
    let gone = store.grant_lease(LONG).await.unwrap();
    store.revoke_lease(gone).await.unwrap();
    let transaction = Transaction::new().put_leased("/storaged/b", *b"1", gone);
    assert_eq!(store.commit(transaction).await, Err(CoordinationError::NoLease));
}
