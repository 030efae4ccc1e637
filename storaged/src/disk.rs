//! One disk: a thread with its own listeners, connections, replica, store and ring.
//!
//! On the data path nothing crosses a thread: front ends connect to the disk itself. What the rest
//! of the daemon wants of a disk (reclaim, figures, the end) comes by a short queue of commands.
//! Which volumes there are, and who owns them, a disk knows only from the map.

mod alarms;
mod bookmark;
mod command;
mod connection;
mod copies;
mod driver;
mod ledger;
mod returns;
mod scrubs;
mod sources;
mod stopwatch;
mod thread;
mod vouched;

use std::path::PathBuf;
use std::thread::JoinHandle;

use client::transport::{Address, CredentialsWatch};
use protocol::storage::{StorageError, StorageRequest};
use protocol::{DiskId, FamilyId, LayerId, NodeId, ObjectId};
use replication::scrub::Order;
use tokio::sync::{mpsc, oneshot};
use tracing::error_span;

use command::Command;
pub use command::{Figures, Times};
use coordination::Revision;
use coordination::map::MapWatch;
pub use ledger::Entries;
pub use scrubs::{Report, Totals};

use crate::membership::Wishes;

/// Commands that may wait for a disk. Each waits for its answer, so this is the number of those who
/// ask at once: reclaim, metrics, status.
const COMMANDS_MAX: usize = 16;

/// What a disk is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which disk.
    pub disk: DiskId,
    /// On which node.
    pub node: NodeId,
    /// The cluster that its connections must name.
    pub cluster: [u8; 16],
    /// Where its files are. The disk must have been made there: [`store::Store::create`].
    pub directory: PathBuf,
    /// Where it listens.
    pub listen: Vec<Address>,
    /// What it shows where it listens with TLS.
    pub credentials: Option<CredentialsWatch>,
    /// How its store is opened.
    pub options: store::Options,
    /// Who changes its slots' states when it comes back; if nobody, it does not.
    pub wishes: Option<Wishes>,
    /// How much is copied to it when it comes back, in bytes a second at most.
    pub recovery_rate: u64,
    /// How much of it is read by its scrubs, in bytes a second at most.
    pub scrub_rate: u64,
}

/// Why a disk did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// It cannot listen.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Where.
        address: Address,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds another disk than the map says.
    #[error("{directory} holds {found} of cluster {found_cluster:02x?}, not {expected}: check the path")]
    Stranger {
        /// Where.
        directory: PathBuf,
        /// What the superblock says.
        found: DiskId,
        /// Of which cluster.
        found_cluster: [u8; 16],
        /// What was looked for.
        expected: DiskId,
    },
    /// The system gave no thread, or no event loop.
    #[error("cannot start the thread of a disk: {0}")]
    System(#[from] std::io::Error),
    /// The thread ended before it could tell why.
    #[error("the thread of the disk ended unexpectedly")]
    Ended,
}

/// The disk is stopping or has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk is not running")]
pub struct Stopped;

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is nobody to do it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The store refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A running disk. Dropping it lets it run on: call [`Disk::stop`].
#[derive(Debug)]
pub struct Disk {
    id: DiskId,
    listens: Vec<Address>,
    remembers: Revision,
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Opens the disk, recovers it if that is needed, and starts to serve.
    pub async fn start(settings: Settings, map: MapWatch) -> Result<Self, StartError> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (started, start) = oneshot::channel();
        let id = settings.disk;
        // Everything on its thread is about this disk.
        let span = error_span!("disk", disk = %id);
        let thread = std::thread::Builder::new()
            .name(id.to_string())
            .spawn(move || span.in_scope(|| thread::run(settings, map, receiver, started)))?;
        let (listens, remembers) = start.await.unwrap_or(Err(StartError::Ended))?;
        Ok(Self {
            id,
            listens,
            remembers,
            commands,
            thread,
        })
    }

    /// Which disk.
    pub fn id(&self) -> DiskId {
        self.id
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> &[Address] {
        &self.listens
    }

    /// The highest generation or interval that it saw before it was started.
    pub fn remembers(&self) -> Revision {
        self.remembers
    }

    /// A way to command the disk that may be kept elsewhere.
    pub fn remote(&self) -> Remote {
        Remote {
            commands: self.commands.clone(),
        }
    }

    /// Completes what is in flight, makes a checkpoint, and ends the thread.
    pub async fn stop(self) {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Stop { answer }).await.is_ok() {
            // The answer comes when the store is closed, or the sender goes with the thread.
            let _ = answered.await;
        }
        // The thread has nothing left to do but to return.
        let _ = self.thread.join();
    }
}

/// Commands a running disk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    commands: mpsc::Sender<Command>,
}

impl Remote {
    /// Up to `limit` indices of objects of one layer, ascending from `from_index`, and where to go
    /// on (nothing at the end).
    pub async fn objects_of_layer(
        &self,
        family: FamilyId,
        layer: LayerId,
        from_index: u32,
        limit: usize,
    ) -> Result<(Vec<u32>, Option<u32>), CommandError> {
        let list = |answer| Command::Objects {
            family,
            layer,
            from_index,
            limit,
            answer,
        };
        Ok(self.ask(list).await??)
    }

    /// Merges one object of `parent` into the one of `child`; durable when it returns. `row_chunks` is how many chunks of
    /// data a row has, in a pool that encodes rows.
    pub async fn merge(
        &self,
        family: FamilyId,
        index: u32,
        parent: LayerId,
        child: LayerId,
        row_chunks: Option<u8>,
    ) -> Result<(), CommandError> {
        let request = StorageRequest::Merge {
            family,
            index,
            parent,
            child,
            row_chunks,
        };
        Ok(self.ask(|answer| Command::Reclaim { request, answer }).await??)
    }

    /// Drops an object whose layer is gone; durable when it returns.
    pub async fn drop_object(&self, object: ObjectId) -> Result<(), CommandError> {
        let request = StorageRequest::Drop(object);
        Ok(self.ask(|answer| Command::Reclaim { request, answer }).await??)
    }

    /// The disk's figures.
    pub async fn figures(&self) -> Result<Figures, Stopped> {
        self.ask(|answer| Command::Figures { answer }).await
    }

    /// What the layers of a family take on the disk, in bytes.
    pub async fn usage(&self, family: FamilyId) -> Result<Vec<(LayerId, u64)>, Stopped> {
        self.ask(|answer| Command::Usage { family, answer }).await
    }

    /// Begins a scrub, before all that are under way; gives its number, or nothing if there are too many.
    pub async fn scrub(&self, order: Order) -> Result<Option<u64>, Stopped> {
        self.ask(|answer| Command::Scrub { order, answer }).await
    }

    /// How far a scrub is, with what it found since this was asked last; nothing if there is none of this number,
    /// or it was told already that it is done. Number 0 never ends: it is for what guests met as damaged.
    pub async fn scrubbed(&self, run: u64) -> Result<Option<Report>, Stopped> {
        self.ask(|answer| Command::Scrubbed { run, answer }).await
    }

    /// How long things took. Costs the disk's thread some microseconds: ask seldom.
    pub async fn times(&self) -> Result<Times, Stopped> {
        self.ask(|answer| Command::Times { answer }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}
