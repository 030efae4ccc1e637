//! The offer of a volume to another project.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::table::Record;

/// A transfer. `Debug` shows nothing of its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// A UUID.
    pub id: String,
    /// The volume.
    pub volume_id: String,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// SHA-256 of salt and key, in hexadecimal: who has the key may have the volume.
    pub key_hash: String,
    /// Makes equal keys differ.
    pub salt: String,
    /// The project that gives.
    pub source_project_id: String,
    /// The project that has taken.
    #[serde(default)]
    pub destination_project_id: Option<String>,
    /// Whether it was taken.
    #[serde(default)]
    pub accepted: bool,
    /// Whether the volume's snapshots stay behind.
    #[serde(default)]
    pub no_snapshots: bool,
    /// When it was offered.
    pub created_at: Instant,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Transfer");
        shown
            .field("id", &self.id)
            .field("volume_id", &self.volume_id)
            .finish_non_exhaustive()
    }
}

impl Record for Transfer {
    const KIND: &'static str = "transfer";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.source_project_id)
    }

    fn parent(&self) -> Option<&str> {
        Some(&self.volume_id)
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}
