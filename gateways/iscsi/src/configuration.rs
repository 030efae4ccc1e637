//! What targets there are and who may use them, as the admin API tells it to gateways.
//!
//! The same records as `admin_api` will have once management is merged; refuses to know how they come here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// All that a gateway serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Grows with each change.
    pub revision: u64,
    /// The targets.
    pub targets: Vec<Target>,
    /// Which gateways serve.
    pub portals: Vec<Portal>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name: `iqn.`, `eui.` or `naa.`, in lower case.
    pub name: String,
    /// Its logical units.
    pub luns: Vec<Lun>,
    /// Who may use it. Nobody else may.
    pub access: Vec<Access>,
    /// How it proves itself to initiators that ask.
    pub mutual: Option<Credentials>,
    /// Which portals serve it; all of the configuration's if there are none here.
    #[serde(default)]
    pub portals: Vec<Portal>,
    /// When it was made, in milliseconds since 1970.
    #[serde(default)]
    pub created_ms: u64,
}

/// A logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lun {
    /// Its number: 0 to 255.
    pub number: u16,
    /// The volume's present name.
    pub volume: String,
    /// The volume's lasting number.
    pub volume_id: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Bytes of a logical block: 512 or 4096.
    pub block_size: u32,
}

/// One initiator that may use a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Its name, in full.
    pub initiator: String,
    /// What it must prove to know, if anything.
    pub chap: Option<Credentials>,
}

/// A name and a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The secret: 12 to 255 bytes.
    pub secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {:?}", self.user)
    }
}

/// Where a gateway lets initiators in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portal {
    /// The gateway's node.
    pub node: String,
    /// `IP:PORT` or `[IP]:PORT`.
    pub address: String,
    /// The target portal group's tag, from 1.
    pub group: u16,
}

/// Persistent reservations of one volume, as all portals know them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservations {
    /// Grows with each change of the record; 0 if there is none.
    pub revision: u64,
    /// `PRGENERATION` (SPC-4 clause 6.15.2).
    pub generation: u32,
    /// Who has registered with which key.
    pub registrations: Vec<Registration>,
    /// Who holds the reservation.
    pub holder: Option<Holder>,
    /// Whether it outlives a loss of power.
    pub aptpl: bool,
}

/// One registered path from an initiator to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The initiator's name.
    pub initiator: String,
    /// The initiator's part of the session's name: 12 hexadecimal digits.
    pub isid: String,
    /// The target's name.
    pub target: String,
    /// The portal group's tag.
    pub portal_group: u16,
    /// The key.
    pub key: u64,
}

/// Who holds a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The initiator's name.
    pub initiator: String,
    /// As in [`Registration`].
    pub isid: String,
    /// The target's name.
    pub target: String,
    /// The portal group's tag.
    pub portal_group: u16,
    /// The type (SPC-4 table 205): 1, 3, 5, 6, 7 or 8.
    pub scope_type: u8,
}

impl Target {
    /// What an initiator must prove, if it may use the target at all.
    pub fn access(&self, initiator: &str) -> Option<&Access> {
        let mut known = self.access.iter();
        known.find(|access| access.initiator.eq_ignore_ascii_case(initiator))
    }
}

#[cfg(test)]
mod tests {
    //! Secrets are not shown, and nobody is let in who is not named.
    use super::*;

    #[test]
    fn a_secret_is_not_printed_and_a_stranger_has_no_access() {
        let credentials = Credentials {
            user: "alice".into(),
            secret: "very secret words".into(),
        };
        let access = Access {
            initiator: "iqn.a".into(),
            chap: Some(credentials),
        };
        let target = Target {
            access: vec![access],
            ..Target::default()
        };
        assert!(!format!("{target:?}").contains("secret words"));
        assert!(target.access("iqn.A").is_some() && target.access("iqn.ab").is_none());
    }
}
