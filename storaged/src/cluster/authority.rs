//! The authority of a cluster: who signs the certificates that nodes and front ends show each other.
//!
//! Every node has it, certificate and key, in its work directory: so each signs its own short-lived
//! certificates, and those of its front ends, and depends on nobody when they run out. The first node makes it;
//! the coordination store keeps its certificate, so that no second one is made.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::transport::{Credentials, CredentialsError, Role};
use coordination::keys::Key;
use coordination::records::{self, AuthorityRecord, RecordError, encode};
use coordination::{Compare, Coordination, CoordinationError, Outcome, Transaction};
use joining::Door;
use joining::door::{DoorError, certificate_of, serving};
use protocol::NodeId;
use protocol::session::CredentialsView;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::{info, warn};

use super::identity::hexadecimal;
use super::seal::{Seal, SealError};

/// The folder in the work directory.
const FOLDER: &str = "authority";
/// The authority's certificate.
const CERTIFICATE: &str = "certificate.pem";
/// The authority's private key.
const KEY: &str = "key.pem";
/// Only the user that runs `storaged` reads what is in it.
const FOLDER_MODE: u32 = 0o700;
/// And the key in particular.
const KEY_MODE: u32 = 0o600;
/// How long the authority's certificate is good.
const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 365 * 20);
/// How long certificates of nodes and front ends are good.
const LIFE: Duration = Duration::from_hours(24);
/// Between new ones: two may fail before the last has run out.
const RENEWAL: Duration = Duration::from_hours(8);
/// How far clocks of nodes may differ.
const SKEW: Duration = Duration::from_hours(1);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file system refuses.
    #[error("cannot use {path}, where the cluster's authority is: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cluster has one, and this node has not.
    #[error(
        "the cluster has an authority that signs its nodes' certificates, and {path} does not hold it: let this \
         machine join with `storagectl cluster join TOKEN`, with a token that `storagectl cluster token` makes on \
         a node"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// This node has another one.
    #[error(
        "{path} holds the authority of another cluster: give this machine an empty work directory, and let it join with \
             `storagectl cluster join TOKEN`"
    )]
    Foreign {
        /// Where it is.
        path: PathBuf,
    },
    /// Certificates cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What was made is of no use.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The same, for whoever has no certificate himself.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// Nothing can be sealed with it.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The coordination store refuses.
    #[error(transparent)]
    Store(#[from] CoordinationError),
    /// Its record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// See the module.
pub struct Authority {
    node: NodeId,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    seal: Arc<Seal>,
}

/// What a node shows at its disks and its door, and its front ends; they change while it runs.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Of the node's disks.
    pub node: watch::Receiver<Credentials>,
    /// Of the node's front ends.
    pub front_ends: watch::Receiver<CredentialsView>,
    /// To machines that join.
    pub door: watch::Receiver<Door>,
    /// To programs that ask the admin API over the network.
    pub admin: watch::Receiver<Arc<ServerConfig>>,
    /// With what secrets are sealed that all nodes shall read, and nobody else.
    pub seal: Arc<Seal>,
    /// The authority's certificate, as the text of a PEM file.
    pub authority: String,
}

impl Authority {
    /// Reads the authority from a work directory, or makes it if the cluster has none.
    pub async fn enter(
        store: &Arc<dyn Coordination>,
        work_dir: &Path,
        cluster: [u8; 16],
        node: NodeId,
    ) -> Result<Self, AuthorityError> {
        let folder = work_dir.join(FOLDER);
        let key = Key::Authority.to_text();
        let known = store.get(&key).await?;
        let known: Option<AuthorityRecord> = known.as_ref().map(records::decode).transpose()?;
        let here = folder.join(KEY).exists();
        let (certificate, pair) = match (&known, here) {
            (Some(_), false) => return Err(AuthorityError::Missing { path: folder }),
            (None, false) => make(&folder, cluster)?,
            (_, true) => read(&folder)?,
        };
        if known.is_none() {
            let record = AuthorityRecord {
                certificate: certificate.clone(),
            };
            let transaction = Transaction::new()
                .when(Compare::Absent(key.clone()))
                .put(key, encode(&record)?);
            if let Outcome::Conflict(_) = store.commit(transaction).await? {
                // Another node was faster: what was made here is nobody's.
                return Err(AuthorityError::Foreign { path: folder });
            }
        }
        if known.is_some_and(|known| known.certificate != certificate) {
            return Err(AuthorityError::Foreign { path: folder });
        }
        let seal = Seal::new(cluster, pair.serialized_der())?;
        Ok(Self {
            node,
            certificate,
            seal: Arc::new(seal),
            issuer: Issuer::new(params(cluster), pair),
        })
    }

