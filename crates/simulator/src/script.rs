//! A cluster that does what a test tells it, one step after the other: real owners, real replicas, the real
//! coordination engine, stores of the model. Nothing happens by chance and no time goes by of itself.
//!
//! What somebody sends lies on a [`Wire`] until [`Script::settle`] delivers it. A wire that is held keeps what
//! is on it, so that a test can have a message come late, or never. Whose bugs are played is the business of
//! the tests; the random worlds beside this play what nobody has thought of.

mod disk;
mod drbd;
mod reviews;
mod sheepdog;
mod stage;
mod vitastor;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use coordination::records::Redundancy;
use coordination::store::LeaseId;
use protocol::message::Refusal;
use protocol::recovery::{Question, Told};
use protocol::session::{SlotState, VolumeView};
use protocol::storage::{StorageReply, StorageRequest};
use protocol::{DiskId, Generation, Interval, ObjectId, PgId, VolumeId};
use replication::Moment;
use replication::membership::advance;
use replication::owner::{self, Failure, IoId, Outcome, Owner};
use replication::replica::{self, ConnectionId, Remembered, Replica};

use crate::cluster::{Cluster, LEASE_MS, NODE, POOL, Shape};
use crate::model_store::{ModelStore, Taken};
use crate::recovery::{life_and_number, of_life};
use crate::schedule::Time;
use wire::{Mail, Wire};

/// The one group of a script.
const PG: PgId = PgId {
    pool: POOL,
    number: 0,
};
const A: DiskId = DiskId(1);
const B: DiskId = DiskId(2);
const C: DiskId = DiskId(3);
/// More objects than a disk that comes back takes for few.
const OBJECTS: u32 = 20;
const SIZE: u64 = OBJECTS as u64 * protocol::OBJECT_SIZE as u64;
/// The first block of the second object.
const SECOND: u64 = 1024;
/// Messages that one step may take: more than any test needs, and an end for a circle.
const DELIVERIES_MAX: usize = 100_000;
/// How much time goes by at once, in milliseconds: less than every pause that the machines make.
const STEP_MS: u64 = 10;

/// Which of those who have the volume open, or had it: the first is 0.
type Front = usize;

#[derive(Default)]
struct Disk {
    store: ModelStore,
    replica: Option<Replica>,
    /// How often it was started: what was under way in a former life reaches nobody.
    life: u64,
}

struct Opened {
    owner: Option<Owner>,
    lease: Option<LeaseId>,
    generation: Generation,
    /// The snapshot that it reads, if it is a reader.
    snapshot: Option<String>,
    wanted: BTreeSet<DiskId>,
    lost: bool,
}

/// The cluster, with one volume.
struct Script {
    cluster: Cluster,
    min_in_sync: u8,
    volume: VolumeId,
    disks: BTreeMap<DiskId, Disk>,
    fronts: Vec<Opened>,
    connections: BTreeMap<ConnectionId, (Front, DiskId)>,
    /// Those of which the owner knows nothing any more; the disk will hear of it.
    closing: BTreeSet<ConnectionId>,
    now: Moment,
    mail: VecDeque<(Wire, u64, Mail)>,
    held: BTreeSet<Wire>,
    next_io: u64,
    next_connection: u64,
    done: BTreeMap<IoId, Result<Outcome, Failure>>,
    /// Complaints of owners.
    suspected: Vec<(Front, DiskId, String)>,
    /// Objects that were copied to a disk that comes back.
    copied: Vec<(DiskId, ObjectId)>,
    /// Questions that a source has not answered.
    asked: BTreeMap<(DiskId, u64), DiskId>,
    /// Quiescences that were said to be reached, and reclaims that were done.
    quiesced: Vec<u64>,
    reclaimed: Vec<(u64, bool)>,
    /// What replicas want to be woken for: when, which disk and life of it, for which volume.
    alarms: Vec<(Moment, DiskId, u64, Option<VolumeId>)>,
}

