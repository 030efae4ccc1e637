//! The section `[rebalance]`: when data moves to other disks.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// Until the data of a disk that is away is put on other disks, by default, in seconds.
const DOWN_OUT_DEFAULT: u64 = 600;
/// Less than a restart takes would move all data about with each upgrade.
const DOWN_OUT_MIN: u64 = 10;
/// A week.
const DOWN_OUT_MAX: u64 = 7 * 24 * 3600;

/// When data moves to other disks, in the file's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RebalanceSettings {
    /// Seconds until the data of a disk that is away is put on others; 0 for never.
    pub down_out_s: Option<u64>,
    /// Whether data moves at all.
    pub enabled: Option<bool>,
}

/// When data moves to other disks, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// Until the data of a disk that is away is put on others; nothing for never.
    pub down_out: Option<Duration>,
    /// Whether data moves at all.
    pub enabled: bool,
}

impl RebalanceSettings {
    pub(super) fn check(self) -> Result<Rebalance, ConfigError> {
        let down_out = match self.down_out_s.unwrap_or(DOWN_OUT_DEFAULT) {
            0 => None,
            seconds @ DOWN_OUT_MIN..=DOWN_OUT_MAX => Some(Duration::from_secs(seconds)),
            seconds => {
                return Err(ConfigError::Value(format!(
                    "rebalance.down_out_s is from {DOWN_OUT_MIN} to {DOWN_OUT_MAX}, and 0 for never, not {seconds}"
                )));
            }
        };
        Ok(Rebalance {
            down_out,
            enabled: self.enabled.unwrap_or(true),
        })
    }
}

#[cfg(test)]
mod tests {
    //! Ten minutes by default, and nothing so short that a restart moves data.
    use super::*;

    fn checked(down_out_s: Option<u64>) -> Result<Option<Duration>, ConfigError> {
        let enabled = None;
        let settings = RebalanceSettings { down_out_s, enabled };
        settings.check().map(|rebalance| rebalance.down_out)
    }

    #[test]
    fn a_disk_is_given_ten_minutes_or_what_is_said_within_reason() {
        assert_eq!(checked(None).unwrap(), Some(Duration::from_mins(10)));
        assert_eq!(checked(Some(0)).unwrap(), None);
        assert_eq!(checked(Some(10)).unwrap(), Some(Duration::from_secs(10)));
        for wrong in [1, 9, DOWN_OUT_MAX + 1] {
            let error = checked(Some(wrong)).unwrap_err().to_string();
            assert!(error.contains("from 10 to"), "{error}");
        }
    }
}
