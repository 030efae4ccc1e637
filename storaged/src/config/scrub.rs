//! The section `[scrub]`: when the disks are scrubbed, and how fast.

use std::time::Duration;

use admin_api::sizes::SizeInput;
use serde::Deserialize;

use super::{ConfigError, bytes};

/// What is read by a disk's scrubs, in bytes a second, by default: 1 TB in nine hours.
const SCRUB_RATE_DEFAULT: u64 = 32 << 20;
/// Less would not get round in a week.
const SCRUB_RATE_MIN: u64 = 1 << 20;
/// Between two comparisons of a disk's copies, by default, in hours.
const SCRUB_LIGHT_DEFAULT: u32 = 24;
/// Between two readings of all its blocks, by default, in hours.
const SCRUB_DEEP_DEFAULT: u32 = 7 * 24;
/// A year.
const SCRUB_HOURS_MAX: u32 = 366 * 24;

/// When the disks are scrubbed, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubSettings {
    /// How much of each disk is read, in bytes a second.
    pub rate: Option<SizeInput>,
    /// Hours between two comparisons of a disk's copies with others'; 0 for never.
    pub light_hours: Option<u32>,
    /// Hours between two readings of all blocks of a disk; 0 for never.
    pub deep_hours: Option<u32>,
}

/// Scrubs, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// How much of each disk is read, in bytes a second at most.
    pub rate: u64,
    /// Between two comparisons of a disk's copies with others'; nothing for never.
    pub light: Option<Duration>,
    /// Between two readings of all blocks of a disk; nothing for never.
    pub deep: Option<Duration>,
}

impl ScrubSettings {
    pub(super) fn check(self) -> Result<Scrub, ConfigError> {
        let rate = bytes(self.rate, SCRUB_RATE_DEFAULT, "scrub.rate")?;
        if rate < SCRUB_RATE_MIN {
            let message = format!("scrub.rate is at least 1M, not {rate} bytes a second");
            return Err(ConfigError::Value(message));
        }
        let every = |hours: Option<u32>, default: u32, name: &str| match hours.unwrap_or(default) {
            0 => Ok(None),
            hours if hours > SCRUB_HOURS_MAX => Err(ConfigError::Value(format!(
                "scrub.{name} is at most {SCRUB_HOURS_MAX}, and 0 for never, not {hours}"
            ))),
            hours => Ok(Some(Duration::from_hours(u64::from(hours)))),
        };
        Ok(Scrub {
            rate,
            light: every(self.light_hours, SCRUB_LIGHT_DEFAULT, "light_hours")?,
            deep: every(self.deep_hours, SCRUB_DEEP_DEFAULT, "deep_hours")?,
        })
    }
}

#[cfg(test)]
mod tests {
    //! Who says nothing gets scrubs.
    use super::super::Settings;
    use super::*;

    fn parsed(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn scrubs_go_on_unless_they_are_switched_off() {
        let scrub = |text| parsed(text).check().unwrap().scrub;
        let usual = scrub("");
        assert_eq!(
            (usual.rate, usual.deep),
            (32 << 20, Some(Duration::from_hours(168)))
        );
        let other = scrub("[scrub]\nrate = '64M'\nlight_hours = 0\ndeep_hours = 24\n");
        assert_eq!((other.rate, other.light), (64 << 20, None));
        assert_eq!(other.deep, Some(Duration::from_hours(24)));
    }
}
