//! Where the admin API is served besides its socket, and by which names others know it there.

use std::net::IpAddr;
use std::str::FromStr;

use client::transport::{Address, Role};
use rustls::pki_types::ServerName;

use super::{ConfigError, Listen, is_loopback};

/// The most names in a certificate that are added by hand.
const NAMES_MAX: usize = 16;

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// For this machine only: it asks nobody who he is.
    Here(Address),
    /// For the network, with TLS: `HOST:PORT`. Whoever asks shows an access token.
    Network(String),
}

impl std::fmt::Display for AdminListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here(address) => address.fmt(f),
            Self::Network(host) => write!(f, "https://{host}"),
        }
    }
}

impl FromStr for AdminListen {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = |message: String| ConfigError::Value(format!("admin_listen: {message}"));
        if let Some(host) = text.strip_prefix("https://") {
            let parts = host
                .rsplit_once(':')
                .map(|(host, port)| (host, port.parse::<u16>()));
            return match parts {
                Some((name, Ok(_))) if !name.is_empty() && !host.contains('/') => {
                    Ok(Self::Network(host.to_owned()))
                }
                _ => Err(wrong(format!("write https://HOST:PORT, not {text}"))),
            };
        }
        let address: Address = text.parse().map_err(|error| wrong(format!("{error}")))?;
        let host_and_port = match &address {
            Address::Unix(_) => return Ok(Self::Here(address)),
            Address::Tcp(host_and_port) => host_and_port,
            Address::Tls { .. } => {
                return Err(wrong(format!("with TLS it is https://HOST:PORT, not {text}")));
            }
        };
        let host = host_and_port.rsplit_once(':').map_or("", |(host, _)| host);
        if is_loopback(host) {
            return Ok(Self::Here(address));
        }
        Err(wrong(format!(
            "{text} is not a loopback address, and asks nobody who he is: write https:// and its host and port, where \
             whoever asks shows a token (`storagectl access create`)"
        )))
    }
}

/// The names for the certificate: what was said, and what others are likely to write.
pub(super) fn names(
    said: Vec<String>,
    listen: &[AdminListen],
    node: &str,
    reached: Option<&Listen>,
) -> Result<Vec<String>, ConfigError> {
    if said.len() > NAMES_MAX {
        return Err(ConfigError::Value(format!(
            "admin_names has at most {NAMES_MAX} names, not {}",
            said.len()
        )));
    }
    if let Some(wrong) = said.iter().find(|name| !is_fit(name)) {
        return Err(ConfigError::Value(format!(
            "admin_names: {wrong:?} is neither a name nor an address of a host that others may know this one by"
        )));
    }
    let mut names = said;
    let hosts = listen.iter().filter_map(|listen| match listen {
        AdminListen::Network(host) => host.rsplit_once(':').map(|(host, _)| host),
        AdminListen::Here(_) => None,
    });
    let likely = hosts
        .chain(reached.map(|listen| listen.advertised.as_str()))
        .chain([node, "localhost", "127.0.0.1", "::1"]);
    for name in likely.map(bare) {
        if is_fit(name) && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether it may stand in the certificate. A name that says what nodes, their front ends, or the door for machines that
/// join are would make it theirs.
fn is_fit(name: &str) -> bool {
    if let Ok(address) = name.parse::<IpAddr>() {
        return !address.is_unspecified();
    }
    let lower = name.to_ascii_lowercase();
    ServerName::try_from(name).is_ok()
        && Role::parse(&lower).is_none()
        && !lower.ends_with(".storaged")
        && lower != joining::NAME
}

#[cfg(test)]
mod tests {
    //! What the network reaches has TLS and tokens; the certificate has no name that is somebody else's.
    use super::*;

    #[test]
    fn only_https_is_for_the_network() {
        let network: AdminListen = "https://0.0.0.0:7480".parse().unwrap();
        assert_eq!(network, AdminListen::Network("0.0.0.0:7480".into()));
        assert_eq!(network.to_string(), "https://0.0.0.0:7480");
        let here: AdminListen = "tcp:127.0.0.1:7480".parse().unwrap();
        assert!(matches!(here, AdminListen::Here(Address::Tcp(_))));
        for wrong in [
            "tcp:10.0.0.1:7480",
            "https://:7480",
            "https://a:b",
            "https://a:1/x",
            "http://a:1",
        ] {
            assert!(wrong.parse::<AdminListen>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_names_how_the_host_is_reached_and_nobody_else() {
        let listen = ["https://0.0.0.0:7480", "https://[2001:db8::1]:7480"].map(|text| text.parse().unwrap());
        let reached = Listen {
            host: "0.0.0.0".into(),
            advertised: "10.0.0.1".into(),
            port: 7470,
            plaintext: false,
        };
        let names = names(vec!["storage.example".into()], &listen, "host-1", Some(&reached)).unwrap();
        let expected = [
            "storage.example",
            "2001:db8::1",
            "10.0.0.1",
            "host-1",
            "localhost",
            "127.0.0.1",
            "::1",
        ];
        assert_eq!(names, expected);
        for stolen in [
            "node-3.nodes.storaged",
            "Node-3.Front-Ends.storaged",
            "join.storaged",
            "0.0.0.0",
        ] {
            assert!(
                super::names(vec![stolen.into()], &[], "a", None).is_err(),
                "{stolen}"
            );
            let names = super::names(vec![], &[], stolen, None).unwrap();
            assert!(!names.iter().any(|name| name == stolen), "{names:?}");
        }
    }
}
