//! One target: a thread with its own event loop, on which its units, its sessions and all their connections live, so
//! that nothing on the data path crosses threads.

pub mod session;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use client::device::DeviceEvent;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::connection::{self, stream::Pdu};
use crate::reservation::Nexus;
use crate::scsi::identification::Identity;
use crate::source::{OpenVolume, Patience, Source, SourceError, Volumes, serial};
use crate::unit::Unit;
use crate::unit::reservations::{begin, follow, give_up, read, take_notice};
use crate::unit::tasks::settled;
use admin_api::iscsi::{Configuration, Lun, Target};
use session::{LOG_OUT_LIMIT, Session, Stay};

/// Newcomers that may wait for a target's thread.
pub const NEWCOMERS_MAX: usize = 64;
/// How long a target that nobody uses keeps its volumes: an initiator that lost its connection is back by then. Whoever
/// wants a volume for himself must wait so long.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How often a target looks whether it goes on.
const PULSE: Duration = Duration::from_millis(500);
/// An initiator gives a path up when a ping was not answered for 5 s, as open-iscsi is set, or later.
const STANDSTILL_MAX: Duration = Duration::from_secs(5);
/// Between two tries to open what could not be opened.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Sessions of one target.
pub const SESSIONS_MAX: usize = 256;

/// What the whole process knows of targets; told anew with each change.
pub type Configured = watch::Receiver<Arc<Configuration>>;

/// A connection whose first login request named this target.
pub struct Newcomer {
    /// The socket, detached from its former event loop.
    pub stream: std::net::TcpStream,
    /// The first login request.
    pub first: Pdu,
    /// The portal group that it came in by.
    pub portal_group: u16,
    /// Its place among all connections; given back when it is dropped.
    pub place: OwnedSemaphorePermit,
}

/// A target on its thread.
pub struct Home {
    /// Its name.
    pub name: String,
    volumes: Volumes,
    configured: Configured,
    units: RefCell<BTreeMap<u16, Opened>>,
    sessions: RefCell<BTreeMap<u16, Rc<Session>>>,
    next_tsih: Cell<u16>,
    portal_group: u16,
    /// When this thread was last seen to go on.
    alive: Cell<Instant>,
    /// A unit's volume is not ours any more.
    lost: Rc<Notify>,
}

/// A unit with its volume.
struct Opened {
    unit: Rc<Unit>,
    /// Not here while it has to be opened again.
    volume: Option<OpenVolume>,
    /// Follows the volume's reservations.
    following: AbortHandle,
}

/// Starts the thread of a target. It ends when the last connection is gone for some time, when the last sender of
/// `newcomers` is, or when `leaving` is raised.
pub fn start(
    name: String,
    portal_group: u16,
    source: Source,
    configured: Configured,
    newcomers: mpsc::Receiver<Newcomer>,
    leaving: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = move || {
        let span = info_span!("target", target = %name);
        let volumes = match source.volumes() {
            Ok(volumes) => volumes,
            Err(error) => return span.in_scope(|| warn!(%error, "a target cannot be served")),
        };
        let home = Home {
            name,
            volumes,
            configured,
            units: RefCell::default(),
            sessions: RefCell::default(),
            next_tsih: Cell::new(1),
            portal_group,
            alive: Cell::new(Instant::now()),
            lost: Rc::default(),
        };
        LocalSet::new().block_on(&runtime, Rc::new(home).run(newcomers, leaving).instrument(span));
        drop(alive);
    };
    // The kernel cuts a thread's name at 15 bytes.
    std::thread::Builder::new()
        .name("target".to_owned())
        .spawn(work)?;
    Ok(())
}

impl Home {
    async fn run(
        self: Rc<Self>,
        mut newcomers: mpsc::Receiver<Newcomer>,
        mut leaving: watch::Receiver<bool>,
    ) {
        let mut configured = self.configured.clone();
        let mut connections = JoinSet::new();
        let pulse = spawn_local(pulse(Rc::downgrade(&self)));
        let mut retries = interval(RETRY_PAUSE);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow_configuration().await;
        info!("serving");
        loop {
            tokio::select! {
                newcomer = newcomers.recv() => match newcomer {
                    Some(newcomer) => {
                        self.open_missing(Patience::Waits).await;
                        let serving = connection::serve(Rc::clone(&self), newcomer);
                        connections.spawn_local(serving.in_current_span());
                    }
                    // The doors are shut: the process leaves, whether that was heard here already or not.
                    None => break,
                },
                // Whoever comes at this very moment is sent away, and comes again.
                () = sleep(IDLE_MAX), if self.volumes.give_back() && connections.is_empty() => break,
                Some(_) = connections.join_next() => {}
                () = self.lost.notified() => self.open_lost().await,
                _ = retries.tick(), if !connections.is_empty() && self.misses_units() => {
                    self.open_missing(Patience::Asks).await;
                }
                // An error means that nobody can change it any more.
                Ok(()) = configured.changed() => self.follow_configuration().await,
                _ = leaving.wait_for(|raised| *raised) => break,
            }
        }
        drop(newcomers);
        self.end_sessions(Stay::AskedToLeave, |_| true);
        let left = async { while connections.join_next().await.is_some() {} };
        // Whoever did not do as he was asked is not waited for.
        let _ = timeout(LOG_OUT_LIMIT, left).await;
        self.end_sessions(Stay::Dismissed, |_| true);
        while connections.join_next().await.is_some() {}
        pulse.abort();
        let units = std::mem::take(&mut *self.units.borrow_mut());
        for opened in units.into_values() {
            opened.close().await;
        }
        info!("closed");
    }

