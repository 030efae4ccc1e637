//! Requests and answers about iSCSI: targets with their LUNs, who may log in, the portals that serve them, and the
//! persistent reservations of LUNs.
//!
//! What people are shown ([`TargetInfo`]) has no secret in it. Gateways need CHAP secrets in the clear, and read
//! [`Configuration`] for that. What an initiator and a gateway say to each other is not known here.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

mod limits;
mod names;

pub use limits::{
    ACCESS_MAX, ADDRESSES_MAX, BLOCK_SIZES, BadCredentials, LUN_NUMBER_MAX, LUNS_MAX, PORTAL_LEASE_MS,
    PORTAL_RENEWAL_MS, REGISTRATIONS_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, USER_BYTES_MAX, WAIT_MS_MAX,
};
pub use names::{IscsiNameError, NAME_BYTES_MAX, normalise_name};

/// The block size of a LUN if nobody says otherwise: what every initiator knows.
pub const BLOCK_SIZE_DEFAULT: u32 = 512;

/// A name and a secret, with which one side of a login shows the other who it is (CHAP, RFC 7143 section 12.1.3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Credentials {
    /// The name that goes with the secret: 1 to 255 bytes, no control characters.
    pub user: String,
    /// The secret: 12 to 255 bytes. `Debug` does not show it.
    pub secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Credentials");
        shown.field("user", &self.user).finish_non_exhaustive()
    }
}

/// A volume as a logical unit of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lun {
    /// Its number: 0 to 255.
    pub number: u16,
    /// The volume's name now; empty if the volume is gone.
    pub volume: String,
    /// The volume.
    pub volume_id: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The size of its logical blocks in bytes: 512 or 4096.
    pub block_size: u32,
}

/// An initiator that may log in, with its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Access {
    /// The initiator's name, exactly.
    pub initiator: String,
    /// With what it shows who it is; nothing: its name is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<Credentials>,
}

/// Where a gateway serves all targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Portal {
    /// The name of the node that it runs on.
    pub node: String,
    /// `IP:PORT`, or `[IP]:PORT` for IPv6.
    pub address: String,
    /// The tag of its portal group (RFC 7143 section 4.2.7.1): one for each gateway. From 1.
    pub group: u16,
}

/// A target, with secrets: for gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Its name: `iqn.NAME`, `eui.DIGITS` or `naa.DIGITS`, in lower case.
    pub name: String,
    /// Its LUNs, by number.
    pub luns: Vec<Lun>,
    /// Who may log in, by name. Nobody else may.
    pub access: Vec<Access>,
    /// With what the target shows initiators who it is, if they ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual: Option<Credentials>,
    /// Where it is served.
    pub portals: Vec<Portal>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Target {
    /// What an initiator must show to log in; nothing if it may not at all.
    pub fn lets_in(&self, initiator: &str) -> Option<&Access> {
        let mut known = self.access.iter();
        known.find(|access| access.initiator.eq_ignore_ascii_case(initiator))
    }
}

/// All that a gateway must know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Configuration {
    /// Grows with each change. Only this `storaged` counts so: another one may have other numbers for the same.
    pub revision: u64,
    /// The targets, by name.
    pub targets: Vec<Target>,
    /// All portals, by node and group.
    pub portals: Vec<Portal>,
}

/// Waits for a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// The revision that the asker knows: answers when there is another one. Left out: answers at once, with what is
    /// newest in the coordination store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How long to wait at most, in milliseconds, up to 30000; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// An initiator that may log in, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessInfo {
    /// The initiator's name.
    pub initiator: String,
    /// The name that it must show a secret for (CHAP); nothing: its name is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap_user: Option<String>,
}

/// How the coordination store has the secrets of a target: the worst that is true of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretsState {
    /// Sealed with what nodes of the cluster have: whoever reads the store, or a backup of it, does not read them.
    Sealed,
    /// In the clear: nodes speak in plaintext, or a node cannot read what is sealed, or nothing of the target was changed
    /// since all can.
    Clear,
    /// Sealed with what this node has not, as when records were restored into another cluster. Whoever should show such a
    /// secret is not let in.
    Lost,
}

/// A target, without secrets: for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetInfo {
    /// Its name.
    pub name: String,
    /// Its LUNs, by number.
    pub luns: Vec<Lun>,
    /// Who may log in, by name. Nobody else may.
    pub access: Vec<AccessInfo>,
    /// The name with which the target shows initiators who it is; nothing if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_user: Option<String>,
    /// How its secrets are kept; nothing if it has none, or the node is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsState>,
    /// Where it is served.
    pub portals: Vec<Portal>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Targets, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetList {
    /// In ascending order of their names.
    pub targets: Vec<TargetInfo>,
}

