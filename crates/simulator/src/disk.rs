//! Disks: a real replica over a store, with a queue of changes that become durable in order, and a
//! process that can die and come back with what was durable.

use std::sync::Arc;

use coordination::map::ClusterMap;
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, VolumeId};
use replication::replica::{self, ConnectionId, Replica};

use crate::backend::{Backend, RealStore};
use crate::model_store::Taken;
use crate::schedule::Time;
use crate::world::{Happening, World};

/// One disk and the process that runs it.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) store: Backend,
    replica: Option<Replica>,
    /// Grows with each start of the process.
    pub(crate) life: u64,
    /// When the last change that was accepted becomes durable.
    durable_at: Time,
    /// When the last map that was sent arrives.
    pub(crate) map_at: Time,
    /// How many times slower than usual it is.
    pub(crate) slow: u64,
    /// Whether a turn of the real store's loop is to come.
    turns: bool,
}

impl Disk {
    /// A disk that was never started.
    pub(crate) fn new(store: Backend) -> Self {
        Self {
            store,
            replica: None,
            life: 0,
            durable_at: Time::default(),
            map_at: Time::default(),
            slow: 1,
            turns: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }
}

impl World {
    /// A new disk, on the real store or on the model.
    pub(crate) fn add_disk(&mut self, id: DiskId, real: bool) {
        self.meet(if real {
            "disk on the real store"
        } else {
            "disk on the model"
        });
        let store = if real {
            match RealStore::new(id, &mut self.chance) {
                Ok(store) => Backend::Real(Box::new(store)),
                Err(error) => return self.violate(format!("{id} cannot be made: {error}")),
            }
        } else {
            Backend::Model(Box::default())
        };
        self.disks.insert(id, Disk::new(store));
        self.start_disk(id);
    }

    /// The disk is another one now, with nothing on it.
    pub(crate) fn replace_store(&mut self, id: DiskId, real: bool) {
        let store = if real {
            RealStore::new(id, &mut self.chance).map(|store| Backend::Real(Box::new(store)))
        } else {
            Ok(Backend::Model(Box::default()))
        };
        match (store, self.disks.get_mut(&id)) {
            (Ok(store), Some(disk)) => disk.store = store,
            (Err(error), _) => self.violate(format!("{id} cannot be made: {error}")),
            (Ok(_), None) => {}
        }
    }

    /// The disk's process starts, with the map of this instant and what the store remembers.
    pub(crate) fn start_disk(&mut self, id: DiskId) {
        if self.dead == Some(id) {
            return;
        }
        let map = self.cluster.map.clone();
        let now = self.schedule.now;
        let Some(disk) = self.disks.get_mut(&id).filter(|disk| !disk.is_up()) else {
            return;
        };
        disk.life += 1;
        disk.durable_at = now;
        disk.map_at = now;
        disk.turns = false;
        let mut actions = Vec::new();
        match disk.store.open(&mut self.chance) {
            Ok(remembered) => {
                let replica = Replica::new(id, remembered, map, &mut actions);
                disk.replica = Some(replica.with_codes(self.codes.clone()));
            }
            Err(error) => return self.violate(format!("{id}: {error}")),
        }
        self.note(format_args!("{id} starts"));
        self.perform_replica(id, actions);
        self.plan_nudge(id);
    }

    /// The disk's process dies, and the machine with it: what is not durable may be lost.
    pub(crate) fn crash_disk(&mut self, id: DiskId, back_after: u64) {
        let Some(disk) = self.disks.get_mut(&id).filter(|disk| disk.is_up()) else {
            return;
        };
        disk.replica = None;
        disk.store.crash(&mut self.chance);
        self.note(format_args!("{id} crashes"));
        for connection in self.connections_where(|connection| connection.disk == id) {
            let delay = self.delay(20_000);
            self.schedule.after(delay, Happening::FrontSeesEnd { connection });
            self.disk_sees_end(connection);
        }
        self.schedule
            .after(back_after, Happening::DiskStarts { disk: id });
    }

    pub(crate) fn feed_replica(&mut self, id: DiskId, event: replica::Event) {
        let Some(replica) = self.disks.get_mut(&id).and_then(|disk| disk.replica.as_mut()) else {
            return;
        };
        let mut actions = Vec::new();
        replica.apply(event, &mut actions);
        self.perform_replica(id, actions);
    }

    fn perform_replica(&mut self, id: DiskId, actions: Vec<replica::Action>) {
        for action in actions {
            match action {
                replica::Action::Reply {
                    connection: ConnectionId(connection),
                    number,
                    response,
                } => {
                    self.send_response(connection, number, response);
                }
                replica::Action::Store { token, request } => self.submit(id, token, request),
                replica::Action::Reclaimed { token, result } => self.reclaimed_object(token, result.is_ok()),
                replica::Action::Question { to, number, question } => self.ask_disk(id, to, number, question),
                replica::Action::Tell { to, number, told } => self.tell_disk(to, number, told),
                replica::Action::Propose {
                    pg,
                    interval,
                    from,
                    to,
                } => self.propose(id, (pg, interval), (from, to)),
                replica::Action::Scrubbed { progress, .. } => self.scrubbed(id, &progress),
                replica::Action::Refresh => self.refresh(id),
                replica::Action::Alarm { volume, after_ms } => {
                    let life = self.disks.get(&id).map_or(0, |disk| disk.life);
                    let at = Time::milliseconds(after_ms).0;
                    self.schedule.after(
                        at,
                        Happening::Alarm {
                            disk: id,
                            life,
                            volume,
                        },
                    );
                }
                replica::Action::Readmit => {
                    if let Some(Backend::Real(store)) = self.disks.get(&id).map(|disk| &disk.store)
                        && let Some(witness) = store.witness()
                    {
                        witness.readmit();
                    }
                }
            }
        }
    }

