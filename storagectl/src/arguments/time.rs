//! Times as people write them.

use std::time::Duration;

/// A number with `ms`, `s`, `m` or `h`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let milliseconds = number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a time: write 500ms, 10s, 5m or 1h"))
}

#[cfg(test)]
mod tests {
    //! A time without a unit is a mistake that would be a thousand times too long or too short.
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_time("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(parse_time("1h"), Ok(Duration::from_hours(1)));
        for wrong in [
            "10",
            "s",
            "",
            "1d",
            "-1s",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