/// Asks for a target. It has no LUN, and lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTarget {
    /// Its name. Capitals are made small, as initiators do.
    pub name: String,
}

/// Asks for a volume to be a LUN of a target. A volume is a LUN once at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddLun {
    /// The volume.
    pub volume: String,
    /// The LUN's number, 0 to 255; the lowest free one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// Whether writes are refused.
    #[serde(default)]
    pub read_only: bool,
    /// 512 or 4096; 512 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u32>,
}

/// Asks for an initiator to be let in, or for another secret of one that is let in already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAccess {
    /// The initiator's name, exactly. Capitals are made small.
    pub initiator: String,
    /// With what it must show who it is; nothing: its name is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<Credentials>,
}

/// A gateway says where it serves. It must say so again every 10 s, or is forgotten after 30 s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnnouncePortals {
    /// The tag of its portal group, from 1: no other gateway of the cluster may have it. The node's number if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u16>,
    /// `IP:PORT` or `[IP]:PORT`, as initiators reach them. None: the gateway serves no more.
    pub addresses: Vec<String>,
}

/// Portals, by node and group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortalList {
    /// All that gateways have said in the last 30 s.
    pub portals: Vec<Portal>,
}

/// An initiator's registration with a LUN (SPC-4 clause 5.9.7), through one port of it and of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The initiator's name.
    pub initiator: String,
    /// Its session's identifier: 12 hexadecimal digits, or empty if it is for all.
    pub isid: String,
    /// The target's name.
    pub target: String,
    /// The tag of the portal group.
    pub portal_group: u16,
    /// The reservation key.
    pub key: u64,
}

/// Who holds a LUN's persistent reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The initiator's name.
    pub initiator: String,
    /// Its session's identifier: 12 hexadecimal digits, or empty.
    pub isid: String,
    /// The target's name.
    pub target: String,
    /// The tag of the portal group.
    pub portal_group: u16,
    /// The reservation's type (SPC-4 clause 6.15.3.3): 1, 3, 5, 6, 7 or 8; 0 for the older kind.
    pub scope_type: u8,
}

/// All that is registered with a LUN. Also a request: then `revision` says what it was made from. Unknown fields are
/// refused in answers too: a gateway must not act on half of a reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservations {
    /// The change that made it so; 0 if nobody ever registered.
    pub revision: u64,
    /// The generation that SPC-4 counts (clause 5.9.10).
    pub generation: u32,
    /// Who is registered.
    pub registrations: Vec<Registration>,
    /// Who holds the reservation, if anybody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Whether it is to outlive a loss of power. It does in any case.
    pub aptpl: bool,
    /// Who has the unit for himself by the older command RESERVE (SPC-2 clause 7.21); its type is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Holder>,
    /// How often the unit was reset by a task management function: all portals take note.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub resets: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none_yet(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    //! Secrets are shown to nobody by accident, and what a request misspells is refused.
    use super::*;

    #[test]
    fn what_is_printed_for_debugging_hides_the_secret() {
        let access = AddAccess {
            initiator: "iqn.2026-11.org.example:host".to_owned(),
            chap: Some(Credentials {
                user: "host".to_owned(),
                secret: "very-secret-word".to_owned(),
            }),
        };
        let shown = format!("{access:?} {access:#?}");
        assert!(
            shown.contains("host") && !shown.contains("very-secret-word"),
            "{shown}"
        );
    }

    #[test]
    fn a_stranger_is_not_let_in_and_capitals_do_not_matter() {
        let access = Access {
            initiator: "iqn.2026-11.org.example:a".to_owned(),
            chap: None,
        };
        let target = Target {
            access: vec![access],
            ..Target::default()
        };
        assert!(target.lets_in("iqn.2026-11.org.example:A").is_some());
        assert!(target.lets_in("iqn.2026-11.org.example:ab").is_none());
        assert!(Target::default().lets_in("").is_none());
    }

    #[test]
    fn a_misspelt_field_of_a_request_is_refused() {
        let misspelt = r#"{"volume":"a","readonly":true}"#;
        assert!(serde_json::from_str::<AddLun>(misspelt).is_err());
        let short: AddLun = serde_json::from_str(r#"{"volume":"a"}"#).unwrap();
        assert_eq!(
            (short.number, short.read_only, short.block_size),
            (None, false, None)
        );
    }

    #[test]
    fn an_answer_of_a_newer_storaged_is_read() {
        let text = r#"{"revision":3,"targets":[],"portals":[],"later":true}"#;
        assert_eq!(serde_json::from_str::<Configuration>(text).unwrap().revision, 3);
    }
}
