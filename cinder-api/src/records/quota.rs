//! What projects may have, and what they have.
//!
//! What a project has is a record of its own, changed in the same transaction as what is counted: so it is exact at any
//! moment, and two requests at once cannot both take the last place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::Record;

/// The identity of the [`Limits`] of all projects that have none of their own. No project can be called so: projects'
/// identities are hexadecimal.
pub const DEFAULT_CLASS: &str = "default";

/// Limits that an operator has set. What is not named has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The project, or [`DEFAULT_CLASS`].
    pub project_id: String,
    /// By resource; -1 is no limit. Resources of a type are called by its identity: `volumes_<id>`.
    #[serde(default)]
    pub limits: BTreeMap<String, i64>,
}

impl Record for Limits {
    const KIND: &'static str = "limits";

    fn id(&self) -> &str {
        &self.project_id
    }
}

/// What a project has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The project.
    pub project_id: String,
    /// By resource, as in [`Limits`]; what is not named is 0.
    #[serde(default)]
    pub used: BTreeMap<String, i64>,
}

impl Record for Usage {
    const KIND: &'static str = "usage";

    fn id(&self) -> &str {
        &self.project_id
    }
}