    /// The target as it is configured now; nothing if it was deleted.
    pub fn target(&self) -> Option<Target> {
        let configuration = self.configured.borrow();
        let found = configuration
            .targets
            .iter()
            .find(|target| target.name == self.name);
        found.cloned()
    }

    /// A unit, by its number.
    pub fn unit(&self, number: u16) -> Option<Rc<Unit>> {
        let units = self.units.borrow();
        units.get(&number).map(|opened| Rc::clone(&opened.unit))
    }

    /// All units.
    pub fn units(&self) -> Vec<Rc<Unit>> {
        let units = self.units.borrow();
        units.values().map(|opened| Rc::clone(&opened.unit)).collect()
    }

    /// All sessions.
    pub fn sessions(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().values().cloned().collect()
    }

    /// These sessions may stay no longer than that.
    pub fn end_sessions(&self, stay: Stay, which: impl Fn(&Session) -> bool) {
        for session in self.sessions().into_iter().filter(|session| which(session)) {
            session.limit(stay);
        }
    }

    /// A session is about to take the place of those with the same name. When this returns, these are over, and nothing
    /// that they began is under way (RFC 7143 section 6.3.5): what the new one writes is not written over by it.
    pub async fn make_way(&self, nexus: &Nexus) {
        loop {
            self.end_sessions(Stay::Over, |session| session.nexus == *nexus);
            let units = self.units();
            let tasks = units
                .iter()
                .flat_map(|unit| unit.tasks.abort(Some(nexus), |task| task.nexus == *nexus));
            let tasks: Vec<_> = tasks.collect();
            if tasks.iter().all(|task| task.is_settled()) {
                return;
            }
            settled(tasks).await;
        }
    }

    /// Whether this thread stood still for longer than initiators wait; then all sessions end. What waits in their sockets
    /// may have been given up and done again by another portal, and must not be done now.
    pub fn stood_still(&self) -> bool {
        let stood_still = self.alive.get().elapsed() > STANDSTILL_MAX;
        if stood_still {
            self.end_sessions(Stay::Dismissed, |_| true);
        }
        stood_still
    }

    /// Makes a session known, by a number that no other one has. Nothing if there are too many.
    pub fn begin_session(&self, make: impl FnOnce(u16) -> Session) -> Option<Rc<Session>> {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let mut tsih = self.next_tsih.get();
        while tsih == 0 || sessions.contains_key(&tsih) {
            tsih = tsih.wrapping_add(1);
        }
        self.next_tsih.set(tsih.wrapping_add(1));
        let session = Rc::new(make(tsih));
        sessions.insert(tsih, Rc::clone(&session));
        for unit in self.units() {
            unit.attentions.borrow_mut().begin(&session.nexus);
        }
        Some(session)
    }

    /// A session is over: what it left behind is undone, unless another session has taken its place.
    pub async fn forget_session(&self, session: &Session) {
        self.sessions.borrow_mut().remove(&session.tsih);
        let known = self.sessions();
        if known.iter().all(|other| other.nexus != session.nexus) {
            for unit in self.units() {
                unit.attentions.borrow_mut().forget(&session.nexus);
                unit.copies.forget(&session.nexus);
            }
            self.give_up(&session.nexus).await;
        }
    }

    /// A session ends: what it has reserved is free when this returns, unless the cluster cannot be told.
    pub async fn give_up(&self, nexus: &Nexus) {
        for unit in self.units() {
            if give_up(&unit, nexus).await.is_err() {
                warn!(
                    lun = unit.lun.number,
                    "what a session had reserved stays reserved for now"
                );
            }
        }
    }

    /// Opens what is configured and not open, closes what is open and not configured, ends sessions of those who may
    /// not be here any more.
    async fn follow_configuration(&self) {
        let target = self.target();
        let luns = target
            .as_ref()
            .map(|target| target.luns.clone())
            .unwrap_or_default();
        self.end_sessions(Stay::Dismissed, |session| {
            target
                .as_ref()
                .is_none_or(|target| target.lets_in(&session.nexus.initiator).is_none())
        });
        let gone: Vec<u16> = {
            let units = self.units.borrow();
            let stays = |unit: &Unit| luns.iter().any(|lun| is_same(lun, &unit.lun));
            units
                .iter()
                .filter(|(_, opened)| !stays(&opened.unit))
                .map(|(number, _)| *number)
                .collect()
        };
        for unit in self.units() {
            unit.look_at_ways(|groups| groups.follow_portals(&self.configured.borrow().portals));
        }
        let mut changed = !gone.is_empty();
        for number in gone {
            let removed = self.units.borrow_mut().remove(&number);
            if let Some(opened) = removed {
                opened.close().await;
            }
        }
        changed |= self.open(&luns, Patience::Waits).await;
        if changed {
            for unit in self.units() {
                unit.attentions
                    .borrow_mut()
                    .tell_all(crate::scsi::sense::Sense::UNITS_CHANGED);
            }
        }
    }

