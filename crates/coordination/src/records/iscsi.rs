//! Records about iSCSI: targets, which volumes are their LUNs, where gateways serve them, and persistent reservations.
//!
//! CHAP needs secrets in the clear on both sides. They stand here sealed, by nodes that have something to seal them with,
//! and otherwise in the clear. `Debug` shows neither.

use std::fmt;
use std::sync::Arc;

use protocol::VolumeId;
use serde::{Deserialize, Serialize};

use super::newer::NewerFields;
use super::{FORMAT_FIRST, FORMAT_OF_SEALS, encode_as};
use crate::store::CoordinationError;

/// A target. Its name is in its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// Its LUNs, by number.
    pub luns: Vec<LunRecord>,
    /// Who may log in, by name.
    pub access: Vec<AccessRecord>,
    /// With what the target shows who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual: Option<CredentialsRecord>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What a newer program says of it besides.
    #[serde(flatten)]
    pub newer: NewerFields,
}

/// A volume as a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LunRecord {
    /// Its number: 0 to 255.
    pub number: u16,
    /// The volume, whatever it is called.
    pub volume: VolumeId,
    /// Whether writes are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// The size of its logical blocks in bytes: 512 or 4096.
    pub block_size: u32,
}

/// An initiator that may log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRecord {
    /// Its name, in lower case.
    pub initiator: String,
    /// With what it shows who it is; nothing: its name is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<CredentialsRecord>,
}

/// A name and a secret for CHAP.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsRecord {
    /// The name.
    pub user: String,
    /// The secret.
    #[serde(flatten)]
    pub secret: SecretRecord,
}

/// A secret as it is kept: a field `secret`, or a field `sealed`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretRecord {
    /// In the clear: whoever reads the coordination store reads it.
    #[serde(rename = "secret")]
    Clear(String),
    /// Sealed for the nodes of the cluster: docs/formats/coordination.md says how.
    #[serde(rename = "sealed")]
    Sealed(String),
}

impl TargetRecord {
    /// All names and secrets in it, each with the initiator that shows it; the target's own with none.
    pub fn credentials(&self) -> impl Iterator<Item = (Option<&str>, &CredentialsRecord)> {
        let others = self.access.iter();
        let others =
            others.filter_map(|access| Some((Some(access.initiator.as_str()), access.chap.as_ref()?)));
        others.chain(self.mutual.iter().map(|own| (None, own)))
    }

    /// Its bytes: in the format of seals if a secret in it is sealed.
    pub fn encode(&self) -> Result<Arc<[u8]>, CoordinationError> {
        let is_sealed = |(_, credentials): (_, &CredentialsRecord)| credentials.secret.is_sealed();
        let format = if self.credentials().any(is_sealed) {
            FORMAT_OF_SEALS
        } else {
            FORMAT_FIRST
        };
        encode_as(format, self)
    }
}

impl SecretRecord {
    /// Whether who reads the coordination store alone does not read it.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }
}

impl fmt::Debug for SecretRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_sealed() { "Sealed" } else { "Clear" })
    }
}

impl fmt::Debug for CredentialsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CredentialsRecord");
        shown.field("user", &self.user).finish_non_exhaustive()
    }
}

/// That a volume is a LUN. Made and deleted with the LUN in the target's record, so that a volume is one LUN at most,
/// and is not deleted while it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LunOfRecord {
    /// The target's name.
    pub target: String,
    /// The LUN's number.
    pub number: u16,
}

/// A gateway that serves all targets. Its node and the tag of its portal group are in its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortalRecord {
    /// Where: `IP:PORT` or `[IP]:PORT`.
    pub addresses: Vec<String>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// All that initiators have registered with a volume that is a LUN (SPC-4 clause 5.9).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationsRecord {
    /// The generation that SPC-4 counts.
    pub generation: u32,
    /// Who is registered.
    pub registrations: Vec<RegistrationRecord>,
    /// Who holds the reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<HolderRecord>,
    /// Whether the initiators asked for it to outlive a loss of power.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aptpl: bool,
    /// Who has the unit by the older kind of reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<HolderRecord>,
    /// How often the unit was reset.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub resets: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none_yet(count: &u64) -> bool {
    *count == 0
}

/// A registration, through one port of the initiator and one of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationRecord {
    /// The initiator's name.
    pub initiator: String,
    /// Its session's identifier: 12 hexadecimal digits, or empty.
    pub isid: String,
    /// The target's name.
    pub target: String,
    /// The tag of the portal group.
    pub portal_group: u16,
    /// The reservation key.
    pub key: u64,
}

/// The holder of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderRecord {
    /// The initiator's name.
    pub initiator: String,
    /// Its session's identifier: 12 hexadecimal digits, or empty.
    pub isid: String,
    /// The target's name.
    pub target: String,
    /// The tag of the portal group.
    pub portal_group: u16,
    /// The reservation's type.
    pub scope_type: u8,
}

#[cfg(test)]
mod tests {
    //! Records are a stored format: golden bytes; and secrets are not shown by accident.
    use super::super::{decode, encode};
    use super::*;
    use crate::records::tests::entry;

