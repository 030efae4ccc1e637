//! What `storaged` is told: a TOML file, and flags that override it. Every value has a default but
//! the ones that make no sense without a thought.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use admin_api::sizes::SizeInput;
use coordination::etcd::{self, ClientIdentity, Credentials};
use serde::Deserialize;
use telemetry::mistake;

use crate::cluster as node;
use crate::near_full::Limits;
use crate::slow::Policy;

pub mod admin;
pub mod cluster;
#[cfg(test)]
mod example;
pub mod near_full;
pub mod rebalance;
pub mod scrub;
pub mod slow;

pub use admin::AdminListen;
pub use cluster::{ClusterSettings, Listen};
pub use near_full::NearFullSettings;
pub use rebalance::{Rebalance, RebalanceSettings};
pub use scrub::{Scrub, ScrubSettings};
pub use slow::SlowDiskSettings;

/// Where everything is kept unless told otherwise.
const WORK_DIR_DEFAULT: &str = "/var/lib/storaged";
/// The lease of an owner, by default.
const LEASE_DEFAULT: Duration = Duration::from_secs(5);
/// Shorter leases would lapse in a busy moment; longer ones keep guests waiting after a crash.
const LEASE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);
/// What all disks of a `storaged` may keep in memory together, by default.
const MEMORY_DEFAULT: u64 = 1 << 30;
/// The least memory that is of use.
const MEMORY_MIN: u64 = 64 << 20;

/// What is copied to a disk that comes back, in bytes a second, by default: 2 TB in three hours.
const RECOVERY_RATE_DEFAULT: u64 = 200 << 20;
/// Less would take months.
const RECOVERY_RATE_MIN: u64 = 1 << 20;

/// Why a configuration is not one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or has fields that nobody knows.
    #[error("the configuration {path} is wrong: {mistake}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what, without the words that stand there: they may be a secret.
        mistake: String,
    },
    /// A value makes no sense.
    #[error("{0}")]
    Value(String),
}

/// The file's words. Flags fill them in too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the records, the sockets and the disks that were made by `disks` are.
    pub work_dir: Option<PathBuf>,
    /// Disks to make in the work directory when there is none yet.
    pub disks: Option<u32>,
    /// The lease of an owner, in milliseconds.
    pub lease_ms: Option<u64>,
    /// What all disks may keep in memory together.
    pub memory: Option<SizeInput>,
    /// The length of the log of disks that are made from now on.
    pub disk_log: Option<SizeInput>,
    /// Whether front ends of this node may read the disks' files themselves.
    pub direct_reads: Option<bool>,
    /// Whether a disk that fails leaves its placement groups, so that I/O goes on without it.
    pub evict_failed_disks: Option<bool>,
    /// How much is copied to a disk that comes back, in bytes a second.
    pub recovery_rate: Option<SizeInput>,
    /// When the disks are scrubbed, and how fast.
    pub scrub: Option<ScrubSettings>,
    /// When data moves to other disks.
    pub rebalance: Option<RebalanceSettings>,
    /// What is done about disks that are much slower than their peers.
    pub slow_disks: Option<SlowDiskSettings>,
    /// What is done about disks that are nearly full.
    pub near_full: Option<NearFullSettings>,
    /// Where the admin API is served, besides `admin.sock` in the work directory: `https://HOST:PORT` for whoever
    /// shows an access token, `tcp:127.0.0.1:PORT` for everybody on this machine.
    pub admin_listen: Vec<String>,
    /// More names by which others reach the admin API over the network, for its certificate.
    pub admin_names: Vec<String>,
    /// Where the records are; follows from whether there is an `etcd` section if it is left out.
    pub coordination: Option<Coordination>,
    /// How to reach etcd.
    pub etcd: Option<EtcdSettings>,
    /// What the node is called, where it stands, and where others reach it.
    pub cluster: Option<ClusterSettings>,
}

/// Where the records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordination {
    /// In a file in the work directory: for one node.
    Embedded,
    /// In an etcd, which several nodes share.
    Etcd,
}

