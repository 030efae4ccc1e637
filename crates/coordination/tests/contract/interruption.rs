//! etcd and the way to it are broken under a stream of transactions. Every outcome that is told is true,
//! nothing is made twice, and watches tell all of it once.

use std::collections::BTreeMap;
use std::time::Duration;

use coordination::etcd::Options;
use coordination::store::Event;
use coordination::{Compare, Coordination, CoordinationError, Etcd, Outcome, Revision, Transaction, Watch};
use tokio::sync::watch as signal;

use crate::etcd::connect;
use crate::law::{committed, in_time, put};
use crate::proxy::{Proxy, Way};

/// Writers at once.
const WRITERS: usize = 4;

/// How a transaction ended, as its writer was told.
type Told = BTreeMap<String, Result<Outcome, CoordinationError>>;

/// Writes one key after the other and counts them all in one record, until told to stop.
async fn write(store: Etcd, writer: usize, stop: signal::Receiver<bool>) -> Told {
    let mut told = Told::new();
    let mut number = 0;
    while !*stop.borrow() {
        let Ok(count) = store.get("/storaged/count").await else {
            continue;
        };
        let (before, condition) = match &count {
            None => (0, Compare::Absent("/storaged/count".to_owned())),
            Some(entry) => {
                let text = std::str::from_utf8(&entry.value).unwrap();
                let condition = Compare::Modified("/storaged/count".to_owned(), entry.modified);
                (text.parse::<u64>().unwrap(), condition)
            }
        };
        let key = format!("/storaged/line/{writer}/{number:05}");
        let transaction = Transaction::new()
            .when(condition)
            .put("/storaged/count", (before + 1).to_string().into_bytes())
            .put(key.clone(), *b"x");
        told.insert(key, store.commit(transaction).await);
        number += 1;
    }
    told
}

/// All lines that a watch tells of, with their revisions, up to the end.
async fn follow(mut watch: Watch) -> Vec<(String, Revision)> {
    let mut lines = Vec::new();
    loop {
        let batch = watch.next().await.unwrap();
        for event in batch.events {
            let Event::Put(entry) = event else { continue };
            if entry.key == "/storaged/end" {
                return lines;
            }
            if entry.key.starts_with("/storaged/line/") {
                lines.push((entry.key, batch.revision));
            }
        }
    }
}

/// Writers and a watch, while `break_it` does its worst; then all must agree.
async fn hold_against(store: Etcd, break_it: impl AsyncFnOnce()) {
    let start = store.range("/storaged/").await.unwrap().revision;
    let followed = tokio::spawn(follow(store.watch("/storaged/", start).await.unwrap()));
    let (stop, stopped) = signal::channel(false);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(store.clone(), writer, stopped.clone())))
        .collect();
    break_it().await;
    stop.send_replace(true);
    let mut told = Told::new();
    for writer in writers {
        told.extend(in_time("a writer's last transaction", writer).await.unwrap());
    }
    put(&store, "/storaged/end", "1").await;
    let range = store.range("/storaged/line/").await.unwrap();
    let count = store.get("/storaged/count").await.unwrap().unwrap();
    assert_eq!(
        std::str::from_utf8(&count.value).unwrap(),
        range.entries.len().to_string(),
        "a transaction was made twice, or in part"
    );
    let is_there: BTreeMap<_, _> = range
        .entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.created))
        .collect();
    let (mut made, mut unknown) = (0, 0);
    for (key, outcome) in &told {
        match outcome {
            Ok(Outcome::Committed(revision)) => {
                made += 1;
                assert_eq!(is_there.get(key), Some(revision), "{key} was told to be made");
            }
            Err(CoordinationError::Unknown(_)) => unknown += 1,
            Ok(Outcome::Conflict(_)) | Err(_) => assert_eq!(is_there.get(key), None, "{key}: {outcome:?}"),
        }
    }
    assert!(made > 50, "only {made} of {} were made", told.len());
    println!("{made} made, {unknown} unknown, of {}", told.len());
    let lines = in_time("the watch to get to the end", followed).await.unwrap();
    assert!(lines.is_sorted_by(|a, b| a.1 < b.1), "not in order, or twice");
    let lines: BTreeMap<_, _> = lines.into_iter().collect();
    assert_eq!(lines, is_there);
}

/// Waits until writers have got further.
async fn until_more_is_made(store: &Etcd, more: usize) {
    let wait = async {
        let lines = async || match store.range("/storaged/line/").await {
            Ok(range) => Some(range.entries.len()),
            Err(_) => None,
        };
        let mut start = None;
        loop {
            let now = lines().await;
            start = start.or(now);
            if let (Some(start), Some(now)) = (start, now)
                && now >= start + more
            {
                return;
            }
        }
    };
    in_time("writers to get further", wait).await;
}

