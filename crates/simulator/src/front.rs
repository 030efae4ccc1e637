//! Front ends: a process with a real owner in it, which opens its volume, is crashed, stopped, or
//! robbed of it, and begins again.
//!
//! One file because the life of a front end is followed from its start to its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coordination::store::LeaseId;
use protocol::message::Request;
use protocol::rows::RowCodes;
use protocol::session::VolumeView;
use protocol::{DiskId, Generation, VolumeId};
use replication::Moment;
use replication::owner::{Action, Event, IoId, Owner};

use crate::cluster::{LEASE_MS, NODE};
use crate::direct_reads::Direct;
use crate::schedule::Time;
use crate::workload::Submitted;
use crate::world::{Happening, Life, World};

/// One front end.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) volume: VolumeId,
    /// A reader of this snapshot, rather than an owner.
    pub(crate) snapshot: Option<String>,
    /// Grows with each start of the process.
    number: u64,
    alive: bool,
    pub(crate) owner: Option<Owner>,
    pub(crate) lease: Option<LeaseId>,
    /// When the last renewal that went well was sent.
    pub(crate) renewed: Moment,
    /// The volume was taken from it while it lives, against the rule: its reads may be stale.
    pub(crate) robbed: bool,
    /// Its generation is over, and it asks for its volume again.
    pub(crate) deposed: bool,
    stopped: bool,
    /// Its storaged does not reach the coordination store.
    cut_off: bool,
    /// What comes while it is stopped.
    inbox: VecDeque<Event>,
    pub(crate) connections: BTreeMap<DiskId, u64>,
    pub(crate) direct: Direct,
    wanted: BTreeSet<DiskId>,
    tick_at: Option<Time>,
    /// When the last message from storaged arrives: one connection, in order.
    session_at: Time,
    pub(crate) submitted: BTreeMap<IoId, Submitted>,
    pub(crate) opened: bool,
    retired: bool,
}

impl Front {
    pub(crate) fn life(&self, front: usize) -> Life {
        Life {
            front,
            number: self.number,
        }
    }

    pub(crate) fn wants(&self, disk: DiskId) -> bool {
        self.owner.is_some() && self.wanted.contains(&disk) && !self.connections.contains_key(&disk)
    }

    pub(crate) fn generation(&self) -> Generation {
        self.owner
            .as_ref()
            .map(|owner| owner.view().generation)
            .unwrap_or_default()
    }

    /// Whether the process runs and has its volume.
    pub(crate) fn serves(&self) -> bool {
        self.alive && self.opened && !self.stopped && self.owner.is_some()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }
}

impl World {
    pub(crate) fn add_front(&mut self, volume: VolumeId, snapshot: Option<String>) -> usize {
        let front = self.fronts.len();
        self.fronts.push(Front {
            volume,
            snapshot,
            number: 0,
            alive: false,
            owner: None,
            lease: None,
            renewed: Moment(0),
            robbed: false,
            deposed: false,
            stopped: false,
            cut_off: false,
            inbox: VecDeque::new(),
            connections: BTreeMap::new(),
            direct: Direct::default(),
            wanted: BTreeSet::new(),
            tick_at: None,
            session_at: Time::default(),
            submitted: BTreeMap::new(),
            opened: false,
            retired: false,
        });
        let delay = self.chance.between(1_000, 50_000);
        self.schedule.after(delay, Happening::Open { front });
        front
    }

    pub(crate) fn front(&self, life: Life) -> Option<&Front> {
        self.fronts
            .get(life.front)
            .filter(|front| front.number == life.number && front.alive)
    }

    pub(crate) fn front_mut(&mut self, life: Life) -> Option<&mut Front> {
        self.fronts
            .get_mut(life.front)
            .filter(|front| front.number == life.number && front.alive)
    }

