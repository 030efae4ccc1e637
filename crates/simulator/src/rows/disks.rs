//! The disks of a small world: each a replica and the model of a store, with what they have under way.

use std::collections::VecDeque;
use std::sync::Arc;

use erasure::Codes;
use protocol::message::{Request, Response};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, ObjectId, VolumeId};
use replication::replica::{Action, ConnectionId, Event, Map, Remembered, Replica};

use super::RowWorld;
use super::map::Cluster;
use super::returning::Said;
use crate::chance::Chance;
use crate::model_store::{ModelStore, Taken};

/// One disk.
pub(super) struct Disk {
    id: DiskId,
    codes: Arc<Codes>,
    replica: Replica,
    pub(super) store: ModelStore,
    /// Tokens of what is accepted and not durable, in order.
    queued: VecDeque<u64>,
    looks: Vec<(u64, StorageRequest)>,
    alarms: Vec<Option<VolumeId>>,
    /// Merges that were handed in and are not answered.
    reclaiming: bool,
    /// A newer map is wanted.
    refresh: bool,
    responses: Vec<(u64, u64, Response)>,
    /// What it says to other disks, and what it wishes of the record.
    pub(super) said: Vec<Said>,
    next_token: u64,
    merge_ended: Option<Result<(), StorageError>>,
}

impl Disk {
    pub(super) fn new(id: DiskId, cluster: &Cluster) -> Self {
        let mut out = Vec::new();
        let codes = Arc::new(Codes::default());
        let replica =
            Replica::new(id, Remembered::default(), cluster.map(), &mut out).with_codes(codes.clone());
        let mut disk = Self {
            id,
            codes,
            replica,
            store: ModelStore::default(),
            queued: VecDeque::new(),
            looks: Vec::new(),
            alarms: Vec::new(),
            reclaiming: false,
            refresh: false,
            responses: Vec::new(),
            said: Vec::new(),
            next_token: 0,
            merge_ended: None,
        };
        disk.perform(out);
        disk
    }

    /// The power fails, and it starts again at once.
    pub(super) fn crash(&mut self, map: Map, chance: &mut Chance) {
        self.store.crash(chance);
        self.queued.clear();
        self.looks.clear();
        self.alarms.clear();
        self.responses.clear();
        self.said.clear();
        self.reclaiming = false;
        let remembered = Remembered {
            generations: self.store.generations(),
            intervals: self.store.intervals(),
            doubts: self.store.doubts(),
            vouched: false,
        };
        let mut out = Vec::new();
        self.replica = Replica::new(self.id, remembered, map, &mut out).with_codes(self.codes.clone());
        self.perform(out);
    }

    pub(super) fn request(
        &mut self,
        wire: u64,
        number: u64,
        request: Request,
        out: &mut Vec<(u64, u64, Response)>,
    ) {
        let event = Event::Request {
            connection: ConnectionId(wire),
            number,
            request,
        };
        self.feed(event, out);
    }

    pub(super) fn map(&mut self, map: Map, out: &mut Vec<(u64, u64, Response)>) {
        self.refresh = false;
        self.feed(Event::Map(map), out);
    }

    pub(super) fn feed(&mut self, event: Event, out: &mut Vec<(u64, u64, Response)>) {
        let mut actions = Vec::new();
        self.replica.apply(event, &mut actions);
        self.perform(actions);
        out.append(&mut self.responses);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let mut answered = Vec::new();
        for action in actions {
            match action {
                Action::Reply {
                    connection,
                    number,
                    response,
                } => self.responses.push((connection.0, number, response)),
                Action::Store { token, request } => match self.store.take(&request) {
                    Taken::Queued => self.queued.push_back(token),
                    Taken::Look => self.looks.push((token, request)),
                    Taken::Answered(result) => answered.push((token, result)),
                },
                Action::Reclaimed { result, .. } => {
                    self.reclaiming = false;
                    self.merge_ended = Some(result);
                }
                Action::Alarm { volume, .. } => self.alarms.push(volume),
                Action::Refresh => self.refresh = true,
                Action::Question { to, number, question } => {
                    self.said.push(Said::Question(to, number, Box::new(question)));
                }
                Action::Tell { number, told, .. } => self.said.push(Said::Answer(number, Box::new(told))),
                Action::Propose {
                    interval, from, to, ..
                } => self.said.push(Said::Wish(interval, from, to)),
                Action::Readmit | Action::Scrubbed { .. } => {}
            }
        }
        for (token, result) in answered {
            self.stored(token, result);
        }
    }

    fn stored(&mut self, token: u64, result: Result<StorageReply, StorageError>) {
        let mut actions = Vec::new();
        self.replica.apply(Event::Stored { token, result }, &mut actions);
        self.perform(actions);
    }

