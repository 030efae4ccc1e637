//! Answers about nodes: each is one `storaged` with its disks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for another state of a node. What is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeNode {
    /// Whether its disks are to be emptied: their data goes to other disks, and they take none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its `storaged` renews its lease.
    Up,
    /// It does not.
    Down,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its number in the cluster; never given to another node.
    pub id: u32,
    /// What it is called: its host's name, unless its configuration says otherwise.
    pub name: String,
    /// The failure zone that it is in; may be empty.
    pub zone: String,
    /// Where other nodes reach it: `tcp:host:port`. None if it is not to be reached.
    pub addresses: Vec<String>,
    /// How it is.
    pub state: NodeState,
    /// Since when it is up, in milliseconds since 1970; nothing if it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// The version of its `storaged`; nothing if it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its disks, by number.
    pub disks: Vec<u32>,
    /// Whether all its disks are being emptied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// How many placement groups lie on its disks.
    #[serde(default)]
    pub groups: u32,
    /// Whether it is the node that answers.
    pub answers: bool,
}

/// Nodes, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// In ascending order of their numbers.
    pub nodes: Vec<Node>,
}
