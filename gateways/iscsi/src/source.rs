//! Where volumes and their reservations come from: the cluster behind the local `storaged`, or this process's memory.

pub mod keeper;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::Duration;

use admin_api::iscsi::Lun;
use admin_client::IscsiDirectory;
use client::device::{BlockDevice, DeviceInfo};
use client::memory::MemoryDevice;
use client::sectors::{SECTOR_SIZE, Sectors};
use client::shared::{NoticeTaker, SharedVolume};
use client::transport::Address;
use client::volume::{Cache, Options};

use keeper::Keeper;

/// What this program is called in messages of `storaged`.
const PROGRAM: &str = "iscsi";

/// How long it may take to become the owner of a volume, or to reach the one that there is.
const ASK_LIMIT: Duration = Duration::from_secs(1);

/// Why a volume or its reservations cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Whoever has it says why.
    #[error("volume \"{volume}\" cannot be opened: {reason}")]
    Volume {
        /// Which.
        volume: String,
        /// Why.
        reason: String,
    },
    /// Other portals may not know of a change.
    #[error("other portals may not know yet what has changed for volume {volume:016x}: {why}")]
    Untold {
        /// Which volume.
        volume: u64,
        /// Why.
        why: String,
    },
    /// `storaged` cannot be asked.
    #[error("the storage service cannot be asked: {0}")]
    Unavailable(String),
}

/// Where volumes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The cluster.
    Cluster(Cluster),
    /// Memory: names and sizes in bytes.
    Memory(Vec<(String, u64)>),
}

/// The cluster, as its `storaged` shows it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where `storaged` can be reached, best first.
    pub storaged: Vec<Address>,
    /// Its admin socket: reservations are kept there.
    pub admin_socket: PathBuf,
    /// How long a login waits for a volume that somebody else has open alone.
    pub wait: Duration,
    /// Where what is read from disks of this machine is kept, for all volumes; initiators' memory is elsewhere.
    pub read_cache: Option<Cache>,
}

/// What one thread opens volumes with.
pub enum Volumes {
    /// See [`Source::Cluster`].
    Cluster(Cluster, IscsiDirectory),
    /// See [`Source::Memory`].
    Memory(Vec<(String, u64)>),
}

/// Whether whoever opens a volume waits for somebody who has it open alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as [`Cluster::wait`] says.
    Waits,
    /// Only for as long as it takes to find out who has it.
    Asks,
}

/// A volume that is open on this thread.
pub struct OpenVolume {
    /// What serves it; offsets are multiples of the unit's block size.
    pub device: Rc<dyn BlockDevice>,
    shared: Option<Rc<SharedVolume>>,
}

impl OpenVolume {
    fn new(device: Rc<dyn BlockDevice>, shared: Option<Rc<SharedVolume>>, block_size: u32) -> Self {
        let device = match (block_size, &shared) {
            (SECTOR_SIZE, Some(_)) => Rc::new(Sectors::of_shared(device)),
            (SECTOR_SIZE, None) => Rc::new(Sectors::new(device)),
            _ => device,
        };
        Self { device, shared }
    }

    /// Who takes notice here when another portal has changed reservations, or reset the unit: what `taker` is given is to
    /// be called when nothing goes by what was before any more.
    pub fn take_notices(&self, taker: NoticeTaker) {
        if let Some(shared) = &self.shared {
            shared.take_notices(taker);
        }
    }

    /// Where it is owned, now and later, without keeping it open.
    pub fn ways(&self) -> Ways {
        Ways(self.shared.as_ref().map(Rc::downgrade).unwrap_or_default())
    }

    /// Finishes what was submitted and gives the volume back.
    pub async fn close(self) {
        if let Some(shared) = self.shared {
            shared.close().await;
        }
    }
}

/// Tells on which node a volume is owned.
pub struct Ways(Weak<SharedVolume>);

impl Ways {
    /// The node's name; nothing if it is not known.
    pub fn owner_node(&self) -> Option<String> {
        self.0.upgrade()?.owner_node()
    }
}

impl Source {
    /// To be asked for on the thread that opens volumes: connections belong to its event loop.
    pub fn volumes(&self) -> Result<Volumes, SourceError> {
        Ok(match self {
            Self::Cluster(cluster) => {
                Volumes::Cluster(cluster.clone(), IscsiDirectory::new(&cluster.admin_socket)?)
            }
            Self::Memory(volumes) => Volumes::Memory(volumes.clone()),
        })
    }
}

impl Volumes {
    /// Whether what nobody uses is to be given back. What is in memory would be lost.
    pub fn give_back(&self) -> bool {
        matches!(self, Self::Cluster(..))
    }

    /// Opens a unit's volume on this thread.
    pub async fn open(&self, lun: &Lun, patience: Patience) -> Result<OpenVolume, SourceError> {
        match self {
            Self::Cluster(cluster, _) => cluster.open(lun, patience).await,
            Self::Memory(volumes) => {
                let found = volumes.iter().find(|(name, _)| *name == lun.volume);
                let (name, size) = found.ok_or_else(|| SourceError::Volume {
                    volume: lun.volume.clone(),
                    reason: "there is no such volume".to_owned(),
                })?;
                let device = Rc::new(MemoryDevice::with_info(DeviceInfo {
                    name: name.clone(),
                    serial: serial(lun.volume_id),
                    size: *size,
                    read_only: false,
                    alignment: protocol::BLOCK_SIZE,
                }));
                Ok(OpenVolume::new(device, None, lun.block_size))
            }
        }
    }

    /// Where the reservations of an open volume are kept.
    pub fn keeper(&self, volume: u64, open: &OpenVolume) -> Keeper {
        match self {
            Self::Cluster(_, directory) => Keeper::Cluster {
                directory: directory.clone(),
                volume,
                shared: open.shared.as_ref().map(Rc::downgrade).unwrap_or_default(),
            },
            Self::Memory(_) => Keeper::Memory(RefCell::default()),
        }
    }
}

/// The serial number of a volume, which the cluster has once.
pub fn serial(volume_id: u64) -> String {
    format!("stgd{volume_id:016x}")
}

impl Cluster {
    async fn open(&self, lun: &Lun, patience: Patience) -> Result<OpenVolume, SourceError> {
        let options = Options {
            program: PROGRAM.to_owned(),
            storaged: self.storaged.clone(),
            volume: lun.volume.clone(),
            snapshot: None,
            read_only: lun.read_only,
            wait: match patience {
                Patience::Waits => self.wait,
                Patience::Asks => ASK_LIMIT,
            },
            read_cache: self.read_cache.clone(),
        };
        let opened = SharedVolume::open(options).await;
        let volume = Rc::new(opened.map_err(|error| SourceError::Volume {
            volume: lun.volume.clone(),
            reason: error.to_string(),
        })?);
        Ok(OpenVolume::new(volume.clone(), Some(volume), lun.block_size))
    }
}
