//! The section `[near_full]`: what is done about disks that are nearly full.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::near_full::Limits;

/// What is left then is more than what is written while data moves away.
const PERCENT_DEFAULT: u8 = 85;
const PERCENT_MIN: u8 = 20;
const PERCENT_MAX: u8 = 99;
/// Each step moves data, and the next one is to see what became of it.
const SECONDS_DEFAULT: u32 = 600;
const SECONDS_MIN: u32 = 5;
/// A day.
const SECONDS_MAX: u32 = 24 * 3600;

/// The file's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NearFullSettings {
    /// How much of a disk's room is taken when it is nearly full, in percent; 0: no disk ever is.
    pub percent: Option<u8>,
    /// Seconds between two changes of a disk's share.
    pub every_s: Option<u32>,
}

impl NearFullSettings {
    /// Nothing: shares stay as they are.
    pub(super) fn check(self) -> Result<Option<Limits>, ConfigError> {
        let percent = match self.percent.unwrap_or(PERCENT_DEFAULT) {
            0 => return Ok(None),
            percent @ PERCENT_MIN..=PERCENT_MAX => percent,
            percent => {
                return Err(ConfigError::Value(format!(
                    "near_full.percent is from {PERCENT_MIN} to {PERCENT_MAX}, and 0 for never, not {percent}"
                )));
            }
        };
        let seconds = self.every_s.unwrap_or(SECONDS_DEFAULT);
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            return Err(ConfigError::Value(format!(
                "near_full.every_s is from {SECONDS_MIN} to {SECONDS_MAX}, not {seconds}"
            )));
        }
        Ok(Some(Limits {
            percent: percent.into(),
            every: Duration::from_secs(seconds.into()),
        }))
    }
}

#[cfg(test)]
mod tests {
    //! Who says nothing is looked after; who wants nothing of it says so.
    use super::*;

    #[test]
    fn disks_are_nearly_full_at_some_percent_or_never() {
        let checked = |text: &str| {
            let settings: NearFullSettings = toml::from_str(text).unwrap();
            settings.check()
        };
        let usual = checked("").unwrap().unwrap();
        assert_eq!((usual.percent, usual.every), (85, Duration::from_mins(10)));
        assert_eq!(checked("percent = 0").unwrap(), None);
        for (text, says) in [
            ("percent = 19", "from 20 to 99"),
            ("every_s = 1", "from 5 to 86400"),
        ] {
            let error = checked(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
