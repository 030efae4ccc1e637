//! Which volumes a host shall have, as kernel block devices or as sockets for guests, and which it has: keys and records between whoever decides it and the
//! agent of the host (`storaged-attach`).
//!
//! They lie in a store of their own prefix, beside the cluster's, so that an agent needs no right to anything else. This
//! module knows neither what a device is for nor how it is made.
//!
//! ```text
//! /storaged/attach/agent/HOST         the agent of a host lives; goes away with its lease
//! /storaged/attach/want/HOST/VOLUME   the volume shall be there; stays until it is deleted
//! /storaged/attach/have/HOST/VOLUME   what became of that; goes away with the agent's lease
//! ```

use serde::{Deserialize, Serialize};

/// What the key of every agent begins with.
pub const AGENTS: &str = "/storaged/attach/agent/";
/// What the key of everything that is wanted begins with.
pub const WANTS: &str = "/storaged/attach/want/";
const HAVES: &str = "/storaged/attach/have/";

/// The longest name of a host, in bytes: that of a name in the DNS.
pub const HOST_LENGTH_MAX: usize = 253;

/// The agent of a host lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// What tells a start of the machine from every other one, of any machine.
    pub boot: String,
    /// The program's version, for people.
    pub version: String,
    /// Whether it makes sockets for guests, too ([`Way::VhostUser`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vhost_user: bool,
}

/// As what a host shall have a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A block device of its kernel.
    #[default]
    Block,
    /// A socket at which a guest on it finds the volume by vhost-user-blk.
    VhostUser,
}

impl Way {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
    fn is_block(&self) -> bool {
        *self == Self::Block
    }
}

/// A host shall have a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantRecord {
    /// Whether it is for reading only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// As what.
    #[serde(default, skip_serializing_if = "Way::is_block")]
    pub way: Way,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveRecord {
    /// The transaction that wrote the wish that this answers.
    pub wish: u64,
    /// Where the device or the socket is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why there is none, or why it is still there: a sentence. It is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A host, by a name that can stand in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// The host of this name, or nothing if no host is called so: letters, digits, dots, dashes, underscores.
    pub fn new(name: &str) -> Option<Self> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let fits = !name.is_empty() && name.len() <= HOST_LENGTH_MAX && name.chars().all(is_part);
        fits.then(|| Self(name.to_owned()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The key of its agent.
    pub fn agent(&self) -> String {
        format!("{AGENTS}{}", self.0)
    }

    /// What the keys of all that it shall have begin with.
    pub fn wants(&self) -> String {
        format!("{WANTS}{}/", self.0)
    }

    /// The key of the wish for a volume.
    pub fn want(&self, volume: &str) -> String {
        format!("{WANTS}{}/{volume}", self.0)
    }

    /// What the keys of all that it has begin with.
    pub fn haves(&self) -> String {
        format!("{HAVES}{}/", self.0)
    }

    /// The key of what became of a volume.
    pub fn have(&self, volume: &str) -> String {
        format!("{HAVES}{}/{volume}", self.0)
    }
}

/// The host and the volume of the key of a wish.
pub fn parse_want(key: &str) -> Option<(Host, &str)> {
    let (host, volume) = key.strip_prefix(WANTS)?.split_once('/')?;
    (!volume.is_empty() && !volume.contains('/')).then_some((Host::new(host)?, volume))
}

#[cfg(test)]
mod tests {
    //! Keys and records are a stored format: golden texts, read back.
    use super::*;
    use crate::records::{decode, encode};
    use crate::store::{Entry, Revision};

    fn read<T: serde::de::DeserializeOwned>(value: &str) -> T {
        decode(&Entry {
            key: String::new(),
            value: value.as_bytes().into(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        })
        .unwrap()
    }

    #[test]
    fn keys_are_as_they_are_stored_and_those_of_wishes_read_back() {
        let host = Host::new("compute-1.example").unwrap();
        assert_eq!(host.agent(), "/storaged/attach/agent/compute-1.example");
        assert_eq!(host.want("v-1"), "/storaged/attach/want/compute-1.example/v-1");
        assert_eq!(host.have("v-1"), "/storaged/attach/have/compute-1.example/v-1");
        assert_eq!(parse_want(&host.want("v-1")), Some((host.clone(), "v-1")));
        assert!(host.want("v").starts_with(&host.wants()) && host.have("v").starts_with(&host.haves()));
        for wrong in [
            "",
            "/storaged/attach/want/h",
            "/storaged/attach/want/h/",
            "/storaged/attach/want/h/a/b",
        ] {
            assert_eq!(parse_want(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_host_whose_name_would_be_another_key_is_none() {
        for wrong in ["", "a/b", "a b", "\u{e4}", &"x".repeat(254)] {
            assert_eq!(Host::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn records_keep_their_golden_bytes() {
        let agent = AgentRecord {
            boot: "b".to_owned(),
            version: "1".to_owned(),
            vhost_user: false,
        };
        let golden = r#"{"format":1,"boot":"b","version":"1"}"#;
        assert_eq!(&*encode(&agent).unwrap(), golden.as_bytes());
        assert_eq!(read::<AgentRecord>(golden), agent);
        let both = AgentRecord {
            vhost_user: true,
            ..agent
        };
        let golden = r#"{"format":1,"boot":"b","version":"1","vhost_user":true}"#;
        assert_eq!(&*encode(&both).unwrap(), golden.as_bytes());
        assert_eq!(read::<AgentRecord>(golden), both);
        assert_eq!(&*encode(&WantRecord::default()).unwrap(), br#"{"format":1}"#);
        let only = WantRecord {
            read_only: true,
            ..WantRecord::default()
        };
        let golden = r#"{"format":1,"read_only":true}"#;
        assert_eq!(&*encode(&only).unwrap(), golden.as_bytes());
        assert_eq!(read::<WantRecord>(golden), only);
        let socket = WantRecord {
            way: Way::VhostUser,
            ..WantRecord::default()
        };
        let golden = r#"{"format":1,"way":"vhost_user"}"#;
        assert_eq!(&*encode(&socket).unwrap(), golden.as_bytes());
        assert_eq!(read::<WantRecord>(golden), socket);
        let there = HaveRecord {
            wish: 7,
            path: Some("/dev/storaged/v".to_owned()),
            trouble: None,
        };
        let golden = r#"{"format":1,"wish":7,"path":"/dev/storaged/v"}"#;
        assert_eq!(&*encode(&there).unwrap(), golden.as_bytes());
        assert_eq!(read::<HaveRecord>(golden), there);
    }
}
