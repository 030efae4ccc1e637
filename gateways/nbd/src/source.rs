//! Where exports come from: the cluster behind the local `storaged`, or volumes in this process's
//! memory for trials.

use std::rc::Rc;

use client::device::{BlockDevice, DeviceInfo};
use client::memory::MemoryDevice;
use client::sectors::Sectors;
use protocol::session::ExportEntry;

use crate::export::{Description, ExportName};

/// What offsets and lengths are a multiple of on every export, in bytes. Clients of NBD may address
/// single bytes, as `nbdcopy` does at the end of an image.
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
    /// Volumes in memory, gone with the process.
    Memory(Vec<MemoryExport>),
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
}

impl Source {
    /// All volumes with their snapshots, by name.
    pub async fn list(&self) -> Result<Vec<ExportEntry>, SourceError> {
        match self {
            Self::Memory(exports) => Ok(exports.iter().map(MemoryExport::entry).collect()),
        }
    }

    /// Opens an export on this thread.
    pub async fn open(&self, name: &ExportName) -> Result<OpenExport, SourceError> {
        match self {
            Self::Memory(exports) => {
                let found = exports
                    .iter()
                    .find(|export| export.name == name.volume && name.snapshot.is_none());
                let export = found.ok_or_else(|| SourceError::NotFound(name.to_string()))?;
                Ok(OpenExport {
                    device: Rc::new(Sectors::bytes(export.device())),
                })
            }
        }
    }

    /// What an export would be if it were opened.
    pub fn describe(&self, name: &ExportName, entry: &ExportEntry) -> Description {
        Description {
            name: name.to_string(),
            size: entry.size,
            read_only: name.snapshot.is_some(),
            alignment: ALIGNMENT,
        }
    }

    /// Whether an export must stay open while nobody uses it.
    pub fn stays_open(&self) -> bool {
        matches!(self, Self::Memory(_))
    }
}

impl OpenExport {
    /// Gives the export back.
    pub async fn close(self) {}
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