impl Script {
    /// All disks are up, and all copies in sync and empty.
    fn new(disks: u32, copies: u8, min_in_sync: u8) -> Self {
        let mut cluster = Cluster::new(Shape {
            disks,
            redundancy: Redundancy::Replicated { copies },
            min_in_sync,
            groups: 1,
        });
        let volume = cluster.create_volume(SIZE);
        let mut script = Self {
            cluster,
            min_in_sync,
            volume,
            disks: BTreeMap::new(),
            fronts: Vec::new(),
            connections: BTreeMap::new(),
            closing: BTreeSet::new(),
            now: Moment(0),
            mail: VecDeque::new(),
            held: BTreeSet::new(),
            next_io: 1,
            next_connection: 1,
            done: BTreeMap::new(),
            suspected: Vec::new(),
            copied: Vec::new(),
            asked: BTreeMap::new(),
            quiesced: Vec::new(),
            reclaimed: Vec::new(),
            alarms: Vec::new(),
        };
        for disk in (1..=disks).map(DiskId) {
            script.disks.insert(disk, Disk::default());
            script.start(disk);
        }
        script
    }

    /// Delivers all that is under way and all that comes of it, but for what lies on a wire that is held.
    fn settle(&mut self) {
        for _ in 0..DELIVERIES_MAX {
            if !self.deliver_one() {
                return;
            }
        }
        panic!("what is under way goes in a circle");
    }

    /// Delivers what was sent first; false if nothing is under way.
    fn deliver_one(&mut self) -> bool {
        let free = |(wire, ..): &(Wire, u64, Mail)| !self.held.contains(wire);
        let Some(at) = self.mail.iter().position(free) else {
            return false;
        };
        if let Some((_, life, mail)) = self.mail.remove(at) {
            self.deliver(life, mail);
        }
        true
    }

    /// Delivers one thing from a wire, held or not; false if nothing is there.
    fn deliver_from(&mut self, from: Wire) -> bool {
        let Some(at) = self.mail.iter().position(|(wire, ..)| *wire == from) else {
            return false;
        };
        if let Some((_, life, mail)) = self.mail.remove(at) {
            self.deliver(life, mail);
        }
        true
    }

    /// Lets time go by.
    fn wait(&mut self, milliseconds: u64) {
        self.settle();
        let end = self.now + milliseconds;
        while self.now < end {
            self.let_pass();
            self.settle();
        }
    }

