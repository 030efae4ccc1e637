//! Addresses to listen on: `unix:PATH` and `tcp:HOST:PORT`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where clients come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A socket file.
    Unix(PathBuf),
    /// An address and a port; port 0 takes any that is free.
    Tcp(SocketAddr),
}

impl ListenAddress {
    /// Whether others than this node's processes can reach it.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| {
                format!("\"{address}\" is not an IP address and a port: write tcp:127.0.0.1:10809 or tcp:[::1]:10809")
            }),
            _ => Err(format!("\"{text}\" is no address: write unix:PATH or tcp:ADDRESS:PORT")),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    //! The laws of addresses: what is printed can be parsed, and a wrong one says what is right.
    use super::*;

    #[test]
    fn an_address_prints_as_it_is_written() {
        for text in ["unix:/run/x.sock", "tcp:127.0.0.1:10809", "tcp:[::1]:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_address_is_answered_with_a_right_one() {
        for text in ["/run/x.sock", "unix:", "tcp:localhost:1", "tcp:1.2.3.4", ""] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains("write "), "{error}");
        }
    }

    #[test]
    fn only_loopback_is_not_remote() {
        assert!("tcp:0.0.0.0:1".parse::<ListenAddress>().unwrap().is_remote());
        assert!(!"tcp:[::1]:1".parse::<ListenAddress>().unwrap().is_remote());
        assert!(!"unix:/x".parse::<ListenAddress>().unwrap().is_remote());
    }
}
