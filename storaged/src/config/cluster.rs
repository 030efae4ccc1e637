//! The section `[cluster]`: what a node is called, where it stands, and where others reach it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use protocol::NodeId;
use serde::Deserialize;

use super::{ConfigError, is_loopback};
use crate::cluster;

/// How long a node counts as up after its last renewal, by default.
const LEASE_DEFAULT: Duration = Duration::from_secs(5);
/// Shorter leases would lapse in a busy moment; longer ones keep others waiting for a node that is gone.
const LEASE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(30);
/// The longest name of a node or a zone.
const NAME_LENGTH_MAX: usize = 63;

/// The file's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSettings {
    /// What the node is called; the host's name if it is left out.
    pub name: Option<String>,
    /// The failure zone that it is in: a rack, a room, a site.
    pub zone: Option<String>,
    /// How long it counts as up after its last renewal, in milliseconds.
    pub node_lease_ms: Option<u64>,
    /// Where its disks are reached from other nodes: `HOST:PORT`. The disks take the ports after that one.
    pub listen: Option<String>,
    /// The host that other nodes are told, where they reach this one by another than that of `listen`. The ports are
    /// the same.
    pub advertise: Option<String>,
    /// Whether nodes speak without certificates and encryption: on loopback only, for tests.
    pub plaintext: Option<bool>,
    /// Nodes that are lost for good, by number: records that the coordination store has lost are put back without waiting
    /// for what they remember.
    pub recall_without: Vec<u32>,
}

/// Where disks are reached from other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or an address, in brackets if it is one of IPv6.
    pub host: String,
    /// The host that others reach it by: the same one, unless told otherwise.
    pub advertised: String,
    /// The first port; zero: the system chooses.
    pub port: u16,
    /// Whether without certificates and encryption.
    pub plaintext: bool,
}

impl ClusterSettings {
    /// What the node is told of itself. `alone`: there is no other node.
    pub(super) fn node(&self, work_dir: &Path, alone: bool) -> Result<cluster::Settings, ConfigError> {
        let lease = self.node_lease_ms.map_or(LEASE_DEFAULT, Duration::from_millis);
        if !LEASE_RANGE.contains(&lease) {
            return Err(wrong(&format!(
                "node_lease_ms is from 5000 to 30000, not {}",
                lease.as_millis()
            )));
        }
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = self.name.clone().unwrap_or_else(host);
        let zone = self.zone.clone().unwrap_or_default();
        for (what, text) in [("name", &name), ("zone", &zone)] {
            if text.len() > NAME_LENGTH_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(wrong(&format!(
                    "{what} has at most {NAME_LENGTH_MAX} characters and no spaces"
                )));
            }
        }
        Ok(cluster::Settings {
            work_dir: work_dir.to_owned(),
            name,
            zone,
            lease,
            alone,
            recall_without: self.recall_without.iter().copied().map(NodeId).collect(),
        })
    }

    /// Where its disks are reached from other nodes; nothing if they are not.
    pub(super) fn listen(&self, alone: bool) -> Result<Option<Listen>, ConfigError> {
        let Some(text) = &self.listen else { return Ok(None) };
        if alone {
            return Err(wrong(
                "listen is for nodes that share an etcd: add a section [etcd]",
            ));
        }
        let parts = text.rsplit_once(':').map(|(host, port)| (host, port.parse()));
        let Some((host, Ok(port))) = parts.filter(|(host, _)| !host.is_empty()) else {
            return Err(wrong(&format!("listen is HOST:PORT, not {text:?}")));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let advertised = self.advertise.as_deref().unwrap_or(host);
        if is_unspecified(advertised) {
            return Err(wrong(&format!(
                "listen is the address that other nodes connect to, unless advertise says which; {advertised} is none"
            )));
        }
        // Brackets are for colons of IPv6; any other colon begins a port.
        let outside = advertised.rsplit_once(']').map_or(advertised, |(_, rest)| rest);
        if advertised.is_empty() || outside.contains(':') {
            return Err(wrong(&format!(
                "advertise is a host without a port, not {advertised:?}: the ports are those of listen"
            )));
        }
        let plaintext = self.plaintext.unwrap_or(false);
        if plaintext && !is_loopback(bare) {
            return Err(wrong(&format!(
                "plaintext = true is for loopback addresses, and {bare} is none: what nodes tell each other \
                 must not cross a network that way"
            )));
        }
        Ok(Some(Listen {
            host: host.to_owned(),
            advertised: advertised.to_owned(),
            port,
            plaintext,
        }))
    }
}

