//! That a server uses a volume, or is about to.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::instant::Instant;
use super::names::named;
use super::table::Record;
use super::volume::AttachStatus;

named! {
    /// What a server may do with a volume.
    AttachMode {
        /// Read and write.
        ReadWrite = "rw",
        /// Read only.
        ReadOnly = "ro",
    }
}

/// What a host needs to reach a volume. It has secrets in it, which `Debug` does not show.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Connection(pub Map<String, Value>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection")
            .field(&self.0.get("driver_volume_type"))
            .finish_non_exhaustive()
    }
}

/// An attachment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// A UUID.
    pub id: String,
    /// The project of its volume.
    pub project_id: String,
    /// The volume.
    pub volume_id: String,
    /// The server that uses it; nothing if it is a host's.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// The host that it is attached on.
    #[serde(default)]
    pub host: Option<String>,
    /// What it is called in the server: `/dev/vdb`.
    #[serde(default)]
    pub mount_point: Option<String>,
    /// Whether it is attached.
    pub status: AttachStatus,
    /// What the server may do; nothing until it is known.
    #[serde(default)]
    pub mode: Option<AttachMode>,
    /// What the host said of itself when it asked for the connection.
    #[serde(default)]
    pub connector: Option<Map<String, Value>>,
    /// How the host reaches the volume; nothing while it is only reserved. `driver_volume_type` beside the rest.
    #[serde(default)]
    pub connection: Option<Connection>,
    /// When it was asked for.
    pub created_at: Instant,
    /// When it was attached.
    #[serde(default)]
    pub attached_at: Option<Instant>,
}

impl Attachment {
    /// The kind of the connection that it has.
    pub fn kind(&self) -> Option<&str> {
        let connection = self.connection.as_ref()?;
        connection.0.get("driver_volume_type")?.as_str()
    }
}

impl Record for Attachment {
    const KIND: &'static str = "attachment";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }

    fn parent(&self) -> Option<&str> {
        Some(&self.volume_id)
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}