#[tokio::test]
async fn an_etcd_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let mut etcd = test_node::Etcd::start(1).unwrap();
    let store = connect(&etcd).await;
    hold_against(store.clone(), async || {
        for _ in 0..5 {
            until_more_is_made(&store, 20).await;
            etcd.kill().unwrap();
            etcd.start_again().unwrap();
        }
        until_more_is_made(&store, 20).await;
    })
    .await;
}

#[tokio::test]
async fn of_three_members_the_leader_can_be_killed_and_all_goes_on() {
    let mut etcd = test_node::Etcd::start(3).unwrap();
    let store = connect(&etcd).await;
    hold_against(store.clone(), async || {
        for _ in 0..3 {
            until_more_is_made(&store, 20).await;
            let leader = etcd.leader().unwrap();
            etcd.kill_member(leader).unwrap();
            until_more_is_made(&store, 20).await;
            etcd.start_again().unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_member_that_falls_silent_does_not_hold_up_the_others() {
    let etcd = test_node::Etcd::start(3).unwrap();
    let store = connect(&etcd).await;
    hold_against(store.clone(), async || {
        for member in 0..3 {
            until_more_is_made(&store, 20).await;
            etcd.freeze(member, true).unwrap();
            until_more_is_made(&store, 20).await;
            etcd.freeze(member, false).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn what_became_of_a_transaction_is_found_out_when_its_answer_was_lost() {
    let etcd = test_node::Etcd::start(1).unwrap();
    let proxy = Proxy::start(etcd.client_port(0)).await;
    let through = [proxy.endpoint(), etcd.endpoint(0)];
    let store = Etcd::connect(&Options::plain(through)).await.unwrap();
    let witness = connect(&etcd).await;
    put(&store, "/storaged/a", "1").await;
    proxy.set(Way::NoAnswers);
    let told = committed(store.commit(Transaction::new().put("/storaged/a", *b"2")).await);
    let entry = witness.get("/storaged/a").await.unwrap().unwrap();
    assert_eq!((&*entry.value, entry.modified), (b"2".as_slice(), told));
}

#[tokio::test]
async fn a_transaction_that_arrives_after_its_doubt_was_ended_is_not_made() {
    // It would be made twice, or behind the back of one who was told that it was not.
    let etcd = test_node::Etcd::start(1).unwrap();
    let proxy = Proxy::start(etcd.client_port(0)).await;
    let through = [proxy.endpoint(), etcd.endpoint(0)];
    let store = Etcd::connect(&Options::plain(through)).await.unwrap();
    let witness = connect(&etcd).await;
    let free = Compare::Absent("/storaged/owner".to_owned());
    put(&store, "/storaged/a", "1").await;
    proxy.set(Way::Held);
    let taken = Transaction::new().when(free).put("/storaged/owner", *b"us");
    let first = committed(store.commit(taken).await);
    committed(witness.commit(Transaction::new().delete("/storaged/owner")).await);
    // The attempt that was held back arrives now, when its condition holds again.
    proxy.set(Way::Open);
    proxy.passed_late().await;
    // It is made, or not, long before all of these.
    for number in 0..100 {
        put(&witness, "/storaged/a", &number.to_string()).await;
    }
    assert_eq!(
        witness.get("/storaged/owner").await.unwrap(),
        None,
        "made again after {first}"
    );
}

#[tokio::test]
async fn an_outcome_that_cannot_be_found_out_in_time_is_said_to_be_unknown() {
    let mut etcd = test_node::Etcd::start(1).unwrap();
    let proxy = Proxy::start(etcd.client_port(0)).await;
    let options = Options {
        timeout: Duration::from_secs(3),
        ..Options::plain([proxy.endpoint()])
    };
    let store = Etcd::connect(&options).await.unwrap();
    put(&store, "/storaged/a", "1").await;
    proxy.set(Way::NoAnswers);
    let told = store.commit(Transaction::new().put("/storaged/a", *b"2")).await;
    assert!(matches!(told, Err(CoordinationError::Unknown(_))), "{told:?}");
    let away = store.get("/storaged/a").await;
    assert!(matches!(away, Err(CoordinationError::Unavailable(_))), "{away:?}");
    // It was made, as it happens; and all goes on when the way is open again.
    proxy.set(Way::Open);
    let witness = connect(&etcd).await;
    assert_eq!(&*witness.get("/storaged/a").await.unwrap().unwrap().value, b"2");
    etcd.kill().unwrap();
    etcd.start_again().unwrap();
    let again = async {
        loop {
            match store.commit(Transaction::new().put("/storaged/a", *b"3")).await {
                Ok(Outcome::Committed(_)) => return,
                Ok(outcome) => panic!("{outcome:?}"),
                Err(_) => {}
            }
        }
    };
    in_time("etcd to be back", again).await;
}
