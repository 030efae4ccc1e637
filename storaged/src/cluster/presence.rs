//! That this node is up: a key in the coordination store that goes away with the lease that this `storaged`
//! renews. Others judge by it whether the node lives; two processes that say they are one node are told
//! from each other by it, and the later one is refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment};

use coordination::keys::Key;
use coordination::map::MapWatch;
use coordination::records::{self, NodeUpRecord, Speaks, encode};
use coordination::{Compare, Coordination, CoordinationError, Entry, LeaseId, Outcome, Transaction};
use protocol::NodeId;
use protocol::message::VERSIONS;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::EnterError;
use crate::moment::wall_clock_ms;
use crate::process;

/// A lease is renewed so often in its time: one renewal may be lost.
const RENEWALS: u32 = 3;
/// How much longer than its lease a key is waited for that nobody may be renewing: stores count coarsely.
const GRACE: Duration = Duration::from_secs(3);
/// Attempts to take the key while others take and lose it.
const ATTEMPTS_MAX: usize = 8;

/// What this program speaks and reads.
pub fn speaks() -> Speaks {
    Speaks {
        wire_lowest: *VERSIONS.start(),
        wire_highest: *VERSIONS.end(),
        records: records::FORMAT,
    }
}

/// The presence of this node, for those who bind something to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Presence {
    node: NodeId,
    lease: Arc<AtomicU64>,
    /// Since when the coordination store answers in time; nothing while it does not.
    reached: Arc<Mutex<Option<Moment>>>,
}

