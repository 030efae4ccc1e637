//! Why a disk cannot be made or opened. Requests to an open disk have `protocol::storage::StorageError`.

use std::io;
use std::path::PathBuf;

/// Why a disk cannot be made, opened or inspected.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no superblock.
    #[error("{0} holds no disk: make one there first, or give the right directory")]
    NotADisk(PathBuf),
    /// There is one already.
    #[error("{0} holds a disk already: remove it yourself if it may go")]
    Exists(PathBuf),
    /// Another process has it open.
    #[error("another process has the disk in {0} open")]
    Locked(PathBuf),
    /// It was written by a newer version of this program.
    #[error(
        "the {structure} has format version {version}, which this program does not know: use a newer one"
    )]
    Version {
        /// Which structure.
        structure: &'static str,
        /// What it says.
        version: u16,
    },
    /// A structure does not match its checksum, or contradicts another one. Nothing was changed.
    #[error("the {structure} is damaged: {detail}; replace the disk, or restore it from its peers")]
    Damaged {
        /// Which structure.
        structure: &'static str,
        /// What is wrong with it, and where.
        detail: String,
    },
    /// The format asked for cannot be.
    #[error("a disk cannot be made like this: {0}")]
    Invalid(String),
    /// The operating system said no.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    /// Says what was tried, for `map_err`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
