//! Moments, as records keep them and as the API writes them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// A moment: microseconds since 1970, UTC. Written as `2026-11-28T05:13:20.123456`, with no letter for the zone, as
/// Cinder writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub i64);

const MICROSECONDS: i64 = 1_000_000;

impl Instant {
    /// The clock's time.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Later by so many seconds.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(MICROSECONDS)))
    }

    /// Reads what filters and Keystone write: `2026-11-28T05:13:20[.123456][Z]`, also with a blank for the `T`, also the
    /// day alone. Nothing if it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text
            .strip_suffix('Z')
            .or_else(|| text.strip_suffix("+00:00"))
            .unwrap_or(text);
        let (day, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
        let mut parts = day.splitn(3, '-');
        let year = parts.next()?.parse().ok()?;
        let month: u8 = parts.next()?.parse().ok()?;
        let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, parts.next()?.parse().ok()?);
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut parts = whole.splitn(3, ':');
        let hour = parts.next()?.parse().ok()?;
        let minute = parts.next()?.parse().ok()?;
        let second = parts.next().unwrap_or("0").parse().ok()?;
        let micro = microseconds(fraction)?;
        let time = Time::from_hms_micro(hour, minute, second, micro).ok()?;
        let moment = PrimitiveDateTime::new(date.ok()?, time).assume_utc();
        let micros = moment.unix_timestamp_nanos() / 1000;
        i64::try_from(micros).ok().map(Self)
    }
}

fn microseconds(fraction: &str) -> Option<u32> {
    if fraction.is_empty() {
        return Some(0);
    }
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
    six.parse().ok()
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}",
            moment.year(),
            u8::from(moment.month()),
            moment.day(),
            moment.hour(),
            moment.minute(),
            moment.second(),
            moment.microsecond()
        )
    }
}

#[cfg(test)]
mod tests {
    //! What is written is read back; what is no time is none.
    use super::*;

    #[test]
    fn a_moment_is_written_without_a_zone_and_read_back() {
        let moment = Instant(1_795_842_800_123_456);
        assert_eq!(moment.to_string(), "2026-11-28T05:13:20.123456");
        assert_eq!(Instant::parse("2026-11-28T05:13:20.123456"), Some(moment));
        assert_eq!(Instant::parse("2026-11-28 05:13:20.123456Z"), Some(moment));
        assert_eq!(
            Instant::parse("2026-11-28T05:13:20"),
            Some(Instant(1_795_842_800_000_000))
        );
        assert_eq!(
            Instant::parse("2026-11-28").unwrap().to_string(),
            "2026-11-28T00:00:00.000000"
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-11-28T25:00:00",
            "2026-11-28T05:13:20.x",
        ] {
            assert_eq!(Instant::parse(text), None, "{text}");
        }
    }
}
