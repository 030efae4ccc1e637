//! Makes volumes block devices of this host, finds those that are there, and ends them: what others call a device is
//! `/dev/storaged/VOLUME`, whatever number the kernel gave it.
//!
//! Which devices there are is known to the kernel alone: nothing is written down that could be wrong after a crash.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use admin_api::names::{NameError, Reference};
use rustix::fs::{FlockOperation, flock};
use storaged_nbd::address::ListenAddress;
use storaged_nbd::wire::TransmissionFlags;

use crate::handshake::{self, HandshakeError};
use crate::kernel::{Device, Kernel, KernelError, Owner, Tag};

/// Where devices are found by their volumes' names.
pub const FOLDER: &str = "/dev/storaged";
/// Where the kernel's own names are.
const NODES: &str = "/dev";

/// Why a volume is no device, or still one.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No volume is called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The gateway has none, or is away.
    #[error(transparent)]
    Gateway(#[from] HandshakeError),
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Somebody else made it.
    #[error("{export} is a block device already, {path}, made by {}", made_by(*.owner))]
    Taken {
        /// The volume.
        export: Reference,
        /// The device.
        path: PathBuf,
        /// Who made it.
        owner: Owner,
    },
    /// It is there, and not as it was asked for.
    #[error("{export} is a block device already, {path}, which is {}: unmap it first", if *.read_only { "read only" } else { "writable" })]
    Differs {
        /// The volume.
        export: Reference,
        /// The device.
        path: PathBuf,
        /// How it is.
        read_only: bool,
    },
    /// There is no device.
    #[error("{0} is no block device of this host")]
    NotMapped(Reference),
    /// It is mounted, or a guest has it open.
    #[error("{0} is in use on this host: unmount it, or end what has it open")]
    InUse(Reference),
    /// The names in [`FOLDER`] cannot be kept.
    #[error("{path}: {source}")]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn made_by(owner: Owner) -> &'static str {
    match owner {
        Owner::Host => "storaged-attach map",
        Owner::Cloud => "OpenStack",
    }
}

/// A device with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// What it is called.
    pub path: PathBuf,
    /// What the kernel tells of it.
    pub device: Device,
}

/// This host's devices.
#[derive(Clone)]
pub struct Mapper {
    /// Who makes them.
    pub kernel: Arc<dyn Kernel>,
    /// Where their data comes from.
    pub gateway: ListenAddress,
    /// Where their names are: [`FOLDER`], but in tests.
    pub folder: PathBuf,
}

impl Mapper {
    /// Devices of this kernel, over this gateway.
    pub fn new(kernel: Arc<dyn Kernel>, gateway: ListenAddress) -> Self {
        Self {
            kernel,
            gateway,
            folder: PathBuf::from(FOLDER),
        }
    }

    /// All devices, with the names that they have or should have.
    pub fn list(&self) -> Result<Vec<Mapped>, MapError> {
        let devices = self.kernel.devices()?;
        Ok(devices.into_iter().map(|device| self.named(device)).collect())
    }

    /// Makes a volume a device, or finds the one that it is. Blocks for as long as the gateway takes to open the volume.
    pub fn map(&self, export: &str, owner: Owner, read_only: bool) -> Result<Mapped, MapError> {
        let export: Reference = export.parse()?;
        let _turn = self.lock(&export)?;
        if let Some(found) = self.find(&export)? {
            // What is asked for is less than what a snapshot is anyway.
            let fits = found.device.read_only == read_only || export.snapshot.is_some();
            let Mapped { path, device } = found.clone();
            if device.tag.owner != owner {
                return Err(MapError::Taken {
                    export,
                    path,
                    owner: device.tag.owner,
                });
            }
            if !fits {
                return Err(MapError::Differs {
                    export,
                    path,
                    read_only: device.read_only,
                });
            }
            self.link(&found)?;
            return Ok(found);
        }
        let (link, told) = handshake::open(&self.gateway, &export.to_string())?;
        let flags = if read_only {
            told.flags | TransmissionFlags::READ_ONLY
        } else {
            told.flags
        };
        let tag = Tag { owner, export };
        let device = self.kernel.connect(&tag, told.size, flags, link.as_fd())?;
        let mapped = self.named(device);
        if let Err(error) = self.link(&mapped) {
            self.kernel.cut(&mapped.device)?;
            return Err(error);
        }
        Ok(mapped)
    }

    /// Ends the device of a volume, unless it is in use or somebody else's. With `force` used ones, and anybody's, too.
    pub fn unmap(&self, export: &str, owner: Owner, force: bool) -> Result<(), MapError> {
        let export: Reference = export.parse()?;
        let _turn = self.lock(&export)?;
        let Some(found) = self.find(&export)? else {
            return Err(MapError::NotMapped(export));
        };
        if found.device.tag.owner != owner && !force {
            return Err(MapError::Taken {
                export,
                path: found.path,
                owner: found.device.tag.owner,
            });
        }
        // The name goes first: once the device has ended, its number may be anybody's.
        unlink(&found.path)?;
        if force {
            return Ok(self.kernel.cut(&found.device)?);
        }
        match self.kernel.release(&found.device) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.link(&found)?;
                Err(MapError::InUse(export))
            }
            Err(error) => {
                self.link(&found)?;
                Err(error.into())
            }
        }
    }

    /// Makes the names as the devices are: after a crash between the two, names may lead to what is not ours any more.
    pub fn settle_names(&self) -> Result<(), MapError> {
        let mut exports: BTreeSet<String> = self
            .list()?
            .iter()
            .map(|mapped| mapped.device.tag.export.to_string())
            .collect();
        match fs::read_dir(&self.folder) {
            Ok(entries) => {
                exports.extend(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&self.folder, error)),
        }
        // What is called otherwise is no name of a device: our own files, or somebody else's.
        for export in exports.iter().filter_map(|name| name.parse().ok()) {
            let _turn = self.lock(&export)?;
            match self.find(&export)? {
                Some(mapped) => self.link(&mapped)?,
                None => unlink(&self.folder.join(export.to_string()))?,
            }
        }
        Ok(())
    }

    fn find(&self, export: &Reference) -> Result<Option<Mapped>, MapError> {
        let devices = self.kernel.devices()?;
        let found = devices.into_iter().find(|device| device.tag.export == *export);
        Ok(found.map(|device| self.named(device)))
    }

    fn named(&self, device: Device) -> Mapped {
        Mapped {
            path: self.folder.join(device.tag.export.to_string()),
            device,
        }
    }

    /// About one volume one after the other, whoever asks: two at once would make two devices of it.
    fn lock(&self, export: &Reference) -> Result<File, MapError> {
        fs::create_dir_all(&self.folder).map_err(|source| failed(&self.folder, source))?;
        let path = self.folder.join(format!(".{export}.lock"));
        let locked = || {
            let file = File::create(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        locked().map_err(|source| failed(&path, source))
    }

    /// Makes a device's name lead to it. A name is there or not, and never half.
    fn link(&self, mapped: &Mapped) -> Result<(), MapError> {
        let target = Path::new(NODES).join(mapped.device.node());
        if fs::read_link(&mapped.path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        // No volume is called so.
        let next = self.folder.join(format!(".{}.next", mapped.device.tag.export));
        unlink(&next)?;
        std::os::unix::fs::symlink(&target, &next).map_err(|source| failed(&next, source))?;
        fs::rename(&next, &mapped.path).map_err(|source| failed(&mapped.path, source))
    }
}

fn unlink(path: &Path) -> Result<(), MapError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, source: io::Error) -> MapError {
    MapError::Folder {
        path: path.to_owned(),
        source,
    }
}
