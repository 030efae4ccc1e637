//! The data thread: owns the device and the rings that run, and obeys the control thread.
//!
//! A command is acknowledged when it is carried out. For a stop that means: every request that was
//! taken from the ring is answered and published, so that whoever uses the ring next loses nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;

use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::tenure::Tenure;

use crate::backing::Backing;
use crate::guest_memory::GuestMemory;
use crate::ring::{Legacy, Ring, Vring};

/// Commands that may wait for the data thread. The control thread waits for each to be
/// acknowledged, so there is never more than one.
pub const COMMANDS_MAX: usize = 1;

/// What the control thread asks for.
pub enum Command {
    /// Let a ring run that does not run.
    Start {
        /// Its number.
        index: u16,
        /// Its configuration, which the control thread leaves alone until the ring is stopped.
        vring: Vring,
        /// The memory that it lies in.
        memory: GuestMemory,
        /// The eventfd that the guest writes to, not blocking.
        kick: File,
        /// What a former process has left of it.
        legacy: Legacy,
        /// Written to when the ring runs, with whether it does.
        done: SyncSender<bool>,
    },
    /// Nothing but the acknowledgement: all that the data thread does afterwards, it does with what was
    /// changed before.
    Pass {
        /// Written to.
        done: SyncSender<bool>,
    },
    /// Let a ring finish what it has taken, then leave it alone.
    Stop {
        /// Its number.
        index: u16,
        /// Written to when nothing of it is under way.
        done: SyncSender<bool>,
    },
}

/// The rings that run, by number.
pub struct Worker {
    backing: Rc<Backing>,
    rings: RefCell<BTreeMap<u16, Rc<Ring>>>,
    /// Told whether any ring runs.
    tenure: Option<Rc<Tenure>>,
}

impl Worker {
    /// Over a device. Must be used on a tokio `LocalSet`.
    pub fn new(backing: Rc<Backing>) -> Self {
        Self {
            backing,
            rings: RefCell::default(),
            tenure: None,
        }
    }

    /// As [`Worker::new`], over a volume that is to know whether rings run.
    #[must_use]
    pub fn with_tenure(self, tenure: Option<Rc<Tenure>>) -> Self {
        Self { tenure, ..self }
    }

    fn tell_tenure(&self) {
        if let Some(tenure) = &self.tenure {
            tenure.set_busy(!self.rings.borrow().is_empty());
        }
    }

    /// Obeys until `shutdown` resolves or the control thread is gone, then lets all rings finish.
    pub async fn serve(&self, mut commands: mpsc::Receiver<Command>, shutdown: impl Future<Output = ()>) {
        let obey = async {
            while let Some(command) = commands.recv().await {
                self.obey(command).await;
            }
        };
        tokio::select! {
            () = obey => info!("the control thread has ended"),
            () = shutdown => info!("draining: requests that were taken are finished, others stay with the guest"),
        }
        self.stop_all().await;
    }

    /// The rings that run, in order of their numbers.
    pub fn rings(&self) -> Vec<(u16, Rc<Ring>)> {
        let rings = self.rings.borrow();
        rings
            .iter()
            .map(|(index, ring)| (*index, Rc::clone(ring)))
            .collect()
    }

    async fn obey(&self, command: Command) {
        let (done, outcome) = match command {
            Command::Start {
                index,
                vring,
                memory,
                kick,
                legacy,
                done,
            } => (done, self.start(index, vring, memory, kick, legacy)),
            Command::Pass { done } => (done, true),
            Command::Stop { index, done } => {
                self.stop(index).await;
                (done, true)
            }
        };
        // The control thread may have given up; then nobody needs the answer.
        let _ = done.send(outcome);
    }

    fn start(&self, index: u16, vring: Vring, memory: GuestMemory, kick: File, legacy: Legacy) -> bool {
        // Tokio's pipe end is its one safe type for any descriptor that can be polled and read; an
        // eventfd is read like a pipe that holds eight bytes or none.
        let kick = match Receiver::from_file_unchecked(kick) {
            Ok(kick) => kick,
            Err(cause) => {
                error!(ring = index, %cause, "cannot wait for the ring's kicks");
                return false;
            }
        };
        let ring = Ring::new(index, vring, memory, Rc::clone(&self.backing), legacy);
        tokio::task::spawn_local(Rc::clone(&ring).run(kick));
        let former = self.rings.borrow_mut().insert(index, ring);
        debug_assert!(former.is_none(), "the control thread starts a ring once");
        self.tell_tenure();
        true
    }

    async fn stop(&self, index: u16) {
        let ring = self.rings.borrow().get(&index).cloned();
        let Some(ring) = ring else { return };
        ring.stop();
        // The hypervisor stands still meanwhile: it must not wait for a volume's limits.
        self.backing.hurried(ring.ended()).await;
        // Only now: a shutdown may cut this call off, and must still find the ring to wait for.
        self.rings.borrow_mut().remove(&index);
        self.tell_tenure();
    }

    async fn stop_all(&self) {
        // First all are told, so that they finish side by side.
        for ring in self.rings.borrow().values() {
            ring.stop();
        }
        let indexes: Vec<u16> = self.rings.borrow().keys().copied().collect();
        for index in indexes {
            self.stop(index).await;
        }
    }
}
