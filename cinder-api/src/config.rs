//! The configuration file: TOML. Every value has a default but those that make no sense without a thought.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coordination::etcd;
use serde::Deserialize;
use telemetry::mistake;

use backups::BackupsFile;

use crate::backup::RepositorySettings;
use crate::identity::{KeystoneSettings, Secret};
use crate::images::checks;
use crate::keys::KeySettings;
use crate::limits::{Limits, LimitsFile};

mod backups;
#[cfg(test)]
mod example;

/// How long an answer of Keystone is believed, by default: a token that was revoked works no longer than this.
const TOKEN_CACHE_DEFAULT: Duration = Duration::from_mins(1);
/// What is put before every key in an etcd, by default: nothing that storaged itself follows.
const PREFIX_DEFAULT: &str = "/openstack";

/// The same for what hosts shall have, by default: agents' `--etcd-prefix`.
const LOCAL_PREFIX_DEFAULT: &str = "/openstack-attach";

/// Why a configuration is none.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no TOML, or has fields that nobody knows.
    #[error("the configuration {path} is wrong: {mistake}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what, without the words that stand there: they may be a secret.
        mistake: String,
    },
    /// A value makes no sense.
    #[error("the configuration is wrong: {0}")]
    Value(String),
}

/// The file's words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    listen: Option<Vec<SocketAddr>>,
    metrics_listen: Option<SocketAddr>,
    public_endpoint: Option<String>,
    #[serde(default)]
    trust_proxy_headers: bool,
    policy_file: Option<PathBuf>,
    default_volume_type: Option<String>,
    availability_zone: Option<String>,
    keystone: KeystoneFile,
    records: RecordsFile,
    #[serde(default)]
    storage: StorageFile,
    #[serde(default)]
    iscsi: IscsiFile,
    local: Option<LocalFile>,
    #[serde(default)]
    images: ImagesFile,
    #[serde(default)]
    backups: BackupsFile,
    keys: Option<KeysFile>,
    #[serde(default)]
    limits: LimitsFile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeystoneFile {
    auth_url: String,
    www_authenticate_uri: Option<String>,
    username: Option<String>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    project_name: Option<String>,
    user_domain_name: Option<String>,
    project_domain_name: Option<String>,
    ca_file: Option<PathBuf>,
    token_cache_seconds: Option<u64>,
    service_token_roles: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordsFile {
    file: Option<PathBuf>,
    #[serde(default)]
    etcd: Vec<String>,
    prefix: Option<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageFile {
    admin_socket: Option<PathBuf>,
    session_socket: Option<PathBuf>,
    host: Option<String>,
    backend_name: Option<String>,
    default_pool: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct IscsiFile {
    target_prefix: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalFile {
    prefix: Option<String>,
    #[serde(default)]
    default: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImagesFile {
    glance_url: Option<String>,
    work_dir: Option<PathBuf>,
    formats: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    manager: KeyManager,
    url: Option<String>,
    ca_file: Option<PathBuf>,
}

/// Who has keys.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyManager {
    Barbican,
}

/// Where the records are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file: for one process.
    File(PathBuf),
    /// In an etcd: for any number of processes.
    Etcd(etcd::Options),
}

/// Connections by `storaged-attach`.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// Where hosts' agents look.
    pub etcd: etcd::Options,
    /// Whether hosts that have an agent get them without their volume's type asking for it.
    pub is_default: bool,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where requests come in.
    pub listen: Vec<SocketAddr>,
    /// Where Prometheus asks; nothing: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where clients reach the API, if that cannot be seen from their requests. No slash at the end.
    pub public_endpoint: Option<String>,
    /// Whether `X-Forwarded-Proto` and `-Host` are believed.
    pub trust_proxy_headers: bool,
    /// Rules that differ from the defaults.
    pub policy_file: Option<PathBuf>,
    /// The name of the type that volumes get if neither the request nor the project says one.
    pub default_volume_type: String,
    /// The one zone.
    pub availability_zone: String,
    /// Keystone.
    pub keystone: KeystoneSettings,
    /// Where the records are.
    pub records: Place,
    /// The admin socket of the node's `storaged`.
    pub admin_socket: PathBuf,
    /// The session socket of the node's `storaged`.
    pub session_socket: PathBuf,
    /// What the storage is called as a host: `host@backend#pool`.
    pub host: String,
    /// What the backend is called: what types' `volume_backend_name` is compared with.
    pub backend_name: String,
    /// The pool of volumes whose type names none; the first one if nothing is said.
    pub default_pool: Option<String>,
    /// What the names of iSCSI targets begin with.
    pub target_prefix: String,
    /// Connections by agents of hosts, if there are any.
    pub local: Option<LocalSettings>,
    /// Where images are, if the catalogue is not to be asked.
    pub glance_url: Option<String>,
    /// Where images are kept while they are converted.
    pub work_dir: PathBuf,
    /// Formats of images that volumes may be made from, as Glance calls them.
    pub image_formats: Vec<String>,
    /// Where backups are kept; nothing: there are none.
    pub backups: Option<RepositorySettings>,
    /// Where keys of encrypted volumes are; nothing: volumes of encrypted types are refused.
    pub keys: Option<KeySettings>,
    /// How much whoever asks may hold, and for how long.
    pub limits: Limits,
}

impl Settings {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = text(path)?;
        let file: Words = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            mistake: mistake(&text, error.span(), error.message()),
        })?;
        let host = file.storage.host.unwrap_or_else(|| "storaged".to_owned());
        if host.is_empty() || host.contains(['@', '#', '/']) {
            return Err(ConfigError::Value(format!(
                "storage.host {host:?} contains @, # or /, or nothing"
            )));
        }
        let run = PathBuf::from("/var/lib/storaged");
        let records = file.records.check()?;
        let local = file.local.map(|local| local.check(&records)).transpose()?;
        let keystone = file.keystone.check()?;
        Ok(Self {
            listen: file
                .listen
                .unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 8776))]),
            metrics_listen: file.metrics_listen,
            public_endpoint: file
                .public_endpoint
                .map(|url| url.trim_end_matches('/').to_owned()),
            trust_proxy_headers: file.trust_proxy_headers,
            policy_file: file.policy_file,
            default_volume_type: file
                .default_volume_type
                .unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
            availability_zone: file.availability_zone.unwrap_or_else(|| "nova".to_owned()),
            backups: file.backups.check(&keystone)?,
            keys: file.keys.map(|keys| keys.settings(&keystone)),
            keystone,
            records,
            local,
            admin_socket: file
                .storage
                .admin_socket
                .unwrap_or_else(|| run.join("admin.sock")),
            session_socket: file
                .storage
                .session_socket
                .unwrap_or_else(|| run.join("storaged.sock")),
            host,
            backend_name: file.storage.backend_name.unwrap_or_else(|| "storaged".to_owned()),
            default_pool: file.storage.default_pool,
            target_prefix: file
                .iscsi
                .target_prefix
                .unwrap_or_else(|| TARGET_PREFIX.to_owned()),
            glance_url: file
                .images
                .glance_url
                .map(|url| url.trim_end_matches('/').to_owned()),
            work_dir: file
                .images
                .work_dir
                .unwrap_or_else(|| PathBuf::from("/var/lib/cinder-api")),
            image_formats: image_formats(file.images.formats)?,
            limits: file.limits.check().map_err(ConfigError::Value)?,
        })
    }
}