    /// Hands a request to the store.
    fn submit(&mut self, id: DiskId, token: u64, request: StorageRequest) {
        let latency = if self.chance.percent(95) {
            self.chance.between(30, 400)
        } else {
            self.chance.between(400, 20_000)
        };
        let now = self.schedule.now;
        let Some(disk) = self.disks.get_mut(&id) else {
            return;
        };
        let (life, latency) = (disk.life, latency * disk.slow);
        let store = match &mut disk.store {
            Backend::Real(store) => {
                store.submit(token, request);
                self.plan_turn(id, latency);
                return;
            }
            Backend::Model(store) => store,
        };
        match store.take(&request) {
            Taken::Queued => {
                disk.durable_at = disk.durable_at.max(now.after(latency));
                let at = disk.durable_at;
                self.schedule.at(
                    at,
                    Happening::Durable {
                        disk: id,
                        life,
                        token,
                    },
                );
            }
            Taken::Look => {
                self.schedule.after(
                    latency,
                    Happening::Look {
                        disk: id,
                        life,
                        token,
                        request,
                    },
                );
            }
            Taken::Answered(result) => {
                self.schedule.after(
                    latency / 4,
                    Happening::Stored {
                        disk: id,
                        life,
                        token,
                        result,
                    },
                );
            }
        }
    }

    /// The real store's loop turns once in a while, as long as something is in flight.
    fn plan_turn(&mut self, id: DiskId, latency: u64) {
        if let Some(disk) = self.disks.get_mut(&id)
            && !std::mem::replace(&mut disk.turns, true)
        {
            let life = disk.life;
            self.schedule
                .after(latency / 4 + 1, Happening::Turn { disk: id, life });
        }
    }

    pub(crate) fn turn(&mut self, id: DiskId, life: u64) {
        let checkpoint = self.chance.percent(2);
        let latency = self.chance.between(30, 300);
        let Some(disk) = self
            .disks
            .get_mut(&id)
            .filter(|disk| disk.is_up() && disk.life == life)
        else {
            return;
        };
        disk.turns = false;
        let latency = latency * disk.slow;
        let Backend::Real(store) = &mut disk.store else {
            return;
        };
        let answers = store.turn(checkpoint);
        if store.is_busy() {
            self.plan_turn(id, latency);
        }
        for (token, result) in answers {
            self.stored(id, life, token, result);
        }
    }

    pub(crate) fn durable(&mut self, id: DiskId, life: u64, token: u64) {
        let Some(disk) = self
            .disks
            .get_mut(&id)
            .filter(|disk| disk.is_up() && disk.life == life)
        else {
            return;
        };
        let Backend::Model(store) = &mut disk.store else {
            return;
        };
        store.make_durable();
        let result = Ok(StorageReply::Done);
        self.feed_replica(id, replica::Event::Stored { token, result });
    }

    pub(crate) fn look(&mut self, id: DiskId, life: u64, token: u64, request: &StorageRequest) {
        let Some(disk) = self
            .disks
            .get_mut(&id)
            .filter(|disk| disk.is_up() && disk.life == life)
        else {
            return;
        };
        let Backend::Model(store) = &disk.store else {
            return;
        };
        let result = store.look(request);
        if matches!(result, Err(StorageError::Damaged { .. })) {
            self.meet("damaged block read");
        }
        self.feed_replica(id, replica::Event::Stored { token, result });
    }

    pub(crate) fn stored(
        &mut self,
        id: DiskId,
        life: u64,
        token: u64,
        result: Result<StorageReply, StorageError>,
    ) {
        if !self
            .disks
            .get(&id)
            .is_some_and(|disk| disk.is_up() && disk.life == life)
        {
            return;
        }
        match &result {
            Err(StorageError::Full) => self.meet("full disk"),
            Err(StorageError::Gap(_)) => self.meet("gap at the store"),
            _ => {}
        }
        self.feed_replica(id, replica::Event::Stored { token, result });
    }

    pub(crate) fn alarm(&mut self, id: DiskId, life: u64, volume: Option<VolumeId>) {
        if self
            .disks
            .get(&id)
            .is_some_and(|disk| disk.is_up() && disk.life == life)
        {
            self.meet("former owner waited out");
            self.feed_replica(id, replica::Event::Alarm { volume });
        }
    }

    pub(crate) fn map_arrives(&mut self, id: DiskId, life: u64, map: Arc<ClusterMap>) {
        if self
            .disks
            .get(&id)
            .is_some_and(|disk| disk.is_up() && disk.life == life)
        {
            self.feed_replica(id, replica::Event::Map(map));
        }
    }

    /// A replica wants the newest map.
    pub(crate) fn refresh(&mut self, id: DiskId) {
        let delay = self.delay(30_000);
        let map = self.cluster.map.clone();
        let now = self.schedule.now;
        let Some(disk) = self.disks.get_mut(&id) else {
            return;
        };
        disk.map_at = disk.map_at.max(now.after(delay));
        let (at, life) = (disk.map_at, disk.life);
        self.schedule
            .at(at, Happening::MapArrives { disk: id, life, map });
    }
}