    /// A moment passes, and nothing is delivered meanwhile.
    fn let_pass(&mut self) {
        self.now = self.now + STEP_MS;
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.alarms)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.alarms = later;
        let due: Vec<(Moment, DiskId, u64, Option<VolumeId>)> = due;
        for (_, disk, life, volume) in due {
            if self.disks[&disk].life == life {
                self.feed_disk(disk, replica::Event::Alarm { volume });
            }
        }
        for front in 0..self.fronts.len() {
            self.feed(front, owner::Event::Tick);
        }
    }

    fn hold(&mut self, wire: Wire) {
        self.held.insert(wire);
    }

    /// What lies on a wire comes after all, and what is sent on it comes at once again.
    fn release(&mut self, wire: Wire) {
        self.held.remove(&wire);
        self.settle();
    }

    /// What lies on a wire never comes.
    fn lose(&mut self, wire: Wire) {
        self.mail.retain(|(other, ..)| *other != wire);
    }

    fn send(&mut self, wire: Wire, mail: Mail) {
        let life = match &mail {
            Mail::Stored(disk, ..)
            | Mail::Answered(disk, ..)
            | Mail::Map(disk, _)
            | Mail::Proposed(disk, _)
            | Mail::Swap(disk, ..)
            | Mail::Question(disk, ..)
            | Mail::Told(disk, ..) => self.disks[disk].life,
            _ => 0,
        };
        self.mail.push_back((wire, life, mail));
    }

    fn deliver(&mut self, life: u64, mail: Mail) {
        match mail {
            Mail::Request(connection, number, request) => {
                if let Some((_, disk)) = self.connections.get(&connection) {
                    let event = replica::Event::Request {
                        connection,
                        number,
                        request,
                    };
                    self.feed_disk(*disk, event);
                }
            }
            Mail::Closed(connection) => {
                if let Some((_, disk)) = self.connections.remove(&connection) {
                    self.feed_disk(disk, replica::Event::Closed { connection });
                }
            }
            Mail::Connected(front, disk) => self.connected(front, disk),
            Mail::Response(connection, number, response) => {
                let ends = self.connections.get(&connection).copied();
                if let Some((front, disk)) = ends.filter(|_| !self.closing.contains(&connection)) {
                    let event = owner::Event::Response {
                        disk,
                        number,
                        response,
                    };
                    self.feed(front, event);
                }
            }
            Mail::View(front, view) => self.feed(front, owner::Event::View(view)),
            Mail::Renewed(front, sent) => self.feed(front, owner::Event::Renewed { sent }),
            Mail::Question(from, to, number, question) => self.ask(from, to, number, *question, life),
            Mail::Stored(disk, ..)
            | Mail::Answered(disk, ..)
            | Mail::Map(disk, _)
            | Mail::Proposed(disk, _)
            | Mail::Told(disk, ..)
                if self.disks[&disk].life != life || self.disks[&disk].replica.is_none() => {}
            Mail::Stored(token_of, token, request) => self.stored(token_of, token, request.as_ref()),
            Mail::Answered(disk, token, result) => {
                self.feed_disk(disk, replica::Event::Stored { token, result });
            }
            Mail::Map(disk, map) => self.feed_disk(disk, replica::Event::Map(map)),
            Mail::Proposed(disk, pg) => self.feed_disk(disk, replica::Event::Proposed { pg }),
            Mail::Swap(disk, group, step) => self.swap(disk, group, step),
            Mail::Told(disk, number, told) => {
                if let Ok(Told::Difference { delta, .. }) = told.as_ref() {
                    self.copied.push((disk, delta.object));
                }
                let told = *told;
                self.feed_disk(disk, replica::Event::Told { number, told });
            }
        }
    }

    fn stored(&mut self, id: DiskId, token: u64, request: Option<&StorageRequest>) {
        let Some(disk) = self.disks.get_mut(&id) else {
            return;
        };
        let result = if let Some(request) = request {
            disk.store.look(request)
        } else {
            disk.store.make_durable();
            Ok(StorageReply::Done)
        };
        self.feed_disk(id, replica::Event::Stored { token, result });
    }

    fn ask(&mut self, from: DiskId, to: DiskId, number: u64, question: Question, life: u64) {
        if self.disks[&from].life != life {
            return;
        }
        if self.disks[&to].replica.is_some() {
            let number = of_life(number, life);
            self.asked.insert((from, number), to);
            let event = replica::Event::Question {
                from,
                number,
                question,
            };
            self.feed_disk(to, event);
        } else {
            // The driver's business: who gets no answer is told so.
            let told = Box::new(Err(Refusal::Busy));
            self.mail
                .push_back((Wire::Told(from), life, Mail::Told(from, number, told)));
        }
    }

    /// A disk's swap reaches the coordination store, whatever became of the disk.
    fn swap(&mut self, disk: DiskId, (pg, interval): (PgId, Interval), (from, to): (SlotState, SlotState)) {
        let group = self.cluster.map.group(pg);
        let group = group.filter(|group| group.interval == interval);
        let slots = group.and_then(|group| advance(&group.slots, disk, from, to));
        if slots.is_some_and(|slots| self.cluster.change_group(pg, slots)) {
            self.map_changed();
        }
        self.send(Wire::Map(disk), Mail::Proposed(disk, pg));
    }

    /// Everybody is told of a change of the map.
    fn map_changed(&mut self) {
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        for disk in disks {
            self.tell_map(disk);
        }
        for front in 0..self.fronts.len() {
            self.tell_view(front);
        }
    }

    fn tell_map(&mut self, disk: DiskId) {
        let map = self.cluster.map.clone();
        self.send(Wire::Map(disk), Mail::Map(disk, map));
    }

    fn view_of(&self, front: Front) -> Option<VolumeView> {
        let opened = &self.fronts[front];
        match &opened.snapshot {
            Some(name) => self.cluster.map.snapshot_view(self.volume, name, NODE),
            None => self
                .cluster
                .map
                .volume_view(self.volume, NODE, opened.generation, LEASE_MS),
        }
    }

    fn tell_view(&mut self, front: Front) {
        if let Some(view) = self.view_of(front) {
            self.send(Wire::View(front), Mail::View(front, Box::new(view)));
        }
    }

    fn connected(&mut self, front: Front, disk: DiskId) {
        let opened = &self.fronts[front];
        if self.connection(front, disk).is_some()
            || opened.owner.is_none()
            || self.disks[&disk].replica.is_none()
        {
            return;
        }
        if opened.wanted.contains(&disk) {
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            self.connections.insert(connection, (front, disk));
            let version = *protocol::message::VERSIONS.end();
            self.feed(front, owner::Event::Connected { disk, version });
        }
    }

    fn connection(&self, front: Front, disk: DiskId) -> Option<ConnectionId> {
        let mut open = self
            .connections
            .iter()
            .filter(|(id, _)| !self.closing.contains(id));
        open.find(|(_, ends)| **ends == (front, disk)).map(|(id, _)| *id)
    }

    /// Hands an event to an owner and does what it wants done.
    fn feed(&mut self, front: Front, event: owner::Event) {
        let now = self.now;
        let mut out = Vec::new();
        let Some(owner) = self
            .fronts
            .get_mut(front)
            .and_then(|opened| opened.owner.as_mut())
        else {
            return;
        };
        owner.apply(now, event, &mut out);
        self.perform(front, out);
    }

    fn perform(&mut self, front: Front, actions: Vec<owner::Action>) {
        use owner::Action;
        for action in actions {
            match action {
                Action::Connect(view) => {
                    self.fronts[front].wanted.insert(view.disk);
                    self.send(
                        Wire::FromDisk(front, view.disk),
                        Mail::Connected(front, view.disk),
                    );
                }
                Action::Disconnect { disk } => {
                    self.fronts[front].wanted.remove(&disk);
                    self.disconnect(front, disk);
                }
                Action::Reset { disk } => {
                    self.disconnect(front, disk);
                    self.feed(front, owner::Event::Disconnected { disk });
                    self.send(Wire::FromDisk(front, disk), Mail::Connected(front, disk));
                }
                Action::Send {
                    disk,
                    number,
                    request,
                } => {
                    if let Some(connection) = self.connection(front, disk) {
                        self.send(
                            Wire::ToDisk(front, disk),
                            Mail::Request(connection, number, request),
                        );
                    }
                }
                Action::Complete { id, result } => {
                    assert!(self.done.insert(id, result).is_none(), "answered twice");
                }
                Action::Renew => {
                    // Who hears nothing of storaged is not heard by it either.
                    let cut = self.held.contains(&Wire::View(front));
                    let lease = self.fronts[front].lease.filter(|_| !cut);
                    let now = Time::milliseconds(self.now.0);
                    if lease.is_some_and(|lease| self.cluster.renew(now, lease)) {
                        self.send(Wire::View(front), Mail::Renewed(front, self.now));
                    }
                }
                Action::WantView => self.tell_view(front),
                Action::Suspect { disk, reason } => self.suspected.push((front, disk, reason)),
                Action::Quiesced { token } => self.quiesced.push(token),
                // Nobody in a script takes a volume again.
                Action::Deposed => self.feed(front, owner::Event::Lost),
                Action::Lost => self.fronts[front].lost = true,
                Action::Opened | Action::Resized(_) | Action::Closed | Action::Slow { .. } => {}
            }
        }
    }

    /// A connection ends at the owner's end; the disk hears of it after all that was sent before.
    fn disconnect(&mut self, front: Front, disk: DiskId) {
        if let Some(connection) = self.connection(front, disk) {
            self.closing.insert(connection);
            self.lose(Wire::FromDisk(front, disk));
            self.send(Wire::ToDisk(front, disk), Mail::Closed(connection));
        }
    }
}
