//! Sees to volumes that move to another pool: moves on those that nobody has open, and tells when one is there.
//!
//! Whoever has a volume open moves it himself. Of the others each node takes its share, as the map says, so nobody has to
//! agree with anybody: should two try for the same volume, one gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coordination::ClusterMap;
use coordination::map::MapWatch;
use coordination::records::Severity;
use protocol::{NodeId, VolumeId};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{Instrument, debug, info, warn};

use crate::events::Events;
use crate::volumes::Volumes;
use crate::volumes::rest::RestError;

/// Volumes that one node moves at once.
const AT_ONCE: usize = 2;
/// A volume that somebody wanted, or that could not be had, is left alone for so long.
const LEAVE_ALONE: Duration = Duration::from_secs(5);

/// What it works with.
pub struct Mover {
    node: NodeId,
    volumes: Arc<Volumes>,
    map: MapWatch,
    events: Events,
}

impl Mover {
    /// Sees to the share of this node.
    pub fn new(node: NodeId, volumes: Arc<Volumes>, map: MapWatch, events: Events) -> Self {
        Self {
            node,
            volumes,
            map,
            events,
        }
    }

    /// Works for ever: run it as a task.
    pub async fn run(self) {
        let mut map = self.map.clone();
        let mut known = names(&map.current());
        let busy = Arc::new(Mutex::new(BTreeSet::new()));
        let mut moving = JoinSet::new();
        loop {
            let current = map.current_and_seen();
            let present = names(&current);
            for (id, name) in known.iter().filter(|(id, _)| !present.contains_key(id)) {
                self.tell_end(&current, *id, name).await;
            }
            known = present;
            for id in known.keys().copied() {
                let begins = current.owner(id).is_none()
                    && responsible(&current, id) == Some(self.node)
                    && moving.len() < AT_ONCE
                    && lock(&busy).insert(id);
                if begins {
                    let (volumes, busy) = (self.volumes.clone(), busy.clone());
                    let work = async move {
                        move_on(&volumes, id).await;
                        lock(&busy).remove(&id);
                    };
                    moving.spawn(work.in_current_span());
                }
            }
            tokio::select! {
                more = map.changed() => {
                    if !more {
                        return;
                    }
                }
                Some(_) = moving.join_next() => {}
            }
        }
    }

    /// Tells that a volume is where it was to go, if this node is the one to do so.
    async fn tell_end(&self, map: &ClusterMap, id: VolumeId, name: &str) {
        let Some((family, _)) = map.volume(id) else {
            return;
        };
        if responsible(map, id) != Some(self.node) {
            return;
        }
        let pool = family.pool().and_then(|pool| map.pool(pool));
        let pool = pool.map_or("its new pool", |pool| pool.record.name.as_str());
        let message = format!("volume {name} has moved to pool {pool}");
        let told = self.events.write(Severity::Info, "volume_retyped", name, message);
        if let Err(error) = told.await {
            warn!(volume = %id, %error, "that a volume has moved is not in the event log");
        }
    }
}

async fn move_on(volumes: &Volumes, id: VolumeId) {
    match volumes.owners().move_on(id).await {
        Ok(true) => return,
        Ok(false) => debug!(volume = %id, "somebody wants it: it is moved on later"),
        Err(RestError::InUse(reason)) => debug!(volume = %id, reason, "it is moved by whoever has it"),
        Err(error) => info!(volume = %id, %error, "it cannot be moved on now"),
    }
    sleep(LEAVE_ALONE).await;
}

fn lock(busy: &Mutex<BTreeSet<VolumeId>>) -> std::sync::MutexGuard<'_, BTreeSet<VolumeId>> {
    // Every value in it is whole.
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

fn names(map: &ClusterMap) -> BTreeMap<VolumeId, String> {
    let named = |id| Some((id, map.volume(id)?.1.record.name.clone()));
    map.moves().filter_map(|(id, _)| named(id)).collect()
}

/// Which of the nodes that are up sees to a volume.
fn responsible(map: &ClusterMap, id: VolumeId) -> Option<NodeId> {
    let count = u64::try_from(map.up().len()).ok().filter(|count| *count > 0)?;
    let at = usize::try_from(id.0 % count).ok()?;
    map.up().keys().nth(at).copied()
}