    /// Whether there are units that could not be opened.
    fn misses_units(&self) -> bool {
        let misses = |target: Target| target.luns.iter().any(|lun| !self.is_open(lun.number));
        self.target().is_some_and(misses)
    }

    fn is_open(&self, number: u16) -> bool {
        let units = self.units.borrow();
        units.get(&number).is_some_and(|opened| !opened.unit.lost.get())
    }

    /// Opens units that could not be opened before.
    async fn open_missing(&self, patience: Patience) {
        if let Some(target) = self.target() {
            self.open(&target.luns, patience).await;
        }
    }

    /// Opens units again whose volumes are somebody else's, or were given up for dead with this process.
    async fn open_lost(&self) {
        let volumes: Vec<OpenVolume> = {
            let mut units = self.units.borrow_mut();
            let lost = units.values_mut().filter(|opened| opened.unit.lost.get());
            lost.filter_map(|opened| opened.volume.take()).collect()
        };
        for volume in volumes {
            volume.close().await;
        }
        self.open_missing(Patience::Asks).await;
    }

    async fn open(&self, luns: &[Lun], patience: Patience) -> bool {
        let mut opened = false;
        for lun in luns {
            if self.is_open(lun.number) {
                continue;
            }
            match self.open_unit(lun, patience).await {
                Ok(()) => opened = true,
                Err(error) => warn!(lun = lun.number, %error, "a logical unit is missing"),
            }
        }
        opened
    }

    async fn open_unit(&self, lun: &Lun, patience: Patience) -> Result<(), SourceError> {
        let volume = self.volumes.open(lun, patience).await?;
        let keeper = self.volumes.keeper(lun.volume_id, &volume);
        let identity = Identity::new(&serial(lun.volume_id), &self.name, self.portal_group);
        let device = Rc::clone(&volume.device);
        let unit = Rc::new(Unit::new(lun.clone(), device, identity, keeper));
        let taker = Rc::downgrade(&unit);
        volume.take_notices(Box::new(move |taken| {
            let Some(unit) = taker.upgrade() else {
                return taken();
            };
            let taking = async move {
                take_notice(&unit).await;
                taken();
            };
            spawn_local(taking.in_current_span());
        }));
        let told = Rc::downgrade(&unit);
        let ways = volume.ways();
        let lost = Rc::clone(&self.lost);
        volume
            .device
            .listen(Box::new(move |event| match (event, told.upgrade()) {
                (DeviceEvent::Resized(size), Some(unit)) => {
                    info!(size, "a volume's size changed");
                    unit.look_at_size();
                }
                (DeviceEvent::OwnerMoved, Some(unit)) => {
                    unit.look_at_ways(|groups| groups.follow_owner(ways.owner_node()));
                }
                (DeviceEvent::Lost, Some(unit)) => {
                    warn!("a volume is not open here any more");
                    unit.lost.set(true);
                    lost.notify_one();
                }
                _ => {}
            }));
        // Not before notices are taken: what changes after this is heard of.
        if let Err(error) = read(&unit).await {
            volume.close().await;
            return Err(error);
        }
        if begin(&unit).await.is_err() {
            warn!(
                lun = lun.number,
                "what a former gateway's initiators reserved stays reserved for now"
            );
        }
        let owner = volume.ways().owner_node();
        unit.look_at_ways(|groups| {
            groups.follow_portals(&self.configured.borrow().portals) | groups.follow_owner(owner)
        });
        for session in self.sessions() {
            unit.attentions.borrow_mut().begin(&session.nexus);
        }
        debug!(lun = lun.number, volume = lun.volume, "a logical unit is there");
        let following = follow(Rc::clone(&unit));
        let opened = Opened {
            following: spawn_local(following.in_current_span()).abort_handle(),
            unit,
            volume: Some(volume),
        };
        let former = self.units.borrow_mut().insert(lun.number, opened);
        if let Some(former) = former {
            former.close().await;
        }
        Ok(())
    }
}

impl Opened {
    async fn close(self) {
        self.following.abort();
        if let Some(volume) = self.volume {
            volume.close().await;
        }
    }
}

/// Notes that the thread goes on, again and again.
async fn pulse(home: Weak<Home>) {
    let mut beats = interval(PULSE);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let Some(home) = home.upgrade() else { return };
        // Said by whoever is first to run again: this, or a connection with something to read.
        if home.stood_still() {
            warn!("this process stood still: all sessions begin anew");
        }
        home.alive.set(Instant::now());
    }
}

/// Whether a unit can stay as it is. A volume's name may change.
fn is_same(a: &Lun, b: &Lun) -> bool {
    let lasting = |lun: &Lun| (lun.number, lun.volume_id, lun.read_only, lun.block_size);
    lasting(a) == lasting(b)
}
