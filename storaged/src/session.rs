//! Sessions of the node's front ends: they open volumes here, keep their leases, and are told of
//! changes. The data path does not come by here.
//!
//! Who owns a volume stands in the coordination store; a session is only the way to it, so that a
//! `storaged` that is restarted knows nothing and needs to know nothing. Safety never rests on a
//! session either: who takes over a volume fences its former owner on the disks.

mod caretaker;
mod connection;
mod moves;
mod ownership;
mod peer;
mod reattachment;
mod rest;
mod vigil;
mod visit;
mod wishes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use client::transport::{Address, Listener};
use coordination::Coordination;
use coordination::map::MapWatch;
use coordination::records::OwnerRecord;
use protocol::session::CredentialsView;
use protocol::{Generation, NodeId, VolumeId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::cluster::presence::Presence;
use crate::membership::{Suspicion, Wish, Wishes};
use rest::Order;

/// How long a front end owns a volume after its last renewal, unless told otherwise. A front end
/// that died is noticed at once; this is for one that stopped, or a machine that went away.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(10);
/// Front ends at once. A guess: far more than a node has guests.
const FRONT_ENDS_MAX: usize = 4096;
/// How long to wait after the system refused a connection: it has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What sessions are started with.
#[derive(Clone)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// What this node asks of others goes away with it.
    pub presence: Presence,
    /// How long a lease lasts.
    pub lease: Duration,
    /// Where this `storaged` itself finds the session socket, for volumes that it takes over to
    /// bring them to rest.
    pub address: Address,
    /// Where other nodes reach this one: a name or an address.
    pub host: Option<String>,
    /// What front ends show to disks of other nodes; nothing where nodes speak in plaintext.
    pub credentials: Option<watch::Receiver<CredentialsView>>,
}

/// Whether an owner is a `storaged` itself, on a visit.
pub(crate) fn is_visitor(owner: &OwnerRecord) -> bool {
    visit::is_visit(&owner.program)
}

/// All sessions of this `storaged`.
pub struct Sessions {
    settings: Settings,
    store: Arc<dyn Coordination>,
    map: MapWatch,
    connections: AtomicU64,
    tokens: AtomicU64,
    /// Who has which volume open through this `storaged`.
    registered: Mutex<HashMap<VolumeId, Registered>>,
    /// Somebody was added to them.
    arrived: Notify,
    /// Volumes that are seen larger than they are, by the visitor that zeroes what is beyond.
    stretched: Mutex<HashMap<VolumeId, u64>>,
    /// Volumes that are being brought to rest, or are at rest: true from the moment on that their
    /// owners were asked, when nobody may resume them.
    resting: Mutex<HashMap<VolumeId, bool>>,
    /// Where owners' complaints of disks go.
    complaints: OnceLock<Wishes>,
}

/// Where the owner of a volume can be told something.
#[derive(Clone)]
struct Registered {
    connection: u64,
    generation: Generation,
    orders: mpsc::Sender<Order>,
}

impl Sessions {
    /// Sessions that keep owners in `store`. Nothing is served yet.
    pub fn new(settings: Settings, store: Arc<dyn Coordination>, map: MapWatch) -> Arc<Self> {
        Arc::new(Self {
            settings,
            store,
            map,
            connections: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            registered: Mutex::default(),
            arrived: Notify::new(),
            stretched: Mutex::default(),
            resting: Mutex::default(),
            complaints: OnceLock::new(),
        })
    }

    /// From now on owners' complaints of disks go there. Before, and without this, they are only logged.
    pub fn complain_to(&self, complaints: Wishes) {
        // The first one stays: there is one who changes sets.
        let _ = self.complaints.set(complaints);
    }

    fn complain(&self, suspicion: Suspicion) {
        if let Some(complaints) = self.complaints.get() {
            // With so many that wait already one may be lost: the owner complains again.
            let _ = complaints.try_send(Wish::Complaint(suspicion));
        }
    }

    /// Gives back what front ends own that died while no `storaged` ran. Call it once, at the start.
    pub async fn release_the_dead(&self) {
        let volumes: Vec<VolumeId> = self.map.current().owners().keys().copied().collect();
        for volume in volumes {
            self.release_if_dead(volume).await;
        }
    }

