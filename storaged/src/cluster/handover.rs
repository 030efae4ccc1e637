//! What a node hands to a machine that joins: the authority, and how to reach the coordination store, with the
//! files that the configuration names for it. Read when somebody joins, so that it is what the files say then.

use std::path::{Path, PathBuf};

use coordination::etcd;
use joining::{Bundle, EtcdAccess};

use super::authority::{self, AuthorityError};
use crate::config::is_loopback;

/// No file that is handed over is longer, in bytes: certificates and passwords are not.
const FILE_LENGTH_MAX: u64 = 64 * 1024;

/// Why nothing can be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The authority cannot be read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file of the etcd section cannot.
    #[error("cannot read {path}, which the etcd settings name: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It would be of no use elsewhere.
    #[error(
        "this node reaches etcd at {endpoints}, and another machine would find nobody there: write addresses into the \
         section [etcd] that all nodes can use, and start storaged again"
    )]
    Loopback {
        /// Where.
        endpoints: String,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Handover {
    /// Where the authority is.
    pub work_dir: PathBuf,
    /// The cluster.
    pub cluster: [u8; 16],
    /// How this node reaches etcd.
    pub etcd: etcd::Options,
}

impl Handover {
    /// Refuses what a machine elsewhere could not use. `host` is where this node is reached.
    pub fn check(&self, host: &str) -> Result<(), HandoverError> {
        let all_here = self
            .etcd
            .endpoints
            .iter()
            .all(|endpoint| is_loopback(host_of(endpoint)));
        if all_here && !is_loopback(host) {
            let endpoints = self.etcd.endpoints.join(", ");
            return Err(HandoverError::Loopback { endpoints });
        }
        Ok(())
    }

    /// All of it.
    pub fn gather(&self) -> Result<Bundle, HandoverError> {
        let (certificate, key) = authority::texts(&self.work_dir)?;
        let etcd = &self.etcd;
        let identity = etcd.identity.as_ref();
        let credentials = etcd.credentials.as_ref();
        Ok(Bundle {
            cluster: self.cluster,
            certificate,
            key,
            etcd: EtcdAccess {
                endpoints: etcd.endpoints.clone(),
                prefix: etcd.prefix.clone(),
                ca: etcd.ca.as_deref().map(file).transpose()?,
                certificate: identity.map(|identity| file(&identity.certificate)).transpose()?,
                key: identity.map(|identity| file(&identity.key)).transpose()?,
                user: credentials.map(|credentials| credentials.user.clone()),
                password: credentials
                    .map(|credentials| file(&credentials.password_file))
                    .transpose()?,
            },
        })
    }
}

fn file(path: &Path) -> Result<Vec<u8>, HandoverError> {
    let read = || {
        let length = std::fs::metadata(path)?.len();
        if length > FILE_LENGTH_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        std::fs::read(path)
    };
    read().map_err(|source| HandoverError::File {
        path: path.to_owned(),
        source,
    })
}

/// The host of `http://HOST:PORT`.
fn host_of(endpoint: &str) -> &str {
    let place = endpoint.split_once("://").map_or(endpoint, |(_, place)| place);
    place.rsplit_once(':').map_or(place, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    //! What is handed over is whole, and of use elsewhere.
    use coordination::etcd::{ClientIdentity, Credentials, Options};

    use super::*;

    fn handover(work_dir: &Path, etcd: Options) -> Handover {
        Handover {
            work_dir: work_dir.to_owned(),
            cluster: [1; 16],
            etcd,
        }
    }

    #[test]
    fn an_etcd_that_only_this_machine_reaches_is_not_handed_to_others() {
        let at = |endpoints: &[&str]| {
            let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned());
            handover(Path::new("/w"), Options::plain(endpoints))
        };
        for alone in [
            "http://127.0.0.1:2379",
            "https://[::1]:2379",
            "http://localhost:2379",
        ] {
            let refused = at(&[alone]).check("10.0.0.1").unwrap_err().to_string();
            assert!(refused.contains(alone), "{refused}");
            assert!(at(&[alone]).check("127.0.0.1").is_ok());
        }
        assert!(
            at(&["http://127.0.0.1:2379", "http://10.0.0.2:2379"])
                .check("10.0.0.1")
                .is_ok()
        );
    }

    #[test]
    fn the_files_of_the_etcd_section_go_along_and_one_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, name).unwrap();
            path
        };
        put("authority/certificate.pem");
        put("authority/key.pem");
        let etcd = Options {
            ca: Some(put("ca")),
            identity: Some(ClientIdentity {
                certificate: put("certificate"),
                key: put("key"),
            }),
            credentials: Some(Credentials {
                user: "storaged".to_owned(),
                password_file: put("password"),
            }),
            prefix: "/p".to_owned(),
            ..Options::plain(["https://a:1".to_owned()])
        };
        let mut handover = handover(folder.path(), etcd);
        let bundle = handover.gather().unwrap();
        assert_eq!(bundle.key, "authority/key.pem");
        assert_eq!(bundle.etcd.prefix, "/p");
        assert_eq!(bundle.etcd.key.as_deref(), Some(&b"key"[..]));
        assert_eq!(bundle.etcd.password.as_deref(), Some(&b"password"[..]));
        handover.etcd.ca = Some(folder.path().join("none"));
        let refused = handover.gather().unwrap_err().to_string();
        assert!(refused.contains("none"), "{refused}");
    }
}
