//! Switches of services. Which services there are follows from the storage and from who runs; only what an operator said
//! of one is a record.

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::table::Record;

/// What an operator said of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `binary:host`.
    pub id: String,
    /// Whether nothing new is to go there.
    pub disabled: bool,
    /// Why.
    #[serde(default)]
    pub disabled_reason: Option<String>,
    /// Whether it is to change nothing.
    #[serde(default)]
    pub frozen: bool,
    /// When it was said.
    pub updated_at: Instant,
}

impl Service {
    /// The identity of a service's record.
    pub fn key(binary: &str, host: &str) -> String {
        format!("{binary}:{host}")
    }
}

impl Record for Service {
    const KIND: &'static str = "service";

    fn id(&self) -> &str {
        &self.id
    }
}
