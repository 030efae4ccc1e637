//! What a user should know of something that went wrong after his request was answered.

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::table::Record;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// A UUID.
    pub id: String,
    /// Whose it is.
    pub project_id: String,
    /// What happened, for programs: `VOLUME_VOLUME_001_003`.
    pub event_id: String,
    /// What happened, for people.
    pub user_message: String,
    /// `ERROR`.
    pub message_level: String,
    /// What it is about: `VOLUME`.
    pub resource_type: String,
    /// Which one.
    pub resource_uuid: String,
    /// The request that it follows from.
    pub request_id: String,
    /// When it happened.
    pub created_at: Instant,
    /// It is kept at least until then.
    pub expires_at: Instant,
}

impl Record for Message {
    const KIND: &'static str = "message";

    fn id(&self) -> &str {
        &self.id
    }

    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}
