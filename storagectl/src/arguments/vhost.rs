//! `storagectl vhost`.

use std::time::Duration;

use clap::Subcommand;

use crate::api::Place;

/// One attached volume, through the control socket of its vhost-blk (`vhost-blk --control`).
#[derive(Subcommand)]
pub(crate) enum VhostCommand {
    /// Shows what its guest asks for, how long that takes, and what waits.
    Stats {
        /// The control socket.
        control: Place,
    },
    /// Lets its guest's requests rest: takes none, and answers when none is under way.
    #[command(after_help = "Example:
  hold=$(storagectl --json vhost drain /run/storaged/vhost/db.control --limit 10s | jq .hold)
  take-a-picture-of-something-else &&
  storagectl vhost resume /run/storaged/vhost/db.control --hold $hold || echo it came too late

Snapshots of storaged need none of this: they are of one instant by themselves.")]
    Drain {
        /// The control socket.
        control: Place,
        /// How long the guest may wait: 500ms, 10s, 5m. Then its requests go on by themselves.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        limit: Duration,
    },
    /// Ends a rest. Fails if it has ended by itself before.
    Resume {
        /// The control socket.
        control: Place,
        /// Which; all if left out.
        #[arg(long, value_name = "NUMBER")]
        hold: Option<u64>,
    },
    /// Reads the volume's size anew and tells the guest. Growing is `storagectl volume grow`.
    Resize {
        /// The control socket.
        control: Place,
    },
}

/// A number with `ms`, `s` or `m`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let milliseconds = number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a time: write 500ms, 10s or 5m"))
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
        for wrong in [
            "10",
            "s",
            "",
            "1h",
            "-1s",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
