//! The file `node` in the work directory: which node of which cluster this is. It is made once, when the node
//! enters the cluster, so that a `storaged` that starts again is the same node, and so that nobody else's
//! work directory is taken for a node's own.
//!
//! It knows nothing of the coordination store: whether the node is still a member is judged elsewhere.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use protocol::NodeId;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use serde::{Deserialize, Serialize};

use super::replacement::replace;

/// The file's name.
const FILE: &str = "node";
/// The format of the file that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// Which node of which cluster a work directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: [u8; 16],
    /// The node's number in it.
    pub node: NodeId,
    /// Random, and in the node's record too.
    pub serial: [u8; 16],
}

/// Why a work directory's identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refuses.
    #[error("cannot use {path}, which says which node this is: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error(
        "{path} does not say which node this is ({reason}): restore it from a backup of the work directory"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another `storaged` runs here.
    #[error("another storaged runs in {path}: stop it first")]
    Taken {
        /// The work directory.
        path: PathBuf,
    },
}

/// The file's words. Numbers of many bytes are hexadecimal.
#[derive(Serialize, Deserialize)]
struct Words {
    format: u32,
    cluster: String,
    node: u32,
    serial: String,
}

impl Identity {
    /// What a work directory says; nothing if it was never a node's.
    pub fn read(work_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = work_dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::File { path, source }),
        };
        let malformed = |reason: String| IdentityError::Malformed { path, reason };
        let words: Words = match serde_json::from_slice(&text) {
            Ok(words) => words,
            Err(error) => return Err(malformed(error.to_string())),
        };
        if words.format != FORMAT {
            let reason = format!("it has format {}, this program knows {FORMAT}", words.format);
            return Err(malformed(reason));
        }
        match (bytes(&words.cluster), bytes(&words.serial)) {
            (Some(cluster), Some(serial)) => Ok(Some(Self {
                cluster,
                node: NodeId(words.node),
                serial,
            })),
            _ => Err(malformed("its numbers are none".to_owned())),
        }
    }

    /// Says so in a work directory, durably.
    pub fn write(&self, work_dir: &Path) -> Result<(), IdentityError> {
        self.put(work_dir).map_err(|source| IdentityError::File {
            path: work_dir.join(FILE),
            source,
        })
    }

    fn put(&self, work_dir: &Path) -> std::io::Result<()> {
        let words = Words {
            format: FORMAT,
            cluster: hexadecimal(&self.cluster),
            node: self.node.0,
            serial: hexadecimal(&self.serial),
        };
        let mut text = serde_json::to_vec(&words)?;
        text.push(b'\n');
        replace(work_dir, FILE, &text)
    }
}

/// Bytes as text.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(text: &str) -> Option<[u8; 16]> {
    let whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = whole.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(number.to_be_bytes())
}

/// Takes a work directory for this process. It is free again when the answer is dropped.
pub fn take(work_dir: &Path) -> Result<OwnedFd, IdentityError> {
    let failed = |error: rustix::io::Errno| IdentityError::File {
        path: work_dir.to_owned(),
        source: error.into(),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(work_dir, flags, Mode::empty()).map_err(failed)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(IdentityError::Taken {
            path: work_dir.to_owned(),
        }),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    //! The file is a stored format; what is none is refused in words; a directory has one user.
    use super::*;

    const IDENTITY: Identity = Identity {
        cluster: [0xab; 16],
        node: NodeId(3),
        serial: [0x01; 16],
    };

    #[test]
    fn an_identity_keeps_its_golden_bytes_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Identity::read(directory.path()).unwrap(), None);
        IDENTITY.write(directory.path()).unwrap();
        let golden = "{\"format\":1,\"cluster\":\"abababababababababababababababab\",\"node\":3,\
                      \"serial\":\"01010101010101010101010101010101\"}\n";
        assert_eq!(
            std::fs::read_to_string(directory.path().join("node")).unwrap(),
            golden
        );
        assert_eq!(Identity::read(directory.path()).unwrap(), Some(IDENTITY));
    }

    #[test]
    fn a_file_that_is_none_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{}",
            "{\"format\":2,\"cluster\":\"\",\"node\":3,\"serial\":\"\"}",
            "{\"format\":1,\"cluster\":\"+0\",\"node\":3,\"serial\":\"x\"}",
        ] {
            std::fs::write(directory.path().join("node"), text).unwrap();
            let error = Identity::read(directory.path()).unwrap_err().to_string();
            assert!(error.contains("which node"), "{text}: {error}");
        }
    }

    #[test]
    fn a_work_directory_has_one_user() {
        let directory = tempfile::tempdir().unwrap();
        let first = take(directory.path()).unwrap();
        let refused = take(directory.path()).unwrap_err();
        assert!(matches!(refused, IdentityError::Taken { .. }), "{refused}");
        drop(first);
        take(directory.path()).unwrap();
    }
}
