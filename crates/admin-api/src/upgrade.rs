//! The answer about upgrades: which programs run, what they speak, and which node may be restarted next.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::nodes::NodeState;

/// Versions of something that a program speaks or reads, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionRange {
    /// The oldest.
    pub lowest: u16,
    /// The newest.
    pub highest: u16,
}

/// A node's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeProgram {
    /// The node's number.
    pub node: u32,
    /// What it is called.
    pub name: String,
    /// How it is.
    pub state: NodeState,
    /// The version of its `storaged`; nothing if it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The versions of the messages to disks that it speaks; nothing if it is down, or too old to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<VersionRange>,
    /// The newest format of records that it reads; nothing if it is down, or too old to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u32>,
    /// Whether its program is older than the newest one that runs.
    pub outdated: bool,
    /// The pools to which writes wait while this node is away.
    pub waits: Vec<String>,
}

/// How far an upgrade is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeStatus {
    /// The newest version that runs on any node.
    pub newest: String,
    /// The format of records that the node that answers writes.
    pub records: u32,
    /// All nodes, by number.
    pub nodes: Vec<NodeProgram>,
    /// Whether all nodes run the newest version.
    pub complete: bool,
    /// Whether a node may be restarted now without anything waiting that need not.
    pub safe: bool,
    /// If not, why: a sentence for each thing that must be put right first.
    pub reasons: Vec<String>,
    /// The node to upgrade next; nothing if there is none, or none that is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
    /// A sentence: what to do now.
    pub advice: String,
}
