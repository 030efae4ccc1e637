//! Tokens with which programs ask the admin API over the network, and what they know its servers by.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest name of a token, in bytes.
pub const NAME_LENGTH_MAX: usize = 64;

/// What the bearer of a token may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessRole {
    /// Look at everything that is no secret: for monitoring.
    Viewer,
    /// Make, change and delete volumes and snapshots: for Proxmox VE and OpenStack.
    Operator,
    /// Change disks, pools, nodes and iSCSI targets too. Tokens are made on a node only, by whoever may use its socket.
    Administrator,
}

/// Asks for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeAccessToken {
    /// What it is for: 1 to 64 printing ASCII characters.
    pub name: String,
    /// What its bearer may do.
    pub role: AccessRole,
    /// How long it is good, in milliseconds, from a second to ten years; a year if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ms: Option<u64>,
}

/// A token as it is shown, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewAccessToken {
    /// Its number, which is no secret: 16 hexadecimal digits.
    pub id: String,
    /// The token, a single word: what `Authorization: Bearer` is followed by.
    pub token: String,
    /// From when on it is worthless, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// A token, without what makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessToken {
    /// Its number: 16 hexadecimal digits.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What its bearer may do.
    pub role: AccessRole,
    /// The node that made it.
    pub node: u32,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// From when on it is worthless, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Whether that was before now.
    pub expired: bool,
}

/// Tokens, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessTokenList {
    /// In ascending order of their numbers.
    pub tokens: Vec<AccessToken>,
}

/// Who signs the certificates that the nodes' admin APIs show to the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorityCertificate {
    /// The certificate of the cluster's authority, as the text of a PEM file. It is no secret.
    pub certificate: String,
    /// Where the network asks this node's admin API: `https://HOST:PORT`.
    pub addresses: Vec<String>,
}
