//! The one place where all backups of this service are, as it is configured: a directory, Swift or S3.
//!
//! Users may name a container. In Swift it is one; in S3 it is a name below which objects are, in the one bucket, so that nobody
//! reaches other buckets by guessing; in a directory it is a label, and no more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::s3::{self, S3, S3Settings};
use super::store::Directory;
use super::swift::{self, Swift};
use super::{ObjectStore, StoreError};
use crate::fault::Fault;
use crate::http::HttpClient;
use crate::identity::{Keystone, KeystoneSettings};

/// The longest name of a container: what S3 lets buckets have, and Swift would let be longer.
const CONTAINER_BYTES_MAX: usize = 63;

/// What is configured.
#[derive(Clone, Debug)]
pub enum RepositorySettings {
    /// A directory.
    Directory(PathBuf),
    /// Something that is asked over HTTP.
    Remote {
        /// Which.
        store: Box<RemoteStore>,
        /// The container of backups for which none is named.
        container: String,
        /// How long a store that does not answer is asked again.
        patience: Duration,
        /// Certificates that the store's is checked with, besides those of the system.
        ca_file: Option<PathBuf>,
    },
}

/// A store that is asked over HTTP.
#[derive(Clone, Debug)]
pub enum RemoteStore {
    /// Swift.
    Swift {
        /// Who asks: the service's user unless another one is configured.
        keystone: KeystoneSettings,
        /// The account's address, if it is not the catalogue's.
        url: Option<String>,
    },
    /// S3.
    S3(S3Settings),
}

/// Where backups are.
#[derive(Debug)]
pub struct Repository {
    store: Kind,
    /// The container of backups for which none is named.
    container: String,
}

#[derive(Debug)]
enum Kind {
    Directory(Directory),
    Swift(Arc<Swift>),
    S3(Arc<S3>),
}

impl Repository {
    /// Does not ask it yet.
    pub fn new(settings: &RepositorySettings) -> anyhow::Result<Self> {
        match settings {
            RepositorySettings::Directory(path) => Ok(Self {
                store: Kind::Directory(Directory::new(path)),
                container: String::new(),
            }),
            RepositorySettings::Remote {
                store,
                container,
                patience,
                ca_file,
            } => {
                let client = HttpClient::new(ca_file.as_deref())?;
                let store = match store.as_ref() {
                    RemoteStore::Swift { keystone, url } => {
                        let keystone = Keystone::new(keystone.clone())?;
                        Kind::Swift(Arc::new(Swift::new(keystone, client, url.clone(), *patience)))
                    }
                    RemoteStore::S3(settings) => Kind::S3(Arc::new(S3::new(client, settings, *patience)?)),
                };
                Ok(Self {
                    store,
                    container: container.clone(),
                })
            }
        }
    }

    /// What a backup's container is, for which this one was named. An increment lies where its parent does: the objects that it
    /// shares with it are found there.
    pub fn container(
        &self,
        named: Option<&str>,
        parent: Option<Option<&str>>,
    ) -> Result<Option<String>, Fault> {
        if let Kind::Directory(_) = self.store {
            return Ok(named.map(str::to_owned));
        }
        if let Some(named) = named.filter(|named| !is_container(named)) {
            return Err(Fault::bad_request(format!(
                "Invalid input received: container {named:?} is not made of at most {CONTAINER_BYTES_MAX} letters, digits, \
                 dots, dashes and underscores."
            )));
        }
        let Some(parent) = parent else {
            return Ok(Some(named.unwrap_or(&self.container).to_owned()));
        };
        let parent = parent.unwrap_or(&self.container);
        if named.is_some_and(|named| named != parent) {
            return Err(Fault::bad_request(format!(
                "Invalid backup: an incremental backup is kept where its parent is, in container {parent}."
            )));
        }
        Ok(Some(parent.to_owned()))
    }

    /// The objects of a container.
    pub fn open(&self, container: Option<&str>) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let name = container.unwrap_or(&self.container);
        let checked = || {
            // An imported record may say anything.
            let is_good = is_container(name);
            is_good
                .then(|| name.to_owned())
                .ok_or_else(|| StoreError::Remote {
                    name: name.to_owned(),
                    verb: "used as a container",
                    why: "there are characters in it that no container's name has".to_owned(),
                })
        };
        Ok(match &self.store {
            Kind::Directory(directory) => Arc::new(directory.clone()),
            Kind::Swift(swift) => Arc::new(swift::Container::new(swift.clone(), checked()?)),
            Kind::S3(s3) => Arc::new(s3::Folder::new(s3.clone(), checked()?)),
        })
    }
}

/// Whether it can be a container's name, in an address as it is.
pub fn is_container(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=CONTAINER_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_good)
        && !name.bytes().all(|byte| byte == b'.')
}

#[cfg(test)]
mod tests {
    //! Where backups are, by what users say.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use super::*;

    fn repository() -> Repository {
        let settings = S3Settings {
            endpoint: "http://127.0.0.1:1".to_owned(),
            region: "here".to_owned(),
            bucket: "all".to_owned(),
            access_key: "who".to_owned(),
            secret_key: crate::identity::Secret::default(),
        };
        let settings = RepositorySettings::Remote {
            store: Box::new(RemoteStore::S3(settings)),
            container: "volumebackups".to_owned(),
            patience: Duration::ZERO,
            ca_file: None,
        };
        Repository::new(&settings).unwrap()
    }

    #[test]
    fn an_increment_lies_where_its_parent_does() {
        let repository = repository();
        let container = |named, parent| repository.container(named, parent).map(Option::unwrap);
        assert_eq!(container(None, None).unwrap(), "volumebackups");
        assert_eq!(container(Some("mine"), None).unwrap(), "mine");
        assert_eq!(container(None, Some(Some("mine"))).unwrap(), "mine");
        assert_eq!(container(Some("mine"), Some(Some("mine"))).unwrap(), "mine");
        assert_eq!(
            container(Some("other"), Some(Some("mine"))).unwrap_err().status,
            400
        );
    }

    #[test]
    fn a_container_is_no_way_out_of_where_backups_are() {
        let repository = repository();
        for name in ["..", ".", "", "a/b", "a?b", "\u{e4}", "a b", &"x".repeat(64)] {
            assert!(!is_container(name), "{name}");
            assert!(repository.open(Some(name)).is_err(), "{name}");
        }
        assert!(repository.container(Some("../x"), None).is_err());
        assert!(is_container("alpha-1.b_c"));
        let directory = RepositorySettings::Directory("/nowhere".into());
        let directory = Repository::new(&directory).unwrap();
        assert_eq!(
            directory.container(Some("../x"), None).unwrap().as_deref(),
            Some("../x")
        );
    }
}
