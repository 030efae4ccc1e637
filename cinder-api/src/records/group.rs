//! Groups of volumes, which can be snapshotted at one instant: their types, the groups, their snapshots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::names::named;
use super::table::{Dated, Record};

named! {
    /// What a group, or a group's snapshot, is at.
    GroupStatus {
        /// Being made.
        Creating = "creating",
        /// There.
        Available = "available",
        /// A server uses its volumes. Only a reset makes it so.
        InUse = "in-use",
        /// Volumes come or go.
        Updating = "updating",
        /// Being deleted.
        Deleting = "deleting",
        /// Was deleted. Only a reset makes it so.
        Deleted = "deleted",
        /// It could not be made.
        Error = "error",
        /// It could not be deleted.
        ErrorDeleting = "error_deleting",
    }
}

/// A kind of groups that an operator offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupType {
    /// A UUID.
    pub id: String,
    /// Unique.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// What the groups can do: `consistent_group_snapshot_enabled`.
    #[serde(default)]
    pub specs: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Instant,
    /// When it was changed last.
    #[serde(default)]
    pub updated_at: Option<Instant>,
}

impl Record for GroupType {
    const KIND: &'static str = "group-type";

    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

/// A group. Which volumes are in it, the volumes say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// A UUID.
    pub id: String,
    /// The project that it belongs to.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// For people; need not be unique.
    #[serde(default)]
    pub name: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// What it is at.
    pub status: GroupStatus,
    /// The zone that it was asked to be in.
    pub availability_zone: String,
    /// Its type.
    pub type_id: String,
    /// The types that its volumes may have.
    pub volume_types: Vec<String>,
    /// The snapshot that it was made from.
    #[serde(default)]
    pub group_snapshot_id: Option<String>,
    /// The group that it was made from.
    #[serde(default)]
    pub source_group_id: Option<String>,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its record changed last.
    #[serde(default)]
    pub updated_at: Option<Instant>,
}

impl Record for Group {
    const KIND: &'static str = "group";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }

    fn parent(&self) -> Option<&str> {
        Some(&self.type_id)
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

impl Dated for Group {
    fn set_updated(&mut self, at: Instant) {
        self.updated_at = Some(at);
    }
}

/// Snapshots of a group's volumes at one instant. Which they are, the snapshots say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSnapshot {
    /// A UUID.
    pub id: String,
    /// The project that it belongs to.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// For people; need not be unique.
    #[serde(default)]
    pub name: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// What it is at.
    pub status: GroupStatus,
    /// The group.
    pub group_id: String,
    /// The group's type.
    pub group_type_id: String,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its record changed last.
    #[serde(default)]
    pub updated_at: Option<Instant>,
}

impl Record for GroupSnapshot {
    const KIND: &'static str = "group-snapshot";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }

    fn parent(&self) -> Option<&str> {
        Some(&self.group_id)
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

impl Dated for GroupSnapshot {
    fn set_updated(&mut self, at: Instant) {
        self.updated_at = Some(at);
    }
}