fn image_formats(said: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let default = || {
        checks::FORMATS_DEFAULT
            .iter()
            .map(|name| (*name).to_owned())
            .collect()
    };
    let formats: Vec<String> = said.unwrap_or_else(default);
    match formats
        .iter()
        .find(|format| checks::qemu_format(format).is_none())
    {
        Some(unknown) => Err(ConfigError::Value(format!(
            "images.formats names {unknown:?}, and volumes can be made from {}",
            checks::FORMATS.map(|(name, _)| name).join(", ")
        ))),
        None => Ok(formats),
    }
}

/// What the type is called that is always there.
pub const DEFAULT_TYPE: &str = "__DEFAULT__";
/// What the names of iSCSI targets begin with, by default; the volume's identity follows.
const TARGET_PREFIX: &str = "iqn.2026-01.storaged:volume-";

impl KeysFile {
    fn settings(self, keystone: &KeystoneSettings) -> KeySettings {
        // There is one kind of key manager; that it is named says that there is one at all.
        let KeyManager::Barbican = self.manager;
        KeySettings {
            url: self.url,
            ca_file: self.ca_file.or_else(|| keystone.ca_file.clone()),
        }
    }
}

impl KeystoneFile {
    fn check(self) -> Result<KeystoneSettings, ConfigError> {
        let password = match (self.password, self.password_file) {
            (Some(password), None) => Secret(password),
            (None, Some(path)) => secret(&path)?,
            _ => {
                let message = "keystone needs one of password and password_file";
                return Err(ConfigError::Value(message.to_owned()));
            }
        };
        let auth_url = self.auth_url.trim_end_matches('/').to_owned();
        if !auth_url.starts_with("http://") && !auth_url.starts_with("https://") {
            return Err(ConfigError::Value(format!(
                "keystone.auth_url {auth_url:?} is no http:// address"
            )));
        }
        let auth_url = if auth_url.ends_with("/v3") {
            auth_url
        } else {
            format!("{auth_url}/v3")
        };
        let default = || "Default".to_owned();
        Ok(KeystoneSettings {
            public_url: self.www_authenticate_uri.unwrap_or_else(|| auth_url.clone()),
            auth_url,
            username: self.username.unwrap_or_else(|| "cinder".to_owned()),
            password,
            project_name: self.project_name.unwrap_or_else(|| "service".to_owned()),
            user_domain_name: self.user_domain_name.unwrap_or_else(default),
            project_domain_name: self.project_domain_name.unwrap_or_else(default),
            ca_file: self.ca_file,
            cache_time: self
                .token_cache_seconds
                .map_or(TOKEN_CACHE_DEFAULT, Duration::from_secs),
            service_roles: self
                .service_token_roles
                .unwrap_or_else(|| vec!["service".to_owned()]),
        })
    }
}