fn is_unspecified(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    address.is_ok_and(|address: IpAddr| address.is_unspecified())
}

fn wrong(message: &str) -> ConfigError {
    ConfigError::Value(format!("cluster: {message}"))
}

#[cfg(test)]
mod tests {
    //! What would expose data to a network, or cannot work, is refused in words.
    use super::*;

    fn parsed(text: &str) -> ClusterSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn plaintext_is_for_loopback_and_never_assumed() {
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            let settings = parsed(&format!("listen = '{host}:7470'\nplaintext = true"));
            let listen = settings.listen(false).unwrap().unwrap();
            assert_eq!((listen.host.as_str(), listen.port), (host, 7470));
        }
        for (text, says) in [
            ("listen = '10.0.0.1:7470'\nplaintext = true", "loopback"),
            ("listen = 'example:7470'\nplaintext = true", "loopback"),
            ("listen = '0.0.0.0:7470'\nplaintext = true", "connect to"),
            ("listen = '[::]:7470'\nplaintext = true", "connect to"),
            ("listen = '127.0.0.1'\nplaintext = true", "HOST:PORT"),
            ("listen = ':7470'\nplaintext = true", "HOST:PORT"),
        ] {
            let error = parsed(text).listen(false).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let listen = parsed("listen = 'example:7470'").listen(false).unwrap();
        assert!(!listen.unwrap().plaintext);
        let error = parsed("listen = '127.0.0.1:1'").listen(true).unwrap_err();
        assert!(error.to_string().contains("[etcd]"), "{error}");
    }

    #[test]
    fn others_are_told_the_advertised_host_and_never_one_that_is_none() {
        let told = |text: &str| {
            parsed(text)
                .listen(false)
                .map(|listen| listen.unwrap().advertised)
        };
        assert_eq!(told("listen = '10.0.0.1:7470'").unwrap(), "10.0.0.1");
        for host in ["203.0.113.7", "[2001:db8::1]", "site-a.example"] {
            let text = format!("listen = '0.0.0.0:7470'\nadvertise = '{host}'");
            assert_eq!(told(&text).unwrap(), host);
        }
        for (advertise, says) in [
            ("0.0.0.0", "is none"),
            ("[::]", "is none"),
            ("", "without a port"),
            ("203.0.113.7:7470", "without a port"),
            ("2001:db8::1", "without a port"),
            ("[2001:db8::1]:7470", "without a port"),
        ] {
            let error = told(&format!("listen = '10.0.0.1:7470'\nadvertise = '{advertise}'"));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(says), "{advertise}: {error}");
        }
    }

    #[test]
    fn a_node_has_a_name_a_zone_and_a_lease() {
        let node = parsed("name = 'a'\nzone = 'east'\nnode_lease_ms = 6000\nrecall_without = [7]")
            .node(Path::new("/w"), false)
            .unwrap();
        assert_eq!((node.name.as_str(), node.zone.as_str()), ("a", "east"));
        assert_eq!(node.lease, Duration::from_secs(6));
        assert_eq!(node.recall_without, [NodeId(7)].into());
        assert!(!parsed("").node(Path::new("/w"), false).unwrap().name.is_empty());
        for text in [
            "node_lease_ms = 4999",
            "node_lease_ms = 30001",
            "zone = 'a b'",
            "name = 'a\tb'",
        ] {
            assert!(parsed(text).node(Path::new("/w"), false).is_err(), "{text}");
        }
    }
}