/// How to reach etcd, in the file's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdSettings {
    /// Its members' client addresses: `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// What is put before every key, for several clusters in one etcd.
    pub prefix: Option<String>,
    /// The certificates that its members' certificates are checked with.
    pub ca: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<PathBuf>,
    /// The private key of our own certificate.
    pub key: Option<PathBuf>,
    /// Our user.
    pub user: Option<String>,
    /// The file with the user's password.
    pub password_file: Option<PathBuf>,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Absolute.
    pub work_dir: PathBuf,
    /// Disks to make when there is none yet.
    pub new_disks: u32,
    /// The lease of an owner.
    pub lease: Duration,
    /// What all disks may keep in memory together, in bytes.
    pub memory: u64,
    /// The length of new disks' logs, in bytes.
    pub disk_log: u64,
    /// Whether front ends of this node may read the disks' files themselves.
    pub direct_reads: bool,
    /// Whether a disk that fails leaves its placement groups; it comes back by itself.
    pub evict_failed_disks: bool,
    /// How much is copied to each disk that comes back, in bytes a second at most.
    pub recovery_rate: u64,
    /// When the disks are scrubbed.
    pub scrub: Scrub,
    /// When data moves to other disks.
    pub rebalance: Rebalance,
    /// What is done about disks that are much slower than their peers.
    pub slow_disks: Policy,
    /// When a disk is nearly full; nothing: never.
    pub near_full: Option<Limits>,
    /// Where the admin API is served over TCP.
    pub admin_listen: Vec<AdminListen>,
    /// By which names others reach it over the network.
    pub admin_names: Vec<String>,
    /// How to reach the etcd with the records; nothing if they are in a file.
    pub etcd: Option<etcd::Options>,
    /// What the node is called, and where it stands.
    pub node: node::Settings,
    /// Where its disks are reached from other nodes.
    pub listen: Option<Listen>,
}

impl Settings {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            mistake: mistake(&text, error.span(), error.message()),
        })
    }

    /// These settings, with those of `flags` instead where they are given.
    #[must_use]
    pub fn overridden_by(self, flags: Self) -> Self {
        Self {
            work_dir: flags.work_dir.or(self.work_dir),
            disks: flags.disks.or(self.disks),
            lease_ms: flags.lease_ms.or(self.lease_ms),
            memory: flags.memory.or(self.memory),
            disk_log: flags.disk_log.or(self.disk_log),
            direct_reads: flags.direct_reads.or(self.direct_reads),
            evict_failed_disks: flags.evict_failed_disks.or(self.evict_failed_disks),
            recovery_rate: flags.recovery_rate.or(self.recovery_rate),
            scrub: flags.scrub.or(self.scrub),
            rebalance: flags.rebalance.or(self.rebalance),
            slow_disks: flags.slow_disks.or(self.slow_disks),
            near_full: flags.near_full.or(self.near_full),
            admin_listen: if flags.admin_listen.is_empty() {
                self.admin_listen
            } else {
                flags.admin_listen
            },
            admin_names: if flags.admin_names.is_empty() {
                self.admin_names
            } else {
                flags.admin_names
            },
            coordination: flags.coordination.or(self.coordination),
            etcd: flags.etcd.or(self.etcd),
            cluster: flags.cluster.or(self.cluster),
        }
    }

    /// Checks everything and fills in what was left out.
    pub fn check(self) -> Result<Config, ConfigError> {
        let value = |message: String| Err(ConfigError::Value(message));
        let work_dir = self.work_dir.unwrap_or_else(|| WORK_DIR_DEFAULT.into());
        let work_dir = std::path::absolute(&work_dir).map_err(|error| {
            ConfigError::Value(format!(
                "the work directory {} is no path: {error}",
                work_dir.display()
            ))
        })?;
        let lease = self.lease_ms.map_or(LEASE_DEFAULT, Duration::from_millis);
        if !LEASE_RANGE.contains(&lease) {
            return value(format!(
                "lease_ms is from 1000 to 30000, not {}",
                lease.as_millis()
            ));
        }
        let memory = bytes(self.memory, MEMORY_DEFAULT, "memory")?;
        if memory < MEMORY_MIN {
            return value(format!("memory is at least 64M, not {memory} bytes"));
        }
        let disk_log = bytes(self.disk_log, store::options::LOG_BYTES_DEFAULT, "disk_log")?;
        let logs = store::options::LOG_BYTES_MIN..=store::options::LOG_BYTES_MAX;
        if !logs.contains(&disk_log) {
            return value(format!("disk_log is from 128K to 4G, not {disk_log} bytes"));
        }
        let recovery_rate = bytes(self.recovery_rate, RECOVERY_RATE_DEFAULT, "recovery_rate")?;
        if recovery_rate < RECOVERY_RATE_MIN {
            return value(format!(
                "recovery_rate is at least 1M, not {recovery_rate} bytes a second"
            ));
        }
        let etcd = etcd_options(self.coordination, self.etcd)?;
        let cluster = self.cluster.unwrap_or_default();
        let node = cluster.node(&work_dir, etcd.is_none())?;
        let listen = cluster.listen(etcd.is_none())?;
        let admin_listen = self.admin_listen.iter().map(|text| text.parse());
        let admin_listen = admin_listen.collect::<Result<Vec<_>, _>>()?;
        Ok(Config {
            admin_names: admin::names(self.admin_names, &admin_listen, &node.name, listen.as_ref())?,
            admin_listen,
            node,
            listen,
            work_dir,
            new_disks: self.disks.unwrap_or(0),
            lease,
            memory,
            disk_log,
            direct_reads: self.direct_reads.unwrap_or(true),
            evict_failed_disks: self.evict_failed_disks.unwrap_or(true),
            recovery_rate,
            scrub: self.scrub.unwrap_or_default().check()?,
            rebalance: self.rebalance.unwrap_or_default().check()?,
            slow_disks: self.slow_disks.unwrap_or_default().check()?,
            near_full: self.near_full.unwrap_or_default().check()?,
            etcd,
        })
    }
}

