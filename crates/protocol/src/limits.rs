//! How much of a volume its users may ask for in a second (`docs/decisions/0072-volume-limits.md`): what the volume's
//! record keeps and what whoever owns the volume keeps to.
//!
//! Knows neither who asks nor when: how a rate is kept is the front end's business.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// So much a second, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How much a second, over any longer time.
    pub per_second: NonZeroU64,
    /// How much at once after a rest; unless said, a tenth of what a second may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU64>,
}

/// The limits of one quantity. Each holds for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionLimits {
    /// Of reads and writes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Rate>,
    /// Of reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Rate>,
    /// Of writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Rate>,
}

/// The limits of a volume. None at all unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeLimits {
    /// Of operations.
    #[serde(default, skip_serializing_if = "DirectionLimits::is_empty")]
    pub operations: DirectionLimits,
    /// Of bytes.
    #[serde(default, skip_serializing_if = "DirectionLimits::is_empty")]
    pub bytes: DirectionLimits,
    /// A longer operation counts as several of this length, in bytes. Unless said, each counts as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_bytes: Option<NonZeroU64>,
}

impl DirectionLimits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl VolumeLimits {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        self.operations.is_empty() && self.bytes.is_empty()
    }

    /// Whether nothing is said, not even how operations would be counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
