//! How much of a volume may be asked for in a second. The record keeps it; whoever has the volume open is told with the
//! next view, and keeps to it.

use std::num::NonZeroU64;

use admin_api::limits::VolumeLimits as Asked;
use coordination::keys::Key;
use coordination::records::encode;
use coordination::{ClusterMap, Compare, Transaction};
use protocol::VolumeId;
use protocol::limits::{DirectionLimits, Rate, VolumeLimits};

use super::{Decision, OperationError, Plan, Volumes, event, find};

impl Volumes {
    /// Gives a volume these limits in place of those that it had; none if all are left out. It may be open.
    pub async fn limit(&self, name: &str, asked: &Asked) -> Result<VolumeId, OperationError> {
        let limits = checked(asked)?;
        self.carry_out(|map| plan(map, name, limits)).await
    }
}

fn plan(map: &ClusterMap, name: &str, limits: VolumeLimits) -> Result<Decision<VolumeId>, OperationError> {
    let id = find(map, name)?;
    let volume = super::volume(map, id)?;
    if volume.record.limits == limits {
        return Ok(Decision::Unchanged(id));
    }
    let mut record = volume.record.clone();
    record.limits = limits;
    let key = Key::Volume(id).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), volume.modified))
        .put(key, encode(&record)?);
    let message = if limits.is_unlimited() {
        format!("volume {name} has no limits any more")
    } else {
        format!("volume {name} has other limits: {}", sentence(&told(&limits)))
    };
    Ok(Plan::decide(
        transaction,
        event("volume_limited", name, message),
        id,
    ))
}

/// The limits that were asked for, if they can hold.
pub(super) fn checked(asked: &Asked) -> Result<VolumeLimits, OperationError> {
    asked
        .check()
        .map_err(|error| OperationError::Invalid(error.to_string()))?;
    let rate = |limit: Option<u64>, burst: Option<u64>| {
        limit.and_then(NonZeroU64::new).map(|per_second| Rate {
            per_second,
            burst: burst.and_then(NonZeroU64::new),
        })
    };
    Ok(VolumeLimits {
        operations: DirectionLimits {
            total: rate(asked.total_iops_sec, asked.total_iops_sec_max),
            read: rate(asked.read_iops_sec, asked.read_iops_sec_max),
            write: rate(asked.write_iops_sec, asked.write_iops_sec_max),
        },
        bytes: DirectionLimits {
            total: rate(asked.total_bytes_sec, asked.total_bytes_sec_max),
            read: rate(asked.read_bytes_sec, asked.read_bytes_sec_max),
            write: rate(asked.write_bytes_sec, asked.write_bytes_sec_max),
        },
        operation_bytes: asked.size_iops_sec.and_then(NonZeroU64::new),
    })
}

/// A volume's limits in the words of the API.
pub(crate) fn told(limits: &VolumeLimits) -> Asked {
    let limit = |rate: Option<Rate>| rate.map(|rate| rate.per_second.get());
    let burst = |rate: Option<Rate>| rate.and_then(|rate| rate.burst).map(NonZeroU64::get);
    let VolumeLimits {
        operations, bytes, ..
    } = limits;
    Asked {
        total_iops_sec: limit(operations.total),
        read_iops_sec: limit(operations.read),
        write_iops_sec: limit(operations.write),
        total_bytes_sec: limit(bytes.total),
        read_bytes_sec: limit(bytes.read),
        write_bytes_sec: limit(bytes.write),
        total_iops_sec_max: burst(operations.total),
        read_iops_sec_max: burst(operations.read),
        write_iops_sec_max: burst(operations.write),
        total_bytes_sec_max: burst(bytes.total),
        read_bytes_sec_max: burst(bytes.read),
        write_bytes_sec_max: burst(bytes.write),
        size_iops_sec: limits.operation_bytes.map(NonZeroU64::get),
    }
}

/// The limits that there are, in one line of the event log.
fn sentence(limits: &Asked) -> String {
    let rates = limits.rates();
    let said = rates.iter().filter_map(|(name, limit, burst)| {
        let limit = (*limit)?;
        let burst = burst
            .map(|burst| format!(" (at once {burst})"))
            .unwrap_or_default();
        Some(format!("{name} {limit}{burst}"))
    });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    //! What was asked for is what is told.
    use super::*;

    #[test]
    fn limits_are_told_as_they_were_asked_for() {
        let mut asked = Asked::default();
        let names = asked.rates().map(|(name, ..)| name);
        for (number, name) in (10..).zip(names) {
            *asked.by_name(name).unwrap() = Some(number);
            *asked.by_name(&format!("{name}_max")).unwrap() = Some(number * 2);
        }
        asked.size_iops_sec = Some(4096);
        let limits = checked(&asked).unwrap();
        assert_eq!(told(&limits), asked);
        assert!(sentence(&asked).starts_with("total_iops_sec 10 (at once 20), read_iops_sec 11"));
        assert_eq!(told(&checked(&Asked::default()).unwrap()), Asked::default());
    }
}
