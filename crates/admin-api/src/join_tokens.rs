//! Tokens with which machines join the cluster.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeJoinToken {
    /// How long it is good, in milliseconds, from a second to a week; an hour if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ms: Option<u64>,
}

/// A token as it is shown, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewJoinToken {
    /// Its number, which is no secret: 16 hexadecimal digits.
    pub id: String,
    /// The token, a single word. Whoever has it gets the cluster's authority, once, until it expires.
    pub token: String,
    /// Where it leads: `host:port`.
    pub addresses: Vec<String>,
    /// From when on it is worthless, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// How a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JoinTokenState {
    /// A machine may join with it.
    Good,
    /// A machine has joined with it.
    Used,
    /// Its time is over.
    Expired,
}

/// A token, without what makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    /// Its number: 16 hexadecimal digits.
    pub id: String,
    /// The node that made it.
    pub node: u32,
    /// From when on it is worthless, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How it is.
    pub state: JoinTokenState,
    /// When a machine joined with it, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_ms: Option<u64>,
    /// What that machine called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<String>,
    /// From which address it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_from: Option<String>,
}

/// Tokens, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenList {
    /// In ascending order of their numbers. Used and expired ones are forgotten an hour after their end.
    pub tokens: Vec<JoinToken>,
}
