//! How much of a volume its users may ask for in a second, by the names that libvirt, QEMU and Cinder give to such limits.
//!
//! What is left out is not limited. Each limit holds for itself: a read takes from what reads have and from the total.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The highest number that a limit can be: more than any machine does, and few enough digits for every reader of JSON.
pub const LIMIT_MAX: u64 = 1 << 50;

/// The limits of a volume. None if all are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeLimits {
    /// Operations a second, reads and writes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_iops_sec: Option<u64>,
    /// Reads a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops_sec: Option<u64>,
    /// Writes a second, with discards and zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops_sec: Option<u64>,
    /// Bytes a second, read and written together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes_sec: Option<u64>,
    /// Bytes read a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_sec: Option<u64>,
    /// Bytes written a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_sec: Option<u64>,
    /// How many operations may begin at once after a rest: at least `total_iops_sec`. A tenth of that if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_iops_sec_max: Option<u64>,
    /// The same of reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops_sec_max: Option<u64>,
    /// The same of writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops_sec_max: Option<u64>,
    /// How many bytes may be asked for at once after a rest: at least `total_bytes_sec`. A tenth of that if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes_sec_max: Option<u64>,
    /// The same of bytes read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_sec_max: Option<u64>,
    /// The same of bytes written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_sec_max: Option<u64>,
    /// An operation of more bytes counts as several of so many. If left out, each counts as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_iops_sec: Option<u64>,
}

/// Why limits cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Zero, or too much.
    #[error("{name} is {value}: a limit is from 1 to {LIMIT_MAX}; leave it out for none")]
    OutOfRange {
        /// Which.
        name: &'static str,
        /// What it is.
        value: u64,
    },
    /// A burst without the limit that it is one of, or below that.
    #[error(
        "{name}_max is what may come at once where {name} is the limit: it needs that, and is at least as much"
    )]
    Burst {
        /// Of which limit.
        name: &'static str,
    },
}

impl VolumeLimits {
    /// The name of each limit, what it is, and its burst.
    pub fn rates(&self) -> [(&'static str, Option<u64>, Option<u64>); 6] {
        [
            ("total_iops_sec", self.total_iops_sec, self.total_iops_sec_max),
            ("read_iops_sec", self.read_iops_sec, self.read_iops_sec_max),
            ("write_iops_sec", self.write_iops_sec, self.write_iops_sec_max),
            ("total_bytes_sec", self.total_bytes_sec, self.total_bytes_sec_max),
            ("read_bytes_sec", self.read_bytes_sec, self.read_bytes_sec_max),
            ("write_bytes_sec", self.write_bytes_sec, self.write_bytes_sec_max),
        ]
    }

    /// Where a limit is kept that goes by this name, a burst's and `size_iops_sec` included; nothing if there is none.
    pub fn by_name(&mut self, name: &str) -> Option<&mut Option<u64>> {
        Some(match name {
            "total_iops_sec" => &mut self.total_iops_sec,
            "read_iops_sec" => &mut self.read_iops_sec,
            "write_iops_sec" => &mut self.write_iops_sec,
            "total_bytes_sec" => &mut self.total_bytes_sec,
            "read_bytes_sec" => &mut self.read_bytes_sec,
            "write_bytes_sec" => &mut self.write_bytes_sec,
            "total_iops_sec_max" => &mut self.total_iops_sec_max,
            "read_iops_sec_max" => &mut self.read_iops_sec_max,
            "write_iops_sec_max" => &mut self.write_iops_sec_max,
            "total_bytes_sec_max" => &mut self.total_bytes_sec_max,
            "read_bytes_sec_max" => &mut self.read_bytes_sec_max,
            "write_bytes_sec_max" => &mut self.write_bytes_sec_max,
            "size_iops_sec" => &mut self.size_iops_sec,
            _ => return None,
        })
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what cannot hold.
    pub fn check(&self) -> Result<(), LimitsError> {
        let sizes = [("size_iops_sec", self.size_iops_sec, None)];
        for (name, limit, burst) in self.rates().into_iter().chain(sizes) {
            for value in [limit, burst].into_iter().flatten() {
                if value == 0 || value > LIMIT_MAX {
                    return Err(LimitsError::OutOfRange { name, value });
                }
            }
            if burst.is_some_and(|burst| limit.is_none_or(|limit| burst < limit)) {
                return Err(LimitsError::Burst { name });
            }
        }
        Ok(())
    }
}

/// Reads the limits of an answer: those that a newer `storaged` knows besides are left out, as unknown fields of answers are.
pub(crate) fn of_answer<'de, D: Deserializer<'de>>(answer: D) -> Result<VolumeLimits, D::Error> {
    let told = BTreeMap::<String, Value>::deserialize(answer)?;
    let mut limits = VolumeLimits::default();
    for (name, value) in told {
        if let Some(limit) = limits.by_name(&name) {
            *limit = value.as_u64();
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    //! What can be a limit, and under which names.
    use super::*;

    #[test]
    fn every_name_is_that_of_its_field() {
        let mut limits = VolumeLimits::default();
        let names: Vec<String> = limits
            .rates()
            .iter()
            .flat_map(|(name, ..)| [(*name).to_owned(), format!("{name}_max")])
            .chain(["size_iops_sec".to_owned()])
            .collect();
        for (number, name) in (1..).zip(&names) {
            *limits.by_name(name).unwrap() = Some(number);
        }
        assert_eq!(limits.by_name("total_iops_sec_max_length"), None);
        let said = serde_json::to_value(limits).unwrap();
        for (number, name) in (1..).zip(&names) {
            assert_eq!(said[name], number, "{name}");
        }
        assert_eq!(said.as_object().unwrap().len(), names.len());
        assert_eq!(serde_json::from_value::<VolumeLimits>(said).unwrap(), limits);
    }

    #[test]
    fn what_is_unknown_is_refused_in_a_request_and_ignored_in_an_answer() {
        let newer = r#"{"total_iops_sec":5,"total_iops_min":3}"#;
        assert!(serde_json::from_str::<VolumeLimits>(newer).is_err());
        let limits = of_answer(&mut serde_json::Deserializer::from_str(newer)).unwrap();
        let expected = VolumeLimits {
            total_iops_sec: Some(5),
            ..VolumeLimits::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn zero_and_bursts_without_their_limit_are_refused_in_words() {
        let refused = |limits: VolumeLimits| limits.check().unwrap_err().to_string();
        let zero = VolumeLimits {
            read_iops_sec: Some(0),
            ..VolumeLimits::default()
        };
        assert!(refused(zero).contains("read_iops_sec is 0"), "{}", refused(zero));
        let alone = VolumeLimits {
            total_bytes_sec_max: Some(5),
            ..VolumeLimits::default()
        };
        assert!(
            refused(alone).contains("total_bytes_sec_max"),
            "{}",
            refused(alone)
        );
        let below = VolumeLimits {
            write_iops_sec: Some(10),
            write_iops_sec_max: Some(9),
            ..VolumeLimits::default()
        };
        assert!(refused(below).contains("at least as much"), "{}", refused(below));
        let much = VolumeLimits {
            size_iops_sec: Some(LIMIT_MAX + 1),
            ..VolumeLimits::default()
        };
        assert!(refused(much).contains("size_iops_sec"), "{}", refused(much));
        let good = VolumeLimits {
            write_iops_sec_max: Some(10),
            ..below
        };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(VolumeLimits::default().check(), Ok(()));
    }
}
