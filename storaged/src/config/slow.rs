//! The section `[slow_disks]`: what is done about disks that are much slower than their peers.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::slow::{FACTOR, Policy, WINDOWS_TO_EVICT};

/// Disks of one kind differ by less than two, and one that is dying is hundreds of times slower.
const FACTOR_DEFAULT: u32 = 50;
const FACTOR_MAX: u32 = 10_000;
/// A rotating disk that works well stays below.
const AT_LEAST_DEFAULT_MS: u32 = 20;
const AT_LEAST_MAX_MS: u32 = 10_000;
/// A checkpoint or a neighbour's burst is over by then.
const SECONDS_DEFAULT: u32 = 60;
const SECONDS_MAX: u32 = 3600;

/// The file's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlowDiskSettings {
    /// What is done.
    pub action: Option<Action>,
    /// How many times slower than its peers a disk must be.
    pub factor: Option<u32>,
    /// How long half of its operations must take, in milliseconds.
    pub at_least_ms: Option<u32>,
    /// For how long, in seconds.
    pub seconds: Option<u32>,
}

/// What is done about a slow disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// People are told.
    Report,
    /// And it leaves its groups, where it can be spared.
    Evict,
}

impl SlowDiskSettings {
    pub(super) fn check(self) -> Result<Policy, ConfigError> {
        let within = |value: Option<u32>, default, (least, most), name: &str| {
            let value = value.unwrap_or(default);
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            Err(ConfigError::Value(format!(
                "slow_disks.{name} is from {least} to {most}, not {value}"
            )))
        };
        let factor = within(self.factor, FACTOR_DEFAULT, (FACTOR, FACTOR_MAX), "factor")?;
        let at_least = within(
            self.at_least_ms,
            AT_LEAST_DEFAULT_MS,
            (1, AT_LEAST_MAX_MS),
            "at_least_ms",
        )?;
        // A window of a second at least.
        let seconds = within(
            self.seconds,
            SECONDS_DEFAULT,
            (WINDOWS_TO_EVICT, SECONDS_MAX),
            "seconds",
        )?;
        Ok(Policy {
            evict: self.action.unwrap_or(Action::Evict) == Action::Evict,
            factor,
            at_least: Duration::from_millis(at_least.into()),
            after: Duration::from_secs(seconds.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    //! Who says nothing gets what is safe.
    use super::*;

    #[test]
    fn a_disk_leaves_only_when_it_is_far_slower_for_long_and_never_where_that_is_not_wanted() {
        let policy = |text: &str| {
            let settings: SlowDiskSettings = toml::from_str(text).unwrap();
            settings.check().unwrap()
        };
        let usual = policy("");
        assert!(usual.evict && usual.factor == 50 && usual.after == Duration::from_mins(1));
        assert_eq!(usual.at_least, Duration::from_millis(20));
        assert!(!policy("action = 'report'").evict);
        assert_eq!(policy("seconds = 12").window(), Duration::from_secs(2));
    }
}