impl RecordsFile {
    fn check(self) -> Result<Place, ConfigError> {
        let wrong = |message: &str| Err(ConfigError::Value(format!("records: {message}")));
        let halves = |half: etcd::HalfGiven| ConfigError::Value(format!("records: {half}"));
        let identity = etcd::ClientIdentity::of(self.certificate, self.key).map_err(halves)?;
        let credentials = etcd::Credentials::of(self.user, self.password_file).map_err(halves)?;
        match (self.file, self.etcd.is_empty()) {
            (Some(file), true) => Ok(Place::File(file)),
            (None, false) => {
                let options = etcd::Options {
                    prefix: self.prefix.unwrap_or_else(|| PREFIX_DEFAULT.to_owned()),
                    ca: self.ca,
                    identity,
                    credentials,
                    ..etcd::Options::plain(self.etcd)
                };
                options
                    .check()
                    .map_err(|error| ConfigError::Value(format!("records: {error}")))?;
                Ok(Place::Etcd(options))
            }
            _ => wrong("say either file = \"PATH\", for one process, or etcd = [\"http://HOST:2379\", ...]"),
        }
    }
}

impl LocalFile {
    /// The same etcd as the records', with a prefix of its own: agents need not be able to read those.
    fn check(self, records: &Place) -> Result<LocalSettings, ConfigError> {
        let Place::Etcd(options) = records else {
            let message = "local needs records.etcd: agents of hosts follow it";
            return Err(ConfigError::Value(message.to_owned()));
        };
        let etcd = etcd::Options {
            prefix: self.prefix.unwrap_or_else(|| LOCAL_PREFIX_DEFAULT.to_owned()),
            ..options.clone()
        };
        etcd.check()
            .map_err(|error| ConfigError::Value(format!("local: {error}")))?;
        if etcd.prefix == options.prefix {
            let message = "local.prefix is that of the records: agents would have to be able to read those";
            return Err(ConfigError::Value(message.to_owned()));
        }
        Ok(LocalSettings {
            etcd,
            is_default: self.default,
        })
    }
}

/// A secret that is a file's first and only line.
fn secret(path: &Path) -> Result<Secret, ConfigError> {
    Ok(Secret(text(path)?.trim_end_matches(['\r', '\n']).to_owned()))
}

fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    //! Passwords stand in this file, and mistakes stand beside them.
    use super::*;

    #[test]
    fn a_mistake_in_the_line_of_a_password_does_not_show_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for line in [
            "pasword = 'canary'",
            "password = ['canary']",
            "password = 'canary",
            "password = 12345\n#canary",
        ] {
            let text = format!("[keystone]\nauth_url = 'http://127.0.0.1:1'\n{line}\n");
            std::fs::write(file.path(), text).unwrap();
            let error = Settings::read(file.path()).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains("line 3, column "), "{told}");
            assert!(!told.contains("canary") && !told.contains("12345"), "{told}");
        }
    }
}
