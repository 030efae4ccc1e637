//! Times as people read them: in UTC, so that two people who compare them mean the same instant.

use std::time::Duration;

/// `2026-11-22 18:04:05`, from milliseconds since 1970.
pub(crate) fn format_time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `3 d 4 h`, `5 min 6 s`: a span in its two largest units.
pub(crate) fn format_span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (size, name) in units {
        if left >= size {
            parts.push(format!("{} {name}", left / size));
            left %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() {
        "0 s".into()
    } else {
        parts.join(" ")
    }
}

/// Year, month and day of the day with this number, counted from 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    // Whole cycles of 400 years first, so that the loop below is short for any input.
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if left < length {
            break;
        }
        left -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

/// A time with its unit: whole microseconds, milliseconds or seconds with a digit.
pub(crate) fn format_microseconds(microseconds: f64) -> String {
    match Duration::try_from_secs_f64(microseconds / 1e6) {
        Ok(time) if time < Duration::from_millis(1) => format!("{microseconds:.0} us"),
        Ok(time) if time < Duration::from_secs(1) => format!("{:.1} ms", microseconds / 1e3),
        _ => format!("{:.1} s", microseconds / 1e6),
    }
}

#[cfg(test)]
mod tests {
    //! Dates around leap years, where they go wrong.
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_164_800, "2024-02-29 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (16_725_225_600, "2500-01-01 00:00:00"),
        ] {
            assert_eq!(format_time(seconds * 1000), text);
        }
        assert!(format_time(u64::MAX).len() > 10);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        assert_eq!(format_span(0), "0 s");
        assert_eq!(format_span(61), "1 min 1 s");
        assert_eq!(format_span(90_061), "1 d 1 h");
    }
}
