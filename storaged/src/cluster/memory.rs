//! What a node remembers of the cluster's records while it does not run: the file `memory` in its work directory, for
//! [`super::recall`]. Laid out by hand, with a version, whose it is, and a checksum. A file that is damaged, older or
//! newer than this program, or somebody else's is told of and counts as none: it is never a reason not to start.
//!
//! When it is written is [`keeper`]'s business; what follows from it, the recall's.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use coordination::map::{Records, Remembered};
use coordination::{ClusterMap, CoordinationError, Revision};
use protocol::NodeId;
use protocol::checksum::crc;
use tracing::warn;

use super::identity::Identity;
use super::replacement::replace;

pub mod keeper;

/// The file's name.
const FILE: &str = "memory";
/// What it begins with.
const MAGIC: [u8; 8] = *b"sdmemory";
/// The layout that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Longer files are not read: far above the records of a thousand nodes (docs/scale.md).
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Of a checksum, at the end.
const CRC_BYTES: usize = 4;

/// What a node remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last transaction that it knew of.
    pub revision: Revision,
    /// The nodes that were up then: whoever is none of these knew less.
    pub up: BTreeSet<NodeId>,
    /// All that it would put back.
    pub records: Records,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// It cannot be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
    /// It is of another version.
    #[error("it has version {0}, and this program knows {VERSION}")]
    Version(u32),
    /// It is of another node or cluster.
    #[error("it is another node's")]
    Foreign,
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Something is too long for its place.
    #[error("the records are too many or too long for it")]
    TooLong,
}

impl Memory {
    /// What is to be remembered of a map.
    pub fn of(map: &ClusterMap) -> Result<Self, CoordinationError> {
        Ok(Self {
            revision: map.revision(),
            up: map.up().keys().copied().collect(),
            records: map.records()?,
        })
    }

    /// What the node remembers; nothing if its work directory has no file that is of use.
    pub fn recollect(work_dir: &Path, own: &Identity) -> Option<Self> {
        let path = work_dir.join(FILE);
        match read(&path).and_then(|bytes| Self::decode(&bytes, own)) {
            Ok(memory) => Some(memory),
            Err(MemoryError::File(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(
                    path = %path.display(), %error,
                    "the node does not remember what it knew when it ran last; that matters only if the coordination \
                     store was restored from a backup since"
                );
                None
            }
        }
    }

    /// Writes it into a work directory, durably and as a whole.
    pub fn write(&self, work_dir: &Path, own: &Identity) -> Result<(), MemoryError> {
        let bytes = self.encode(own)?;
        Ok(replace(work_dir, FILE, &bytes)?)
    }

    fn encode(&self, own: &Identity) -> Result<Vec<u8>, MemoryError> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(own.cluster);
        out.extend(own.node.0.to_le_bytes());
        out.extend(own.serial);
        out.extend(self.revision.0.to_le_bytes());
        out.extend(length(self.up.len())?);
        for node in &self.up {
            out.extend(node.0.to_le_bytes());
        }
        out.extend(length(self.records.len())?);
        for (key, record) in &self.records {
            out.extend(length(key.len())?);
            out.extend(key.as_bytes());
            out.extend(record.modified.map_or(0, |at| at.0).to_le_bytes());
            out.extend(length(record.value.len())?);
            out.extend(record.value.iter());
        }
        out.extend(crc(&out).to_le_bytes());
        Ok(out)
    }

    fn decode(bytes: &[u8], own: &Identity) -> Result<Self, MemoryError> {
        let mut head = Parts(bytes);
        if head.array()? != MAGIC {
            return Err(MemoryError::Damaged("it does not begin as it should"));
        }
        let version = u32::from_le_bytes(head.array()?);
        if version != VERSION {
            return Err(MemoryError::Version(version));
        }
        let end = bytes.len().saturating_sub(CRC_BYTES);
        let (body, sum) = bytes.split_at_checked(end).ok_or(SHORT)?;
        if crc(body).to_le_bytes() != sum {
            return Err(MemoryError::Damaged("its checksum is wrong"));
        }
        let mut parts = Parts(body);
        parts.take(MAGIC.len() + VERSION.to_le_bytes().len())?;
        let owner = (parts.array()?, parts.number()?, parts.array()?);
        if owner != (own.cluster, own.node.0, own.serial) {
            return Err(MemoryError::Foreign);
        }
        let mut memory = Self {
            revision: Revision(u64::from_le_bytes(parts.array()?)),
            ..Self::default()
        };
        for _ in 0..parts.number()? {
            memory.up.insert(NodeId(parts.number()?));
        }
        for _ in 0..parts.number()? {
            let key = parts.sized()?.to_vec();
            let key = String::from_utf8(key).map_err(|_| MemoryError::Damaged("a key is no text"))?;
            let modified = u64::from_le_bytes(parts.array()?);
            let value: Arc<[u8]> = parts.sized()?.into();
            let modified = (modified > 0).then_some(Revision(modified));
            memory.records.insert(key, Remembered { value, modified });
        }
        if parts.0.is_empty() {
            Ok(memory)
        } else {
            Err(MemoryError::Damaged("there is more than it says"))
        }
    }
}

const SHORT: MemoryError = MemoryError::Damaged("it is too short");

fn read(path: &Path) -> Result<Vec<u8>, MemoryError> {
    let file = File::open(path)?;
    if file.metadata()?.len() > FILE_BYTES_MAX {
        return Err(MemoryError::Damaged("it is longer than any that is written"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn length(length: usize) -> Result<[u8; 4], MemoryError> {
    let length = u32::try_from(length).map_err(|_| MemoryError::TooLong)?;
    Ok(length.to_le_bytes())
}

/// Bytes that are read from front to back.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MemoryError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MemoryError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u32, MemoryError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn sized(&mut self) -> Result<&'a [u8], MemoryError> {
        let count = usize::try_from(self.number()?).map_err(|_| MemoryError::TooLong)?;
        self.take(count)
    }
}

#[cfg(test)]
mod tests;