    /// Something that is under way ends.
    pub(super) fn works(&mut self, chance: &mut Chance, map: Map, out: &mut Vec<(u64, u64, Response)>) {
        if chance.percent(50) {
            if let Some(token) = self.queued.pop_front() {
                self.store.make_durable();
                self.stored(token, Ok(StorageReply::Done));
            }
        } else if !self.looks.is_empty() {
            let at = chance.between(0, self.looks.len() as u64 - 1);
            let (token, request) = self.looks.remove(usize::try_from(at).unwrap_or(0));
            let result = self.store.look(&request);
            self.stored(token, result);
        } else if let Some(volume) = self.alarms.pop() {
            self.feed(Event::Alarm { volume }, out);
        } else if self.refresh {
            self.map(map, out);
        }
        out.append(&mut self.responses);
    }

    fn merge(&mut self, cluster: &Cluster, object: ObjectId, out: &mut Vec<(u64, u64, Response)>) {
        let Some((parent, child)) = cluster.merging() else {
            return;
        };
        self.reclaiming = true;
        self.next_token += 1;
        let request = StorageRequest::Merge {
            family: object.family,
            index: object.index,
            parent,
            child,
            row_chunks: Some(cluster.row_chunks()),
        };
        let token = self.next_token;
        self.feed(Event::Reclaim { token, request }, out);
    }
}

impl RowWorld {
    pub(super) fn feed_disk(
        &mut self,
        disk: DiskId,
        feed: impl FnOnce(&mut Disk, &mut Vec<(u64, u64, Response)>),
    ) {
        let mut out = Vec::new();
        if let Some(disk) = self.disks.get_mut(&disk) {
            feed(disk, &mut out);
        }
        self.collect();
        for (wire, number, response) in out {
            if let Some(wire) = self.wires.get_mut(&wire).filter(|wire| wire.owned) {
                wire.responses.push_back((number, response));
            }
        }
    }

    pub(super) fn disk_works(&mut self) {
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        let map = self.cluster.map();
        let Some(id) = self.chance.pick(&disks) else {
            return;
        };
        let mut out = Vec::new();
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.works(&mut self.chance, map, &mut out);
        }
        self.feed_disk(id, |_, responses| *responses = out);
    }

    /// A disk loses its power: its connections break, and it is back at once.
    pub(super) fn disk_crashes(&mut self) -> Result<(), String> {
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        let Some(id) = self.chance.pick(&disks) else {
            return Ok(());
        };
        self.met.crashes += 1;
        self.trace(|| format!("{id} CRASHES"));
        let owned = self.forget_disk(id);
        let map = self.cluster.map();
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.crash(map, &mut self.chance);
        }
        self.collect();
        if owned {
            self.wanted.insert(id);
            self.feed(replication::owner::Event::Disconnected { disk: id })?;
        }
        Ok(())
    }

    /// Whatever is on its way to or from a disk is lost; gives whether the owner had a connection to it.
    pub(super) fn forget_disk(&mut self, id: DiskId) -> bool {
        self.forget_talk(id);
        let here = |wire: &super::Wire| wire.disk == id;
        let owned = self.wires.values().any(|wire| here(wire) && wire.owned);
        self.wires.retain(|_, wire| !here(wire));
        owned
    }

    /// One disk leaves the group, or several at once.
    pub(super) fn disks_leave(&mut self) -> Result<(), String> {
        self.disk_leaves()?;
        while self.chance.percent(40) {
            self.disk_leaves()?;
        }
        Ok(())
    }

    /// A disk leaves the group, if enough stay. It comes back, or an empty one does in its place.
    fn disk_leaves(&mut self) -> Result<(), String> {
        let in_sync = self.cluster.in_sync();
        if in_sync.len() <= self.cluster.min_in_sync() {
            return Ok(());
        }
        let Some(disk) = self.chance.pick(&in_sync) else {
            return Ok(());
        };
        self.met.left += 1;
        self.trace(|| format!("{disk} LEAVES"));
        self.cluster.leave(disk);
        if self.chance.percent(30) {
            return self.replace_disk(disk);
        }
        Ok(())
    }

    /// One object of the oldest layer is merged on one disk. When all disks have none of it left, the layer goes.
    pub(super) fn merge(&mut self) {
        let Some((parent, _)) = self.cluster.merging().filter(|_| !self.cluster.comes_back()) else {
            return;
        };
        let members = self.cluster.in_sync();
        let left = |disk: &Disk| -> Vec<ObjectId> {
            let objects = disk.store.objects().into_iter();
            objects.filter(|object| object.layer == parent).collect()
        };
        let busy: Vec<(DiskId, ObjectId)> = self
            .disks
            .iter()
            .filter(|(id, _)| members.contains(id))
            .flat_map(|(id, disk)| left(disk).into_iter().map(|object| (*id, object)))
            .collect();
        let reclaims = members
            .iter()
            .any(|id| self.disks.get(id).is_some_and(|disk| disk.reclaiming));
        if busy.is_empty() && !reclaims {
            self.met.merged += 1;
            return self.cluster.merged();
        }
        let idle: Vec<(DiskId, ObjectId)> = busy
            .into_iter()
            .filter(|(id, _)| self.disks.get(id).is_some_and(|disk| !disk.reclaiming))
            .collect();
        if let Some((id, object)) = self.chance.pick(&idle) {
            let cluster = self.cluster.clone();
            self.feed_disk(id, |disk, out| disk.merge(&cluster, object, out));
        }
    }
}
