//! How much data a disk is to take: weights, and what they are when nobody says.

use std::path::Path;

use admin_api::disks::WEIGHT_MAX;

use crate::volumes::OperationError;

/// A weight is the capacity in these, unless told otherwise.
const WEIGHT_UNIT: u64 = 1 << 30;

/// Refuses a weight that is none.
pub(super) fn check_weight(weight: Option<u32>) -> Result<(), OperationError> {
    match weight {
        Some(weight) if weight > WEIGHT_MAX => Err(OperationError::Invalid(format!(
            "a weight is from 0 to {WEIGHT_MAX}, not {weight}"
        ))),
        _ => Ok(()),
    }
}

/// What a disk could hold, in bytes: what it is given, or what its file system has.
pub fn capacity_of(path: &Path, limit: Option<u64>) -> Result<u64, OperationError> {
    let system = rustix::fs::statvfs(path)
        .map_err(|error| OperationError::Invalid(format!("cannot look at {}: {error}", path.display())))?;
    let has = system.f_blocks.saturating_mul(system.f_frsize);
    Ok(limit.unwrap_or(u64::MAX).min(has))
}

/// The weight of a disk of which nobody says one.
pub(super) fn weight_by_capacity(path: &Path, limit: Option<u64>) -> Result<u32, OperationError> {
    let units = capacity_of(path, limit)? / WEIGHT_UNIT;
    Ok(u32::try_from(units).unwrap_or(WEIGHT_MAX).clamp(1, WEIGHT_MAX))
}
