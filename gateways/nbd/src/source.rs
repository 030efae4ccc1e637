//! Where exports come from: the cluster behind the local `storaged`, or volumes in this process's
//! memory for trials.

use std::rc::Rc;
use std::time::Duration;

use client::device::{BlockDevice, DeviceInfo};
use client::memory::MemoryDevice;
use client::sectors::Sectors;
use client::shared::SharedVolume;
use client::transport::Address;
use client::volume::{OpenError, Options, Volume};
use protocol::session::{ExportEntry, SessionRefusal};

use crate::export::{Description, ExportName};

/// What this program is called in messages of `storaged`.
const PROGRAM: &str = "nbd";
/// What offsets and lengths are a multiple of on every export, in bytes. Clients of NBD may address single bytes, as
/// `nbdcopy` does at the end of an image.
const ALIGNMENT: u32 = 1;

/// Why there is no such export, or not now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is no such volume or snapshot.
    #[error("there is no export \"{0}\"")]
    NotFound(String),
    /// It is there, and cannot be had.
    #[error("export \"{name}\" cannot be opened: {reason}")]
    Refused {
        /// The export.
        name: String,
        /// Who has it, or what is wrong.
        reason: String,
    },
    /// Nobody can tell at present.
    #[error("the storage service cannot be asked: {0}")]
    Unavailable(String),
}

/// Where exports come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Volumes and snapshots of the cluster.
    Cluster(Cluster),
    /// Volumes in memory, gone with the process.
    Memory(Vec<MemoryExport>),
}

/// The cluster, as its `storaged` shows it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where `storaged` can be reached, best first.
    pub storaged: Vec<Address>,
    /// Whether volumes are served for reading only.
    pub read_only: bool,
    /// Whether volumes are open in other processes at the same time.
    pub shared: bool,
    /// How long a client waits for a volume that somebody else has open.
    pub wait: Duration,
}

/// A volume in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryExport {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// An export that is open on this thread.
pub struct OpenExport {
    /// What serves it.
    pub device: Rc<dyn BlockDevice>,
    /// What is to be given back, if it is the cluster's.
    behind: Behind,
}

/// What an export is of.
enum Behind {
    /// Memory of this process.
    Memory,
    /// A volume or a snapshot that only this process has open.
    Volume(Rc<Volume>),
    /// A volume that others have open, too.
    Shared(Rc<SharedVolume>),
}

impl OpenExport {
    fn new(device: Rc<dyn BlockDevice>, behind: Behind) -> Self {
        Self {
            device: Rc::new(Sectors::bytes(device)),
            behind,
        }
    }

    /// Of a volume that others may change at the same time: a part of a block is written only together with what they
    /// wrote into the rest of it.
    fn shared(volume: Rc<SharedVolume>) -> Self {
        Self {
            device: Rc::new(Sectors::bytes_of_shared(volume.clone())),
            behind: Behind::Shared(volume),
        }
    }

    /// The cluster's volume, unless it is one in memory, or another process owns it just now.
    pub fn volume(&self) -> Option<Rc<Volume>> {
        match &self.behind {
            Behind::Memory => None,
            Behind::Volume(volume) => Some(Rc::clone(volume)),
            Behind::Shared(volume) => volume.volume(),
        }
    }

    /// What operations wait for, in sentences, for people.
    pub fn waiting(&self) -> Vec<String> {
        match &self.behind {
            Behind::Memory => Vec::new(),
            Behind::Volume(volume) => volume.waiting(),
            Behind::Shared(volume) => volume.waiting(),
        }
    }

    /// Finishes what was submitted and gives the export back.
    pub async fn close(self) {
        match self.behind {
            Behind::Memory => {}
            Behind::Volume(volume) => volume.close().await,
            Behind::Shared(volume) => volume.close().await,
        }
    }
}

impl Source {
    /// All volumes with their snapshots, by name.
    pub async fn list(&self) -> Result<Vec<ExportEntry>, SourceError> {
        match self {
            Self::Cluster(cluster) => client::volume::list(PROGRAM, &cluster.storaged)
                .await
                .map_err(|error| SourceError::Unavailable(error.to_string())),
            Self::Memory(exports) => Ok(exports.iter().map(MemoryExport::entry).collect()),
        }
    }

    /// Opens an export on this thread.
    pub async fn open(&self, name: &ExportName) -> Result<OpenExport, SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.open(name).await,
            Self::Memory(exports) => {
                let found = exports.iter().find(|export| export.name == name.to_string());
                let export = found.ok_or_else(|| SourceError::NotFound(name.to_string()))?;
                Ok(OpenExport::new(export.device(), Behind::Memory))
            }
        }
    }

    /// What an export would be if it were opened.
    pub fn describe(&self, name: &ExportName, entry: &ExportEntry) -> Description {
        let read_only = match self {
            Self::Cluster(cluster) => cluster.read_only || name.snapshot.is_some(),
            Self::Memory(_) => false,
        };
        Description {
            name: name.to_string(),
            size: entry.size,
            read_only,
            alignment: ALIGNMENT,
        }
    }

    /// Whether an export must stay open while nobody uses it.
    pub fn stays_open(&self) -> bool {
        matches!(self, Self::Memory(_))
    }
}

impl Cluster {
    /// Snapshots never change, so they need no owner.
    fn shares(&self, name: &ExportName) -> bool {
        self.shared && name.snapshot.is_none()
    }

    async fn open(&self, name: &ExportName) -> Result<OpenExport, SourceError> {
        let options = Options {
            program: PROGRAM.to_owned(),
            storaged: self.storaged.clone(),
            volume: name.volume.clone(),
            snapshot: name.snapshot.clone(),
            read_only: self.read_only,
            wait: self.wait,
            read_cache: None,
        };
        let failed = |error| source_error(name, error);
        if self.shares(name) {
            let volume = SharedVolume::open(options).await.map_err(failed)?;
            return Ok(OpenExport::shared(Rc::new(volume)));
        }
        let volume = Rc::new(Volume::open(options).await.map_err(failed)?);
        Ok(OpenExport::new(volume.clone(), Behind::Volume(volume)))
    }
}

fn source_error(name: &ExportName, error: OpenError) -> SourceError {
    match error {
        OpenError::Refused {
            kind: SessionRefusal::NotFound,
            ..
        } => SourceError::NotFound(name.to_string()),
        OpenError::Refused { message, .. } => SourceError::Refused {
            name: name.to_string(),
            reason: message,
        },
        OpenError::Unreachable { .. } | OpenError::Encoding { .. } | OpenError::NoAddress => {
            SourceError::Unavailable(error.to_string())
        }
    }
}

impl MemoryExport {
    fn device(&self) -> Rc<dyn BlockDevice> {
        Rc::new(MemoryDevice::with_info(DeviceInfo {
            name: self.name.clone(),
            serial: "memory".to_owned(),
            size: self.size,
            read_only: false,
            alignment: protocol::BLOCK_SIZE,
        }))
    }

    fn entry(&self) -> ExportEntry {
        ExportEntry {
            name: self.name.clone(),
            size: self.size,
            snapshots: Vec::new(),
        }
    }
}
