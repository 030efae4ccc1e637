//! Does what can wait with volumes that nobody has open: moves on those that move to another pool, and encodes what is at
//! rest in those that were closed; and tells when one is where it was to go.
//!
//! Whoever has a volume open does all that himself. Of the others each node takes its share, as the map says, so nobody
//! has to agree with anybody: should two try for the same volume, one gets it, and gives it to whoever wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coordination::ClusterMap;
use coordination::map::MapWatch;
use coordination::records::Severity;
use protocol::{NodeId, VolumeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, debug, info, warn};

use crate::events::Events;
use crate::session::is_visitor;
use crate::volumes::Volumes;
use crate::volumes::rest::RestError;

/// Volumes that one node has at once.
const AT_ONCE: usize = 2;
/// A volume that was just closed, that somebody wanted, or that could not be had, is left alone for so long.
const LEAVE_ALONE: Duration = Duration::from_secs(5);

/// What it works with.
pub struct Caretaker {
    node: NodeId,
    volumes: Arc<Volumes>,
    map: MapWatch,
    events: Events,
}

/// What there is to do.
#[derive(Default)]
struct Chores {
    /// Volumes that move, with their names.
    moving: BTreeMap<VolumeId, String>,
    /// Volumes that were closed, and may have something at rest.
    closed: BTreeSet<VolumeId>,
    /// Volumes that are left alone until then.
    alone: BTreeMap<VolumeId, Instant>,
    busy: BTreeSet<VolumeId>,
}

impl Chores {
    /// Takes in what changed from one map to the next.
    fn learn(&mut self, before: &ClusterMap, now: &ClusterMap) {
        let named = |id| Some((id, now.volume(id)?.1.record.name.clone()));
        self.moving = now.moves().filter_map(|(id, _)| named(id)).collect();
        let left = before.owners().iter().filter(|(id, owner)| {
            let goes = now.owner(**id).is_none();
            goes && !owner.record.read_only && !is_visitor(&owner.record) && encodes(now, **id)
        });
        for (id, _) in left {
            self.closed.insert(*id);
            self.leave_alone(*id);
        }
        self.closed
            .retain(|id| now.owner(*id).is_none() && now.volume(*id).is_some());
    }

    fn leave_alone(&mut self, id: VolumeId) {
        self.alone.insert(id, Instant::now() + LEAVE_ALONE);
    }

    /// What is to be done now, each at most once.
    fn due(&mut self) -> Vec<VolumeId> {
        let now = Instant::now();
        self.alone.retain(|_, until| *until > now);
        let all = self.moving.keys().chain(&self.closed);
        let free = |id: &&VolumeId| !self.alone.contains_key(id) && !self.busy.contains(id);
        let due: BTreeSet<VolumeId> = all.filter(free).copied().collect();
        due.into_iter().collect()
    }
}

impl Caretaker {
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
        let mut before = map.current();
        let mut chores = Chores::default();
        let mut visits = JoinSet::new();
        loop {
            let current = map.current_and_seen();
            let moved = std::mem::take(&mut chores.moving);
            chores.learn(&before, &current);
            for (id, name) in moved.iter().filter(|(id, _)| !chores.moving.contains_key(id)) {
                self.tell_end(&current, *id, name).await;
            }
            for id in chores.due() {
                let ours = responsible(&current, id) == Some(self.node);
                if ours && current.owner(id).is_none() && visits.len() < AT_ONCE {
                    chores.busy.insert(id);
                    let (volumes, moves) = (self.volumes.clone(), chores.moving.contains_key(&id));
                    visits.spawn(async move { (id, visit(&volumes, id, moves).await) }.in_current_span());
                }
            }
            before = current;
            let wakes = chores.alone.values().min().copied();
            tokio::select! {
                more = map.changed() => {
                    if !more {
                        return;
                    }
                }
                Some(ended) = visits.join_next() => {
                    if let Ok((id, done)) = ended {
                        chores.busy.remove(&id);
                        if done {
                            chores.closed.remove(&id);
                        } else {
                            chores.leave_alone(id);
                        }
                    }
                }
                () = sleep_until(wakes.unwrap_or_else(Instant::now)), if wakes.is_some() => {}
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

/// Whether there is nothing more to do.
async fn visit(volumes: &Volumes, id: VolumeId, moves: bool) -> bool {
    let done = if moves {
        volumes.owners().move_on(id).await
    } else {
        volumes.owners().encode(id).await
    };
    match done {
        Ok(true) => return true,
        Ok(false) => debug!(volume = %id, "somebody wants it: the rest is done later"),
        Err(RestError::InUse(reason)) => debug!(volume = %id, reason, "whoever has it does it"),
        Err(error) => info!(volume = %id, %error, "nothing can be done with it now"),
    }
    false
}

fn encodes(map: &ClusterMap, id: VolumeId) -> bool {
    map.volume(id)
        .is_some_and(|(_, volume)| map.row_chunks(volume.record.family).is_some())
}

/// Which of the nodes that are up sees to a volume.
fn responsible(map: &ClusterMap, id: VolumeId) -> Option<NodeId> {
    let count = u64::try_from(map.up().len()).ok().filter(|count| *count > 0)?;
    let at = usize::try_from(id.0 % count).ok()?;
    map.up().keys().nth(at).copied()
}
