//! What a real etcd bears on this machine: transactions of a hundred groups, small ones, renewals of leases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use coordination::etcd::Options;
use coordination::{Compare, Coordination, Etcd, Outcome, Revision, Transaction};

/// How long each is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// Callers at a time.
const CALLERS: usize = 16;
/// Groups in a large transaction.
const GROUPS: usize = 100;

/// Measures and prints.
pub(crate) fn measure(members: usize) -> Result<()> {
    let etcd = test_node::etcd::Etcd::start(members)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Arc::new(Etcd::connect(&Options::plain(etcd.endpoints())).await?);
        groups(store.as_ref(), members).await?;
        small(&store, members).await?;
        leases(&store, members).await?;
        anyhow::Ok(())
    })
}

/// One after the other, as storaged makes them: each on the condition that its groups are as they were.
async fn groups(store: &Etcd, members: usize) -> Result<()> {
    let key = |number: usize| format!("/storaged/group/00000001/{number:08x}");
    let value = [b'x'; 130];
    let mut at: Option<Revision> = None;
    let (begun, mut made) = (Instant::now(), 0_u32);
    while begun.elapsed() < WINDOW {
        let mut transaction = Transaction::new();
        for number in 0..GROUPS {
            transaction = match at {
                Some(revision) => transaction.when(Compare::Modified(key(number), revision)),
                None => transaction,
            };
            transaction = transaction.put(key(number), value);
        }
        if let Outcome::Committed(revision) = store.commit(transaction).await? {
            at = Some(revision);
            made += 1;
        }
    }
    print(
        members,
        "transactions of 100 groups, one after the other",
        made,
        begun,
    );
    Ok(())
}

async fn small(store: &Arc<Etcd>, members: usize) -> Result<()> {
    let begun = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut made = 0_u32;
            while begun.elapsed() < WINDOW {
                let transaction =
                    Transaction::new().put(format!("/storaged/owner/{caller:016x}"), [b'x'; 90]);
                store.commit(transaction).await?;
                made += 1;
            }
            anyhow::Ok(made)
        })
    });
    let made = sum(callers.collect()).await?;
    print(members, "transactions of one key, 16 callers", made, begun);
    Ok(())
}

async fn leases(store: &Arc<Etcd>, members: usize) -> Result<()> {
    let mut leases = Vec::new();
    for _ in 0..CALLERS {
        leases.push(store.grant_lease(Duration::from_secs(30)).await?);
    }
    let begun = Instant::now();
    let callers = leases.into_iter().map(|lease| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut made = 0_u32;
            while begun.elapsed() < WINDOW {
                store.keep_lease(lease).await?;
                made += 1;
            }
            anyhow::Ok(made)
        })
    });
    let made = sum(callers.collect()).await?;
    print(members, "renewals of leases, 16 callers", made, begun);
    Ok(())
}

async fn sum(callers: Vec<tokio::task::JoinHandle<Result<u32>>>) -> Result<u32> {
    let mut made = 0;
    for caller in callers {
        made += caller.await??;
    }
    Ok(made)
}

fn print(members: usize, what: &str, made: u32, begun: Instant) {
    println!(
        "etcd\t{members} members\t{what}\t{:.0} a second",
        f64::from(made) / begun.elapsed().as_secs_f64()
    );
}