fn etcd_options(
    coordination: Option<Coordination>,
    etcd: Option<EtcdSettings>,
) -> Result<Option<etcd::Options>, ConfigError> {
    match (coordination, etcd) {
        (None | Some(Coordination::Embedded), None) => Ok(None),
        (None | Some(Coordination::Etcd), Some(etcd)) => etcd.check().map(Some),
        (Some(Coordination::Etcd), None) => Err(ConfigError::Value(
            "coordination = \"etcd\" needs a section [etcd] with its endpoints".to_owned(),
        )),
        (Some(Coordination::Embedded), Some(_)) => Err(ConfigError::Value(
            "coordination = \"embedded\" contradicts the section [etcd]: leave one of them out".to_owned(),
        )),
    }
}

impl EtcdSettings {
    fn check(self) -> Result<etcd::Options, ConfigError> {
        let halves = |half: etcd::HalfGiven| ConfigError::Value(format!("etcd: {half}"));
        let identity = ClientIdentity::of(self.certificate, self.key).map_err(halves)?;
        let credentials = Credentials::of(self.user, self.password_file).map_err(halves)?;
        let options = etcd::Options {
            prefix: self.prefix.unwrap_or_default(),
            ca: self.ca,
            identity,
            credentials,
            ..etcd::Options::plain(self.endpoints)
        };
        options
            .check()
            .map_err(|error| ConfigError::Value(error.to_string()))?;
        Ok(options)
    }
}

fn bytes(size: Option<SizeInput>, default: u64, what: &str) -> Result<u64, ConfigError> {
    match size {
        None => Ok(default),
        Some(size) => size
            .volume_size()
            .map(|size| size.bytes)
            .map_err(|error| ConfigError::Value(format!("{what}: {error}"))),
    }
}

/// Whether a host, in brackets or not, is this machine and no other.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Config {
    /// Front ends' socket.
    pub fn session_socket(&self) -> PathBuf {
        self.work_dir.join("storaged.sock")
    }

    /// The admin API's socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.work_dir.join("admin.sock")
    }

    /// The records of the embedded coordination store.
    pub fn coordination_file(&self) -> PathBuf {
        self.work_dir.join("coordination.redb")
    }

    /// Where disks' sockets are, and the disks that were made by default.
    pub fn disks_dir(&self) -> PathBuf {
        self.work_dir.join("disks")
    }
}

