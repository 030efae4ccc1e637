//! One target: a thread with its own event loop, on which its units, its sessions and all their connections live, so
//! that nothing on the data path crosses threads.

pub mod session;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use client::device::DeviceEvent;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::sleep;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::connection::{self, stream::Pdu};
use crate::reservation::Nexus;
use crate::scsi::identification::Identity;
use crate::source::{OpenVolume, Source, SourceError, Volumes, serial};
use crate::unit::Unit;
use crate::unit::reservations::{begin, follow, release};
use admin_api::iscsi::{Configuration, Lun, Target};
use session::Session;

/// Newcomers that may wait for a target's thread.
pub const NEWCOMERS_MAX: usize = 64;
/// How long a target that nobody uses keeps its volumes: an initiator that lost its connection is back by then. Whoever
/// wants a volume for himself must wait so long.
const IDLE_MAX: Duration = Duration::from_secs(10);
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
}

/// A unit whose volume is open.
struct Opened {
    unit: Rc<Unit>,
    volume: OpenVolume,
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
        self.follow_configuration().await;
        info!("serving");
        loop {
            tokio::select! {
                newcomer = newcomers.recv() => match newcomer {
                    Some(newcomer) => {
                        self.open_missing().await;
                        let serving = connection::serve(Rc::clone(&self), newcomer);
                        connections.spawn_local(serving.in_current_span());
                    }
                    None if connections.is_empty() => break,
                    None => { let _ = connections.join_next().await; }
                },
                // Whoever comes at this very moment is sent away, and comes again.
                () = sleep(IDLE_MAX), if self.volumes.give_back() && connections.is_empty() => break,
                Some(_) = connections.join_next() => {}
                // An error means that nobody can change it any more.
                Ok(()) = configured.changed() => self.follow_configuration().await,
                _ = leaving.wait_for(|raised| *raised) => break,
            }
        }
        drop(newcomers);
        self.end_sessions(|_| true);
        while connections.join_next().await.is_some() {}
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

    /// Ends sessions.
    pub fn end_sessions(&self, which: impl Fn(&Session) -> bool) {
        for session in self.sessions().into_iter().filter(|session| which(session)) {
            session.end();
        }
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
            }
            self.give_up(&session.nexus).await;
        }
    }

    /// A session ends: what it has reserved is free when this returns, unless the cluster cannot be told.
    pub async fn give_up(&self, nexus: &Nexus) {
        for unit in self.units() {
            if release(&unit, nexus).await.is_err() {
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
        self.end_sessions(|session| {
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
        let mut changed = !gone.is_empty();
        for number in gone {
            let removed = self.units.borrow_mut().remove(&number);
            if let Some(opened) = removed {
                opened.close().await;
            }
        }
        changed |= self.open(&luns).await;
        if changed {
            for unit in self.units() {
                unit.attentions
                    .borrow_mut()
                    .tell_all(crate::scsi::sense::Sense::UNITS_CHANGED);
            }
        }
    }

    /// Opens units that could not be opened before.
    async fn open_missing(&self) {
        if let Some(target) = self.target() {
            self.open(&target.luns).await;
        }
    }

    async fn open(&self, luns: &[Lun]) -> bool {
        let mut opened = false;
        for lun in luns {
            if self.units.borrow().contains_key(&lun.number) {
                continue;
            }
            match self.open_unit(lun).await {
                Ok(()) => opened = true,
                Err(error) => warn!(lun = lun.number, %error, "a logical unit is missing"),
            }
        }
        opened
    }

    async fn open_unit(&self, lun: &Lun) -> Result<(), SourceError> {
        let keeper = self.volumes.keeper(lun.volume_id);
        let record = keeper.load().await?;
        let volume = self.volumes.open(lun).await?;
        let identity = Identity::new(&serial(lun.volume_id), &self.name, self.portal_group);
        let device = Rc::clone(&volume.device);
        let unit = Rc::new(Unit::new(lun.clone(), device, identity, keeper, record));
        let told = Rc::downgrade(&unit);
        volume
            .device
            .listen(Box::new(move |event| match (event, told.upgrade()) {
                (DeviceEvent::Resized(size), Some(unit)) => {
                    info!(size, "a volume's size changed");
                    unit.look_at_size();
                }
                (DeviceEvent::Lost, _) => warn!("a volume was taken over by another process"),
                _ => {}
            }));
        if begin(&unit).await.is_err() {
            warn!(
                lun = lun.number,
                "what a former gateway's initiators reserved stays reserved for now"
            );
        }
        for session in self.sessions() {
            unit.attentions.borrow_mut().begin(&session.nexus);
        }
        debug!(lun = lun.number, volume = lun.volume, "a logical unit is there");
        let following = follow(Rc::clone(&unit));
        let opened = Opened {
            following: spawn_local(following.in_current_span()).abort_handle(),
            unit,
            volume,
        };
        self.units.borrow_mut().insert(lun.number, opened);
        Ok(())
    }
}

impl Opened {
    async fn close(self) {
        self.following.abort();
        self.volume.close().await;
    }
}

/// Whether a unit can stay as it is. A volume's name may change.
fn is_same(a: &Lun, b: &Lun) -> bool {
    let lasting = |lun: &Lun| (lun.number, lun.volume_id, lun.read_only, lun.block_size);
    lasting(a) == lasting(b)
}
