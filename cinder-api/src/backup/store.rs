//! Where backups lie: named objects, each written whole. A directory is one such place; others only need the same four verbs
//! ([`super::swift`], [`super::s3`]).

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use axum::body::Bytes;
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What an object is called while it is being written.
const PART: &str = "part";

/// Why an object cannot be stored or had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there.
    #[error("{0} is missing where backups are kept")]
    Missing(String),
    /// It is longer than anything that we write under that name.
    #[error("{name} is longer than {bytes_max} bytes, and nothing that was stored is")]
    TooLong {
        /// The object.
        name: String,
        /// The most that it can have.
        bytes_max: u64,
    },
    /// The system refuses.
    #[error("{name} cannot be {verb} where backups are kept: {source}")]
    Io {
        /// The object.
        name: String,
        /// What was to be done to it.
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A store that is asked over HTTP refuses, or does not answer.
    #[error("{name} cannot be {verb} where backups are kept: {why}")]
    Remote {
        /// The object.
        name: String,
        /// What was to be done to it.
        verb: &'static str,
        /// What it said, if anything.
        why: String,
    },
}

/// Somewhere to keep objects. Names are made by this program: letters, digits, dashes, and slashes between parts.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Stores an object, whole or not at all, in place of one of that name.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Reads an object; more than so many bytes are refused.
    async fn get(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError>;

    /// Returns when all that was stored below a name is on stable storage.
    async fn settle(&self, below: &str) -> Result<(), StoreError>;

    /// Removes an object, and all objects below its name. Nothing to do if there is none.
    async fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// A directory: each object a file. It may be one that other machines see, too, as with NFS.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The objects in a directory.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn failed(name: &str, verb: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let name = name.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound if verb == "read" => StoreError::Missing(name),
        _ => StoreError::Io { name, verb, source },
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(name);
        // Two processes may write the same object, when one of them is late: each writes a file of its own.
        let part = path.with_extension(format!("{PART}-{}", uuid::Uuid::new_v4().simple()));
        let written = async {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).await?;
            }
            let mut file = fs::File::create(&part).await?;
            file.write_all(&bytes).await?;
            file.flush().await?;
            file.sync_data().await?;
            fs::rename(&part, &path).await
        };
        let written = written.await;
        if written.is_err() {
            // What is left of it is removed with the backup, if not now.
            let _ = fs::remove_file(&part).await;
        }
        written.map_err(failed(name, "written"))
    }

    async fn get(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let file = fs::File::open(self.path(name)).await;
        let file = file.map_err(failed(name, "read"))?;
        let mut bytes = Vec::new();
        let length = file.metadata().await.map_or(0, |about| about.len());
        if length > bytes_max {
            let name = name.to_owned();
            return Err(StoreError::TooLong { name, bytes_max });
        }
        bytes.reserve_exact(usize::try_from(length).unwrap_or(0));
        let read = file.take(bytes_max).read_to_end(&mut bytes).await;
        read.map_err(failed(name, "read"))?;
        Ok(bytes.into())
    }

    async fn settle(&self, below: &str) -> Result<(), StoreError> {
        let path = self.path(below);
        let synced = async {
            let mut folders = fs::read_dir(&path).await?;
            while let Some(entry) = folders.next_entry().await? {
                if entry.file_type().await?.is_dir() {
                    fs::File::open(entry.path()).await?.sync_all().await?;
                }
            }
            fs::File::open(&path).await?.sync_all().await?;
            fs::File::open(&self.0).await?.sync_all().await
        };
        match synced.await {
            // A backup of nothing but zeros has no folder yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed(below, "written")),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        let removed = match fs::symlink_metadata(&path).await {
            Ok(about) if about.is_dir() => fs::remove_dir_all(&path).await,
            Ok(_) => fs::remove_file(&path).await,
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed(name, "removed")),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is stored is read; what was not finished is not there.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use super::*;

    #[tokio::test]
    async fn an_object_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path());
        store.settle("a").await.unwrap();
        assert!(matches!(
            store.get("a/0/1", 10).await,
            Err(StoreError::Missing(_))
        ));
        store.put("a/0/1", Bytes::from_static(b"first")).await.unwrap();
        store.put("a/0/1", Bytes::from_static(b"again")).await.unwrap();
        assert_eq!(store.get("a/0/1", 10).await.unwrap(), "again");
        assert!(matches!(
            store.get("a/0/1", 4).await,
            Err(StoreError::TooLong { .. })
        ));
        let left: Vec<_> = std::fs::read_dir(folder.path().join("a/0")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        store.settle("a").await.unwrap();
        store.remove("a/0/1").await.unwrap();
        store.remove("a").await.unwrap();
        store.remove("a").await.unwrap();
        assert!(!folder.path().join("a").exists());
    }

    #[tokio::test]
    async fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path());
        std::fs::create_dir_all(folder.path().join("a/object/inside")).unwrap();
        // A directory stands where the object should be.
        assert!(store.put("a/object", Bytes::from_static(b"x")).await.is_err());
        let left: Vec<_> = std::fs::read_dir(folder.path().join("a")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