    /// Gives a volume back whose owner died unseen: while no `storaged` ran, or before it had connected to
    /// this one. An owner that is connected is watched by its connection.
    async fn release_if_dead(&self, volume: VolumeId) {
        let map = self.map.current();
        let Some(owner) = map.owner(volume) else { return };
        let here = owner.record.node == self.settings.node;
        if !here || self.registered().contains_key(&volume) || !crate::process::is_gone(owner.record.pid) {
            return;
        }
        let generation = Generation(owner.created.0);
        info!(%volume, pid = owner.record.pid, "its owner is gone: the volume is free");
        ownership::end_dead(self.store.as_ref(), &self.map, volume, generation).await;
    }

    /// Serves front ends that connect to `listener`, for ever. Dropping it ends their connections;
    /// what they own stays theirs, so that they can resume at the next `storaged`.
    pub async fn serve(self: Arc<Self>, listener: Listener) {
        let mut front_ends = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = front_ends.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(_) if front_ends.len() >= FRONT_ENDS_MAX => {
                        warn!("too many front ends: a connection was closed at once");
                    }
                    Ok(stream) => {
                        front_ends.spawn(connection::serve(Arc::clone(&self), stream));
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept a front end");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn new_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn new_token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn registered(&self) -> MutexGuard<'_, HashMap<VolumeId, Registered>> {
        // Nothing panics while it is held, and every value in it is whole.
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stretched(&self) -> MutexGuard<'_, HashMap<VolumeId, u64>> {
        self.stretched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resting(&self) -> MutexGuard<'_, HashMap<VolumeId, bool>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_resting(&self, volume: VolumeId) -> bool {
        self.resting().get(&volume) == Some(&true)
    }

    fn register(&self, volume: VolumeId, entry: Registered) {
        self.registered().insert(volume, entry);
        self.arrived.notify_waiters();
    }

    /// Forgets a volume, unless another connection has resumed it by now. True if it was forgotten.
    fn unregister(&self, volume: VolumeId, connection: u64) -> bool {
        let mut registered = self.registered();
        let ours = registered
            .get(&volume)
            .is_some_and(|entry| entry.connection == connection);
        if ours {
            registered.remove(&volume);
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    //! A dead owner is no reason to wait; a live one, or one that nobody can see, is not robbed.
    use std::process::Command;

    use coordination::LeaseId;

    use super::ownership::Purpose;
    use super::ownership::tests::{LEASE, VOLUME, owner, world};
    use super::*;

    pub(super) fn settings() -> Settings {
        Settings {
            node: NodeId(1),
            presence: Presence::new(NodeId(1), LeaseId(0)),
            lease: LEASE,
            address: Address::Unix("/nowhere".into()),
            host: None,
            credentials: None,
        }
    }

    #[tokio::test]
    async fn an_owner_that_died_unseen_is_noticed_when_the_next_one_asks() {
        // Defect guarded: a front end that was killed before it had resumed at a new `storaged` kept its volume
        // until its lease lapsed, and the guest stood still for ten seconds.
        let (store, map) = world().await;
        let sessions = Sessions::new(settings(), store.clone(), map.clone());
        let mut child = Command::new("true").spawn().unwrap();
        let dead = OwnerRecord {
            pid: child.id(),
            ..owner()
        };
        child.wait().unwrap();
        let owned = ownership::acquire(store.as_ref(), &map, VOLUME, &dead, LEASE, Purpose::Use).await;
        let generation = owned.unwrap().unwrap().generation;
        sessions.release_if_dead(VOLUME).await;
        sessions.until_not_owned(VOLUME, generation).await;
    }

    #[tokio::test]
    async fn an_owner_that_lives_or_cannot_be_seen_keeps_its_volume() {
        for pid in [std::process::id(), 0] {
            let (store, map) = world().await;
            let sessions = Sessions::new(settings(), store.clone(), map.clone());
            let owner = OwnerRecord { pid, ..owner() };
            let owned = ownership::acquire(store.as_ref(), &map, VOLUME, &owner, LEASE, Purpose::Use).await;
            let generation = owned.unwrap().unwrap().generation;
            sessions.release_if_dead(VOLUME).await;
            let resumed = ownership::resume(store.as_ref(), &map, VOLUME, generation).await;
            assert!(resumed.is_ok());
        }
    }
}