    /// A process starts, if there is none, and asks for its volume.
    pub(crate) fn open(&mut self, index: usize) {
        let now = self.schedule.now;
        if self.fronts[index].deposed {
            return self.take_again(index);
        }
        let front = &mut self.fronts[index];
        if front.owner.is_some() || front.retired || self.ending.closing {
            return;
        }
        if !front.alive {
            front.number += 1;
            front.alive = true;
            front.session_at = now;
        }
        let (volume, snapshot, life) = (front.volume, front.snapshot.clone(), front.life(index));
        let map = self.cluster.map.clone();
        let granted = if let Some(name) = snapshot {
            map.snapshot_view(volume, &name, NODE).map(|view| (view, None))
        } else {
            self.cluster.acquire(now, volume).and_then(|(lease, generation)| {
                let view = self.cluster.map.volume_view(volume, NODE, generation, LEASE_MS)?;
                Some((view, Some(lease)))
            })
        };
        let Some((view, lease)) = granted else {
            let pause = self.chance.between(20_000, 200_000);
            self.schedule.after(pause, Happening::Open { front: index });
            return;
        };
        self.note(format_args!(
            "front {index} is granted {volume}, {}",
            view.generation
        ));
        self.map_changed();
        let sent = now.moment();
        let delay = self.delay(20_000);
        let at = self.session(life, delay);
        self.schedule.at(
            at,
            Happening::Granted {
                life,
                sent,
                view: Box::new(view),
                lease,
            },
        );
    }

    pub(crate) fn granted(&mut self, life: Life, sent: Moment, view: VolumeView, lease: Option<LeaseId>) {
        let now = self.schedule.now.moment();
        if self.front(life).is_some_and(|front| front.deposed) {
            return self.granted_again(life, sent, view, lease);
        }
        let codes = self.codes.clone();
        let Some(front) = self.front_mut(life).filter(|front| front.owner.is_none()) else {
            return;
        };
        let mut actions = Vec::new();
        let code = view.erasure.and_then(|profile| codes.code(profile));
        front.owner = Some(Owner::open_encoded(now, sent, view, code, &mut actions));
        front.lease = lease;
        front.renewed = sent;
        front.robbed = false;
        front.opened = false;
        self.perform(life, actions);
        self.arm(life);
        self.schedule.after(1_000, Happening::Work { life });
        // A change between the grant and its arrival must not be missed.
        self.push_view(life);
    }

    /// When the next message of storaged to a front end arrives: after all that were sent before.
    pub(crate) fn session(&mut self, life: Life, delay: u64) -> Time {
        let at = self.schedule.now.after(delay);
        match self.front_mut(life) {
            Some(front) => {
                front.session_at = front.session_at.max(at);
                front.session_at
            }
            None => at,
        }
    }

    /// Hands an event to an owner, unless its process is gone; later, if it is stopped.
    pub(crate) fn feed(&mut self, life: Life, event: Event) {
        let now = self.schedule.now.moment();
        let Some(front) = self.front_mut(life) else { return };
        if front.stopped {
            front.inbox.push_back(event);
            return;
        }
        if let Event::Renewed { sent } = event {
            front.renewed = front.renewed.max(sent);
        }
        let Some(owner) = front.owner.as_mut() else { return };
        let mut actions = Vec::new();
        owner.apply(now, event, &mut actions);
        self.perform(life, actions);
        self.arm(life);
    }

    fn arm(&mut self, life: Life) {
        let now = self.schedule.now;
        let Some(front) = self.front_mut(life) else { return };
        let deadline = front
            .owner
            .as_ref()
            .and_then(|owner| owner.deadline(now.moment()));
        let at = deadline.map(|moment| Time::milliseconds(moment.0).max(now.after(1)));
        if at == front.tick_at {
            return;
        }
        front.tick_at = at;
        if let Some(at) = at {
            self.schedule.at(at, Happening::Tick { life, at });
        }
    }

    pub(crate) fn tick(&mut self, life: Life, at: Time) {
        let Some(front) = self.front_mut(life) else { return };
        if front.tick_at != Some(at) {
            return;
        }
        front.tick_at = None;
        self.feed(life, Event::Tick);
        self.arm(life);
    }