    fn credentials(user: &str) -> CredentialsRecord {
        CredentialsRecord {
            user: user.to_owned(),
            secret: SecretRecord::Clear("123456789012".to_owned()),
        }
    }

    fn target() -> TargetRecord {
        TargetRecord {
            luns: vec![LunRecord {
                number: 0,
                volume: VolumeId(7),
                read_only: false,
                block_size: 512,
            }],
            access: vec![AccessRecord {
                initiator: "iqn.2026-11.org.example:h".to_owned(),
                chap: Some(credentials("h")),
            }],
            mutual: Some(credentials("t")),
            created_ms: 5,
            newer: NewerFields::default(),
        }
    }

    #[test]
    fn a_target_keeps_its_golden_bytes() {
        let golden = concat!(
            r#"{"format":1,"luns":[{"number":0,"volume":7,"block_size":512}],"#,
            r#""access":[{"initiator":"iqn.2026-11.org.example:h","chap":{"user":"h","secret":"123456789012"}}],"#,
            r#""mutual":{"user":"t","secret":"123456789012"},"created_ms":5}"#
        );
        assert_eq!(&*target().encode().unwrap(), golden.as_bytes());
        assert_eq!(decode::<TargetRecord>(&entry(golden)).unwrap(), target());
        let empty = r#"{"format":1,"luns":[],"access":[],"created_ms":5,"of_later":1}"#;
        let empty: TargetRecord = decode(&entry(empty)).unwrap();
        assert_eq!((empty.mutual, empty.luns.len()), (None, 0));
    }

    #[test]
    fn a_target_with_a_sealed_secret_has_a_format_of_its_own() {
        let mut sealed = target();
        let own = sealed.mutual.as_mut().unwrap();
        own.secret = SecretRecord::Sealed("AQ==".to_owned());
        let golden = concat!(
            r#"{"format":3,"luns":[{"number":0,"volume":7,"block_size":512}],"#,
            r#""access":[{"initiator":"iqn.2026-11.org.example:h","chap":{"user":"h","secret":"123456789012"}}],"#,
            r#""mutual":{"user":"t","sealed":"AQ=="},"created_ms":5}"#
        );
        assert_eq!(&*sealed.encode().unwrap(), golden.as_bytes());
        assert_eq!(decode::<TargetRecord>(&entry(golden)).unwrap(), sealed);
    }

    #[test]
    fn a_secret_is_not_in_what_is_printed_for_debugging() {
        let shown = format!("{:?} {:#?}", target(), target());
        assert!(!shown.contains("123456789012"), "{shown}");
    }

    #[test]
    fn a_portal_and_the_note_of_a_lun_keep_their_golden_bytes() {
        let portal = PortalRecord {
            addresses: vec!["10.0.0.1:3260".to_owned(), "[fd00::1]:3260".to_owned()],
            since_ms: 5,
        };
        let golden = r#"{"format":1,"addresses":["10.0.0.1:3260","[fd00::1]:3260"],"since_ms":5}"#;
        assert_eq!(&*encode(&portal).unwrap(), golden.as_bytes());
        let note = LunOfRecord {
            target: "iqn.2026-11.org.example:a".to_owned(),
            number: 3,
        };
        let golden = r#"{"format":1,"target":"iqn.2026-11.org.example:a","number":3}"#;
        assert_eq!(&*encode(&note).unwrap(), golden.as_bytes());
    }

    #[test]
    fn reservations_keep_their_golden_bytes() {
        let initiator = "iqn.2026-11.org.example:h".to_owned();
        let (isid, target) = ("0123456789ab".to_owned(), "iqn.2026-11.org.example:a".to_owned());
        let reservations = ReservationsRecord {
            generation: 2,
            registrations: vec![RegistrationRecord {
                initiator: initiator.clone(),
                isid: isid.clone(),
                target: target.clone(),
                portal_group: 1,
                key: 9,
            }],
            holder: Some(HolderRecord {
                initiator,
                isid,
                target,
                portal_group: 1,
                scope_type: 5,
            }),
            aptpl: true,
            reserved: None,
            resets: 0,
        };
        let port = concat!(
            r#""initiator":"iqn.2026-11.org.example:h","isid":"0123456789ab","#,
            r#""target":"iqn.2026-11.org.example:a","portal_group":1"#
        );
        let golden = format!(
            r#"{{"format":1,"generation":2,"registrations":[{{{port},"key":9}}],"holder":{{{port},"scope_type":5}},"aptpl":true}}"#
        );
        assert_eq!(&*encode(&reservations).unwrap(), golden.as_bytes());
        assert_eq!(
            decode::<ReservationsRecord>(&entry(&golden)).unwrap(),
            reservations
        );
        let older = ReservationsRecord {
            registrations: Vec::new(),
            holder: None,
            aptpl: false,
            reserved: reservations.holder.map(|holder| HolderRecord {
                scope_type: 0,
                ..holder
            }),
            resets: 3,
            ..reservations
        };
        let golden = format!(
            r#"{{"format":1,"generation":2,"registrations":[],"reserved":{{{port},"scope_type":0}},"resets":3}}"#
        );
        assert_eq!(&*encode(&older).unwrap(), golden.as_bytes());
        assert_eq!(decode::<ReservationsRecord>(&entry(&golden)).unwrap(), older);
    }
}