#[cfg(test)]
mod tests {
    //! Wrong values get a sentence; flags win over the file.
    use super::*;

    fn parsed(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn flags_win_over_the_file_and_the_rest_is_default() {
        let file = parsed("disks = 3\nlease_ms = 7000\n");
        let flags = Settings {
            lease_ms: Some(2000),
            ..Settings::default()
        };
        let config = file.overridden_by(flags).check().unwrap();
        assert_eq!((config.new_disks, config.lease), (3, Duration::from_secs(2)));
        assert_eq!(config.work_dir, Path::new(WORK_DIR_DEFAULT));
        assert_eq!(config.memory, 1 << 30);
    }

    #[test]
    fn wrong_values_are_refused_in_words() {
        for (text, says) in [
            ("lease_ms = 10", "from 1000"),
            ("memory = '1M'", "at least 64M"),
            ("memory = 'lots'", "not a size"),
            ("disk_log = '1K'", "from 128K"),
            ("admin_listen = ['tcp:0.0.0.0:7480']", "loopback"),
            ("admin_listen = ['tcp:example:7480']", "loopback"),
            ("admin_listen = ['here']", "not an address"),
            ("admin_listen = ['https://here']", "https://HOST:PORT"),
            ("admin_listen = ['tls:a@127.0.0.1:7480']", "https://HOST:PORT"),
            ("admin_names = ['a b']", "neither a name nor an address"),
            ("[slow_disks]\nfactor = 3", "slow_disks.factor is from 10"),
            ("[slow_disks]\nseconds = 5", "slow_disks.seconds is from 6"),
            ("[scrub]\nrate = '1K'", "scrub.rate is at least 1M"),
            ("[scrub]\ndeep_hours = 9000", "scrub.deep_hours is at most"),
            ("coordination = 'etcd'", "needs a section"),
            (
                "coordination = 'embedded'\n[etcd]\nendpoints = ['http://a:2379']",
                "contradicts",
            ),
            ("[etcd]\nendpoints = []", "1 to 16 endpoints"),
            ("[etcd]\nendpoints = ['https://a:2379']", "need `ca`"),
            (
                "[etcd]\nendpoints = ['http://a:2379']\nuser = 'a'",
                "password_file",
            ),
            ("[etcd]\nendpoints = ['http://a:2379']\nkey = 'a'", "certificate"),
        ] {
            let error = parsed(text).check().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let parsed: Result<Settings, _> = toml::from_str("lease = 5");
        assert!(parsed.unwrap_err().to_string().contains("unknown field"));
    }

    #[test]
    fn a_mistake_in_the_line_of_a_secret_does_not_show_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for line in [
            "password = 'canary'",
            "user = ['canary']",
            "user = 'canary",
            "user = 1\nuser = 'canary'",
        ] {
            std::fs::write(file.path(), format!("[etcd]\n{line}\n")).unwrap();
            let error = Settings::read(file.path()).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains("line ") && !told.contains("canary"), "{told}");
        }
    }

    #[test]
    fn an_etcd_section_is_enough_to_use_it() {
        let text = "[etcd]\nendpoints = ['https://a:2379', 'https://b:2379']\nprefix = '/site'\nca = '/ca.pem'\n\
                    user = 'storaged'\npassword_file = '/password'\n";
        let etcd = parsed(text).check().unwrap().etcd.unwrap();
        assert_eq!((etcd.endpoints.len(), etcd.prefix.as_str()), (2, "/site"));
        assert_eq!(etcd.credentials.unwrap().user, "storaged");
        assert_eq!(parsed("coordination = 'embedded'").check().unwrap().etcd, None);
    }

    #[test]
    fn loopback_addresses_are_taken() {
        for text in [
            "tcp:127.0.0.1:7480",
            "tcp:[::1]:7480",
            "tcp:localhost:7480",
            "unix:/tmp/a.sock",
        ] {
            assert!(text.parse::<AdminListen>().is_ok(), "{text}");
        }
    }
}