    fn perform(&mut self, life: Life, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect(view) => {
                    if let Some(front) = self.front_mut(life) {
                        front.wanted.insert(view.disk);
                    }
                    let delay = self.delay(5_000);
                    self.schedule.after(
                        delay,
                        Happening::Connect {
                            life,
                            disk: view.disk,
                        },
                    );
                }
                Action::Disconnect { disk } => self.disconnect(life, disk),
                Action::Reset { disk } => {
                    self.meet("silent connection reset");
                    let id = self
                        .front(life)
                        .and_then(|front| front.connections.get(&disk).copied());
                    if let Some(connection) = id {
                        self.schedule.after(1, Happening::FrontSeesEnd { connection });
                        let delay = self.delay(50_000);
                        self.schedule.after(delay, Happening::DiskSeesEnd { connection });
                    }
                }
                Action::Send {
                    disk,
                    number,
                    request,
                } => {
                    // A question whether anything has changed is no use of the volume.
                    if !matches!(request, Request::Ping { .. } | Request::Vouch(_)) {
                        self.check_lease(life);
                    }
                    self.send_or_read(life, disk, number, request);
                }
                Action::Complete { id, result } => self.completed(life, id, result),
                Action::Opened => {
                    self.note(format_args!("front {} is open", life.front));
                    if let Some(front) = self.front_mut(life) {
                        front.opened = true;
                    }
                }
                Action::Renew => {
                    let delay = if self.chance.percent(95) {
                        self.delay(20_000)
                    } else {
                        2_000_000
                    };
                    let sent = self.schedule.now.moment();
                    self.schedule.after(delay, Happening::Renewal { life, sent });
                }
                Action::WantView => {
                    let delay = self.delay(20_000);
                    self.schedule.after(delay, Happening::ViewWanted { life });
                }
                Action::Suspect { disk, reason } => self.suspected(life, disk, &reason),
                // It would leave its groups as one that is suspected does.
                Action::Slow { .. } => self.meet("slow disk told of"),
                Action::Quiesced { token } => {
                    let volume = self.fronts[life.front].volume;
                    let delay = self.delay(20_000);
                    self.schedule
                        .after(delay, Happening::QuiescedArrives { volume, token });
                }
                Action::Resized(_) => {}
                Action::Deposed => self.deposed(life),
                Action::Lost => self.ends(life, "lost its volume"),
                Action::Closed => self.ends(life, "closed its volume"),
            }
        }
    }

    /// Rule 1: an owner sends nothing 0.8 lease times after it sent its last good renewal, unless all slots vouch
    /// for it.
    fn check_lease(&mut self, life: Life) {
        let now = self.schedule.now.moment();
        let Some(front) = self.front(life) else {
            return;
        };
        if front.lease.is_some() && now.since(front.renewed) > LEASE_MS * 8 / 10 {
            let owner = front.owner.as_ref();
            if owner.is_some_and(|owner| owner.is_vouched_for(now)) {
                return self.meet("served without a lease");
            }
            self.violate(format!("rule 1: front {} sends without a lease", life.front));
        }
    }

    fn suspected(&mut self, life: Life, disk: DiskId, reason: &str) {
        self.note(format_args!("front {} suspects {disk}: {reason}", life.front));
        self.meet("disk suspected");
        let complaint = self
            .front(life)
            .filter(|front| !front.cut_off)
            .map(|front| (front.volume, front.generation()));
        if let Some((volume, generation)) = complaint.filter(|(_, generation)| generation.0 > 0) {
            self.complain(volume, generation, disk);
        }
        if reason.contains("lost a write") && !self.fronts[life.front].robbed {
            self.violate(format!(
                "rule 5: front {} convicts {disk}, which lost nothing: {reason}",
                life.front
            ));
        }
    }

    fn disconnect(&mut self, life: Life, disk: DiskId) {
        let Some(front) = self.front_mut(life) else { return };
        front.wanted.remove(&disk);
        if let Some(connection) = front.connections.remove(&disk) {
            self.break_connection(connection);
        }
    }

    /// An owner is through with its volume: the process begins again.
    fn ends(&mut self, life: Life, how: &str) {
        self.note(format_args!("front {} {how}", life.front));
        let Some(front) = self.front_mut(life) else { return };
        let lease = front.lease.take();
        front.owner = None;
        front.deposed = false;
        front.opened = false;
        front.tick_at = None;
        front.submitted.clear();
        for connection in std::mem::take(&mut front.connections).into_values() {
            self.close_connection(connection);
        }
        if let Some(lease) = lease {
            self.schedule.after(1_000, Happening::DeathNoticed { lease });
        }
        // A new life: nothing that was on its way to the old owner may reach the next one.
        let front = &mut self.fronts[life.front];
        front.number += 1;
        front.inbox.clear();
        if !self.ending.closing {
            let pause = self.chance.between(10_000, 500_000);
            self.schedule.after(pause, Happening::Open { front: life.front });
        }
    }

    /// The process dies. What it sent may still arrive; storaged learns of it, or the lease lapses.
    pub(crate) fn crash_front(&mut self, index: usize) {
        let front = &mut self.fronts[index];
        if !front.alive {
            return;
        }
        front.alive = false;
        front.number += 1;
        front.stopped = false;
        front.cut_off = false;
        front.owner = None;
        front.deposed = false;
        front.opened = false;
        front.tick_at = None;
        front.inbox.clear();
        front.submitted.clear();
        let lease = front.lease.take();
        let connections = std::mem::take(&mut front.connections);
        self.note(format_args!("front {index} crashes"));
        for connection in connections.into_values() {
            self.break_connection(connection);
        }
        if let Some(lease) = lease
            && self.chance.percent(50)
        {
            let delay = self.delay(50_000);
            self.schedule.after(delay, Happening::DeathNoticed { lease });
        }
        let pause = self.chance.between(10_000, 2_000_000);
        self.schedule.after(pause, Happening::Open { front: index });
    }

    /// The process ends for good.
    pub(crate) fn retire_front(&mut self, index: usize) {
        self.crash_front(index);
        self.fronts[index].retired = true;
    }

    /// The earliest instant at which one more message to a front end may arrive; notes it.
    pub(crate) fn session_not_before(&mut self, life: Life, at: Time) -> Time {
        let delay = at.0.saturating_sub(self.schedule.now.0);
        self.session(life, delay)
    }

    /// The process is stopped for a while, as by SIGSTOP.
    pub(crate) fn stop_front(&mut self, index: usize, microseconds: u64) {
        let front = &mut self.fronts[index];
        if front.alive && !front.stopped {
            front.stopped = true;
            let life = front.life(index);
            self.note(format_args!("front {index} is stopped"));
            self.schedule.after(microseconds, Happening::Resume { life });
        }
    }

    pub(crate) fn resume(&mut self, life: Life) {
        let Some(front) = self.front_mut(life) else { return };
        if !std::mem::replace(&mut front.stopped, false) {
            return;
        }
        self.note(format_args!("front {} goes on", life.front));
        while let Some(event) = self.front_mut(life).and_then(|front| front.inbox.pop_front()) {
            self.feed(life, event);
        }
        self.feed(life, Event::Tick);
    }

    /// The front end's storaged loses the coordination store for a while: nothing is renewed, nothing is heard. Others
    /// reach it, and may take the volume over when the lease lapses.
    pub(crate) fn cut_off(&mut self, index: usize, microseconds: u64) {
        let front = &mut self.fronts[index];
        if front.alive && front.lease.is_some() && !front.cut_off {
            front.cut_off = true;
            let life = front.life(index);
            self.note(format_args!("front {index} is cut off from the store"));
            self.schedule.after(microseconds, Happening::Reached { life });
        }
    }

    pub(crate) fn is_cut_off(&self, life: Life) -> bool {
        self.front(life).is_some_and(|front| front.cut_off)
    }

    /// The store is reached again: what is the case there is heard at once.
    pub(crate) fn reach(&mut self, life: Life) {
        let Some(front) = self.front_mut(life) else { return };
        if std::mem::replace(&mut front.cut_off, false) {
            self.note(format_args!("front {} reaches the store again", life.front));
            self.push_view(life);
        }
    }

    pub(crate) fn renewal(&mut self, life: Life, sent: Moment) {
        let lease = self.front(life).filter(|front| !front.cut_off);
        let Some(lease) = lease.and_then(|front| front.lease) else {
            return;
        };
        let renewed = self.cluster.renew(self.schedule.now, lease);
        let delay = self.delay(20_000);
        let at = self.session(life, delay);
        let answer = if renewed {
            Happening::Renewed { life, sent }
        } else {
            Happening::Revoked { life }
        };
        self.schedule.at(at, answer);
    }

    /// storaged sends a front end the present view, unless it is holding it still: a view would end that. Who reads a
    /// snapshot is never held.
    pub(crate) fn push_view(&mut self, life: Life) {
        let Some(front) = self.front(life) else { return };
        let volume = front.volume;
        let held = front.snapshot.is_none() && self.guards.contains_key(&volume);
        if front.owner.is_none() || front.cut_off || held {
            return;
        }
        let view = match &front.snapshot {
            Some(name) => self.cluster.map.snapshot_view(volume, name, NODE),
            None if self.cluster.map.generation(volume) == Some(front.generation()) => self
                .cluster
                .map
                .volume_view(volume, NODE, front.generation(), LEASE_MS),
            None => None,
        };
        let Some(view) = view else { return };
        let delay = self.delay(50_000);
        let at = self.session(life, delay);
        self.schedule.at(
            at,
            Happening::ViewArrives {
                life,
                view: Box::new(view),
            },
        );
    }
}