impl Presence {
    /// A node whose keys go away with this lease.
    pub fn new(node: NodeId, lease: LeaseId) -> Self {
        Self {
            node,
            lease: Arc::new(AtomicU64::new(lease.0)),
            reached: Arc::new(Mutex::new(Some(Moment::now()))),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Since when the coordination store answers each renewal in time; nothing while it does not.
    pub fn reached_since(&self) -> Option<Moment> {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store answered in time, or it did not. `anew`: whatever was before, from now on.
    fn reached(&self, answered: bool, anew: bool) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        *reached = match *reached {
            _ if !answered => None,
            Some(since) if !anew => Some(since),
            _ => Some(Moment::now()),
        };
    }

    /// The lease that goes away with this node. Another one after it had lapsed unnoticed.
    pub fn lease(&self) -> LeaseId {
        LeaseId(self.lease.load(Ordering::Relaxed))
    }
}

/// Keeps the presence.
pub struct PresenceKeeper {
    presence: Presence,
    store: Arc<dyn Coordination>,
    map: MapWatch,
    time_to_live: Duration,
}

impl PresenceKeeper {
    /// Says that a node is up. A former process of it that died is forgotten at once if it ran here, and waited
    /// for if that cannot be seen; one that lives is left alone, and this one is refused.
    pub async fn start(
        store: Arc<dyn Coordination>,
        map: MapWatch,
        node: NodeId,
        time_to_live: Duration,
    ) -> Result<Self, EnterError> {
        let presence = Presence::new(node, LeaseId(0));
        let keeper = Self {
            presence,
            store,
            map,
            time_to_live,
        };
        keeper.take().await?;
        Ok(keeper)
    }

    /// For those who bind something to it.
    pub fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// Renews the lease until that makes no sense any more, which is told.
    pub async fn run(self) -> String {
        loop {
            sleep(self.time_to_live / RENEWALS).await;
            let asked = Moment::now();
            let kept = self.store.keep_lease(self.presence.lease()).await;
            // An answer that was long on its way may have found a store that was away meanwhile.
            let late = asked.elapsed() > self.time_to_live / RENEWALS;
            let lapsed = matches!(kept, Err(CoordinationError::NoLease));
            self.presence.reached(kept.is_ok() || lapsed, late || lapsed);
            match kept {
                Ok(()) => {}
                Err(CoordinationError::NoLease) => {
                    warn!(node = %self.presence.node, "the node's lease had lapsed: others took it for down");
                    match self.take().await {
                        Ok(()) => info!(node = %self.presence.node, "the node is up again"),
                        Err(EnterError::Store(error)) => warn!(%error, "cannot say that the node is up"),
                        Err(error) => return error.to_string(),
                    }
                }
                Err(error) => warn!(%error, "the node's lease cannot be renewed"),
            }
        }
    }

    async fn take(&self) -> Result<(), EnterError> {
        let key = Key::NodeUp(self.presence.node).to_text();
        for _ in 0..ATTEMPTS_MAX {
            if let Some(lease) = self.put(&key).await? {
                self.presence.lease.store(lease.0, Ordering::Relaxed);
                return Ok(());
            }
            match self.store.get(&key).await? {
                Some(entry) => self.judge(&entry).await?,
                None if self.store.get(&self.record_key()).await?.is_none() => {
                    return Err(EnterError::Removed {
                        node: self.presence.node,
                    });
                }
                None => {}
            }
        }
        Err(EnterError::Store(CoordinationError::Unavailable(
            "the node's key is taken and lost again and again".into(),
        )))
    }

    fn record_key(&self) -> String {
        Key::Node(self.presence.node).to_text()
    }

    /// Puts the key if it is not there and the node was not removed; gives the lease that it goes away with.
    async fn put(&self, key: &str) -> Result<Option<LeaseId>, EnterError> {
        let record = NodeUpRecord {
            world: process::world(),
            pid: std::process::id(),
            lease_ms: u64::try_from(self.time_to_live.as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since_ms: wall_clock_ms(),
            speaks: Some(speaks()),
        };
        let lease = self.store.grant_lease(self.time_to_live).await?;
        let transaction = Transaction::new()
            .when(Compare::Absent(key.to_owned()))
            .when(Compare::Present(self.record_key()))
            .put_leased(key, encode(&record)?, lease);
        let outcome = self.store.commit(transaction).await;
        if let Ok(Outcome::Committed(revision)) = outcome {
            self.map.at_least(revision).await;
            return Ok(Some(lease));
        }
        if let Err(error) = self.store.revoke_lease(lease).await {
            warn!(%error, "a lease could not be given back; it will lapse");
        }
        outcome?;
        Ok(None)
    }

    /// Waits until a former process's key is gone.
    async fn judge(&self, entry: &Entry) -> Result<(), EnterError> {
        let node = self.presence.node;
        let former: NodeUpRecord = records::decode(entry)?;
        let here = !former.world.is_empty() && former.world == process::world();
        if here && process::is_gone(former.pid) {
            info!(%node, pid = former.pid, "the node's former process is gone");
            if let Some(lease) = entry.lease {
                self.store.revoke_lease(lease).await?;
            }
            return Ok(());
        }
        info!(%node, pid = former.pid, "waits until it is known that the node's former process is gone");
        let deadline = Instant::now() + Duration::from_millis(former.lease_ms) + GRACE;
        let mut map = self.map.clone();
        let gone = async {
            let there = |up: &coordination::ClusterMap| {
                up.up().get(&node).is_some_and(|up| up.created == entry.created)
            };
            map.at_least(entry.modified).await;
            while there(&map.current_and_seen()) && map.changed().await {}
        };
        let running = EnterError::Running {
            node,
            pid: former.pid,
            here,
        };
        timeout_at(deadline, gone).await.map_err(|_| running)
    }
}

#[cfg(test)]
mod tests {
    //! One process a node: the dead are forgotten, the living are left alone.
    use std::process::Command;

    use coordination::Embedded;
    use coordination::map::MapKeeper;
    use coordination::records::{NewerFields, NodeRecord};

    use super::*;

    const NODE: NodeId = NodeId(2);
    const LEASE: Duration = Duration::from_secs(1);

    async fn world() -> (Arc<Embedded>, MapWatch) {
        let store = Arc::new(Embedded::in_memory().unwrap());
        let record = NodeRecord {
            name: "b".into(),
            zone: String::new(),
            serial: [1; 16],
            addresses: Vec::new(),
            created_ms: 0,
            newer: NewerFields::default(),
        };
        let made = Transaction::new().put(Key::Node(NODE).to_text(), encode(&record).unwrap());
        store.commit(made).await.unwrap();
        let (keeper, map) = MapKeeper::start(store.clone()).await.unwrap();
        tokio::spawn(keeper.run());
        (store, map)
    }

    async fn start(store: &Arc<Embedded>, map: &MapWatch) -> Result<PresenceKeeper, EnterError> {
        PresenceKeeper::start(store.clone(), map.clone(), NODE, LEASE).await
    }

    #[tokio::test]
    async fn a_node_that_lives_already_is_not_run_a_second_time() {
        let (store, map) = world().await;
        let first = start(&store, &map).await.unwrap();
        let _kept = tokio::spawn(first.run());
        let refused = start(&store, &map).await.err().unwrap().to_string();
        assert!(refused.contains("node-2 runs already"), "{refused}");
        assert!(map.current().up().contains_key(&NODE));
    }

    #[tokio::test]
    async fn a_node_whose_process_died_here_starts_at_once() {
        let (store, map) = world().await;
        let mut child = Command::new("true").spawn().unwrap();
        let dead = NodeUpRecord {
            world: process::world(),
            pid: child.id(),
            // Waiting for it would fail the test.
            lease_ms: u64::from(u32::MAX),
            version: String::new(),
            since_ms: 0,
            speaks: None,
        };
        child.wait().unwrap();
        let lease = store.grant_lease(Duration::from_hours(1)).await.unwrap();
        let key = Key::NodeUp(NODE).to_text();
        let up = Transaction::new().put_leased(key, encode(&dead).unwrap(), lease);
        store.commit(up).await.unwrap();
        start(&store, &map).await.unwrap();
        assert_eq!(map.current().up()[&NODE].record.pid, std::process::id());
    }

    #[tokio::test]
    async fn a_process_that_is_elsewhere_is_waited_for_until_its_lease_lapses() {
        let (store, map) = world().await;
        let elsewhere = NodeUpRecord {
            world: "another machine".to_owned(),
            pid: std::process::id(),
            lease_ms: 1000,
            version: String::new(),
            since_ms: 0,
            speaks: None,
        };
        let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
        let key = Key::NodeUp(NODE).to_text();
        let up = Transaction::new().put_leased(key, encode(&elsewhere).unwrap(), lease);
        store.commit(up).await.unwrap();
        start(&store, &map).await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_was_removed_is_not_up() {
        let (store, map) = world().await;
        let gone = Transaction::new().delete(Key::Node(NODE).to_text());
        store.commit(gone).await.unwrap();
        let refused = start(&store, &map).await.err().unwrap();
        assert!(matches!(refused, EnterError::Removed { .. }), "{refused}");
    }
}
