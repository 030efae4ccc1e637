//! Where volumes and their reservations come from: the cluster behind the local `storaged`, or this process's memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use client::device::{BlockDevice, DeviceInfo};
use client::memory::MemoryDevice;
use client::sectors::{SECTOR_SIZE, Sectors};
use client::shared::SharedVolume;
use client::transport::Address;
use client::volume::Options;

use crate::configuration::{Lun, Reservations};

/// What this program is called in messages of `storaged`.
const PROGRAM: &str = "iscsi";

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
    /// How long a login waits for a volume that somebody else has open alone.
    pub wait: Duration,
}

/// A volume that is open on this thread.
pub struct OpenVolume {
    /// What serves it; offsets are multiples of the unit's block size.
    pub device: Rc<dyn BlockDevice>,
    shared: Option<Rc<SharedVolume>>,
}

impl OpenVolume {
    fn new(device: Rc<dyn BlockDevice>, shared: Option<Rc<SharedVolume>>, block_size: u32) -> Self {
        let device = if block_size == SECTOR_SIZE {
            Rc::new(Sectors::new(device))
        } else {
            device
        };
        Self { device, shared }
    }

    /// Finishes what was submitted and gives the volume back.
    pub async fn close(self) {
        if let Some(shared) = self.shared {
            shared.close().await;
        }
    }
}

impl Source {
    /// Opens a unit's volume on this thread.
    pub async fn open(&self, lun: &Lun) -> Result<OpenVolume, SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.open(lun).await,
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

    /// Where a volume's reservations are kept.
    pub fn keeper(&self) -> Keeper {
        Keeper::Memory(RefCell::default())
    }

    /// Whether a target must stay while nobody uses it.
    pub fn stays_open(&self) -> bool {
        matches!(self, Self::Memory(_))
    }
}

/// The serial number of a volume, which the cluster has once.
pub fn serial(volume_id: u64) -> String {
    format!("stgd{volume_id:016x}")
}

impl Cluster {
    async fn open(&self, lun: &Lun) -> Result<OpenVolume, SourceError> {
        let options = Options {
            program: PROGRAM.to_owned(),
            storaged: self.storaged.clone(),
            volume: lun.volume.clone(),
            snapshot: None,
            read_only: lun.read_only,
            wait: self.wait,
        };
        let opened = SharedVolume::open(options).await;
        let volume = Rc::new(opened.map_err(|error| SourceError::Volume {
            volume: lun.volume.clone(),
            reason: error.to_string(),
        })?);
        Ok(OpenVolume::new(volume.clone(), Some(volume), lun.block_size))
    }
}

/// Where the reservations of one volume are kept.
pub enum Keeper {
    /// In this process, gone with it.
    Memory(RefCell<Reservations>),
}

impl Keeper {
    /// The present record.
    pub fn load(&self) -> Result<Reservations, SourceError> {
        match self {
            Self::Memory(record) => Ok(record.borrow().clone()),
        }
    }

    /// Puts a record in place of the one that it was made from. Gives the record as it is kept, or the newer one that is
    /// there instead.
    pub fn swap(&self, next: &Reservations) -> Result<Result<Reservations, Reservations>, SourceError> {
        match self {
            Self::Memory(record) => {
                let mut present = record.borrow_mut();
                if present.revision != next.revision {
                    return Ok(Err(present.clone()));
                }
                *present = Reservations {
                    revision: next.revision + 1,
                    ..next.clone()
                };
                Ok(Ok(present.clone()))
            }
        }
    }
}