    /// Certificates for the node and its front ends, and what renews them for ever: run it as a task. `names` are those by
    /// which the network knows the node's admin API.
    pub fn show(
        self,
        names: Vec<String>,
    ) -> Result<(Shown, impl Future<Output = ()> + Send), AuthorityError> {
        let (node, shown) = watch::channel(self.of_node()?);
        let (front_ends, told) = watch::channel(self.of_front_ends()?);
        let (door, opened) = watch::channel(self.of_door()?);
        let (admin, asked) = watch::channel(self.of_admin(&names)?);
        let shown = Shown {
            node: shown,
            front_ends: told,
            door: opened,
            admin: asked,
            seal: self.seal.clone(),
            authority: self.certificate.clone(),
        };
        let keep = async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                let renewed = || -> Result<(), AuthorityError> {
                    node.send_replace(self.of_node()?);
                    front_ends.send_replace(self.of_front_ends()?);
                    door.send_replace(self.of_door()?);
                    admin.send_replace(self.of_admin(&names)?);
                    Ok(())
                };
                if let Err(error) = renewed() {
                    warn!(%error, "certificates are not renewed");
                }
            }
        };
        Ok((shown, keep))
    }

    fn of_node(&self) -> Result<Credentials, AuthorityError> {
        let purposes = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let view = self.issue(vec![Role::Node(self.node.0).name()], &purposes)?;
        Ok(Credentials::from_pem(
            &view.authority,
            &view.certificate,
            &view.key,
        )?)
    }

    fn of_front_ends(&self) -> Result<CredentialsView, AuthorityError> {
        // Also for serving: the owner of a shared volume is spoken to by others.
        let purposes = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(vec![Role::FrontEnd(self.node.0).name()], &purposes)
    }

    /// Its name is that of no role: no disk takes it, and no machine that joins takes another.
    fn of_door(&self) -> Result<Door, AuthorityError> {
        let view = self.issue(
            vec![joining::NAME.to_owned()],
            &[ExtendedKeyUsagePurpose::ServerAuth],
        )?;
        Ok(Door::from_pem(&view.authority, &view.certificate, &view.key)?)
    }

    /// Its names are those of the host, and none of a role: it is good for being asked, and for nothing else.
    fn of_admin(&self, names: &[String]) -> Result<Arc<ServerConfig>, AuthorityError> {
        let view = self.issue(names.to_vec(), &[ExtendedKeyUsagePurpose::ServerAuth])?;
        let authority = certificate_of(&view.authority)?;
        Ok(serving(authority, certificate_of(&view.certificate)?, &view.key)?)
    }

    fn issue(
        &self,
        names: Vec<String>,
        purposes: &[ExtendedKeyUsagePurpose],
    ) -> Result<CredentialsView, AuthorityError> {
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        // Strict clients want to know which key signed (RFC 5280 4.2.1.1).
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - SKEW, now + LIFE);
        params.extended_key_usages = purposes.to_vec();
        let certificate = params.signed_by(&pair, &self.issuer)?;
        Ok(CredentialsView {
            authority: self.certificate.clone(),
            certificate: certificate.pem(),
            key: pair.serialize_pem(),
        })
    }
}

/// What the authority says of itself: the same on every node, so that all sign in one name.
fn params(cluster: [u8; 16]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let name = format!("storaged cluster {}", hexadecimal(&cluster));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - SKEW, now + AUTHORITY_LIFE);
    params
}

fn make(folder: &Path, cluster: [u8; 16]) -> Result<(String, KeyPair), AuthorityError> {
    let pair = KeyPair::generate()?;
    let certificate = params(cluster).self_signed(&pair)?.pem();
    let failed = |source| AuthorityError::File {
        path: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)).map_err(failed)?;
    // The key last: without it the folder holds no authority.
    for (name, text) in [(CERTIFICATE, &certificate), (KEY, &pair.serialize_pem())] {
        let write = || -> std::io::Result<()> {
            let mut file = File::create(folder.join(name))?;
            file.set_permissions(Permissions::from_mode(KEY_MODE))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(failed)?;
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    info!(folder = %folder.display(), "the cluster's authority was made: other machines get it when they join");
    Ok((certificate, pair))
}

fn read(folder: &Path) -> Result<(String, KeyPair), AuthorityError> {
    Ok((
        text(folder, CERTIFICATE)?,
        KeyPair::from_pem(&text(folder, KEY)?)?,
    ))
}

/// The authority's certificate and its key, as they lie in a work directory.
pub(super) fn texts(work_dir: &Path) -> Result<(String, String), AuthorityError> {
    let folder = work_dir.join(FOLDER);
    Ok((text(&folder, CERTIFICATE)?, text(&folder, KEY)?))
}

fn text(folder: &Path, name: &str) -> Result<String, AuthorityError> {
    let path = folder.join(name);
    std::fs::read_to_string(&path).map_err(|source| AuthorityError::File { path, source })
}
