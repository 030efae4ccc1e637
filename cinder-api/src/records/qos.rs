//! Quality of service: limits that types of volumes have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::names::named;
use super::table::Record;

named! {
    /// Who keeps to the limits.
    Consumer {
        /// The hypervisor.
        FrontEnd = "front-end",
        /// The storage.
        BackEnd = "back-end",
        /// Both.
        Both = "both",
    }
}

impl Consumer {
    /// Whether hypervisors are told of the limits.
    pub fn is_for_front_end(self) -> bool {
        self != Self::BackEnd
    }

    /// Whether the storage keeps to the limits.
    pub fn is_for_back_end(self) -> bool {
        self != Self::FrontEnd
    }
}

/// Limits with a name. Which types have them, the types say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosSpecs {
    /// A UUID.
    pub id: String,
    /// Unique: see [`QosName`].
    pub name: String,
    /// Who keeps to them.
    pub consumer: Consumer,
    /// The limits: `total_iops_sec` and the like.
    #[serde(default)]
    pub specs: BTreeMap<String, String>,
    /// When they were made.
    pub created_at: Instant,
}

impl Record for QosSpecs {
    const KIND: &'static str = "qos";

    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

/// That limits have a name: no two can be made at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosName {
    /// See [`QosName::key`].
    pub id: String,
    /// The limits.
    pub qos_id: String,
}

impl QosName {
    /// The record of a name.
    pub fn new(name: &str, qos_id: &str) -> Self {
        Self {
            id: Self::key(name),
            qos_id: qos_id.to_owned(),
        }
    }

    /// The identity of a name's record.
    pub fn key(name: &str) -> String {
        super::names::key(name)
    }
}

impl Record for QosName {
    const KIND: &'static str = "qos-name";

    fn id(&self) -> &str {
        &self.id
    }
}
