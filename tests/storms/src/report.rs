//! What came of the storms: a table for people, JSON for programs.

use comfy_table::{Table, presets};
use serde::Serialize;

/// What came of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) scenario: &'static str,
    /// What happens in it.
    pub(crate) what: &'static str,
    /// Rounds that held.
    pub(crate) rounds: usize,
    /// Rounds that did not, and why.
    pub(crate) errors: Vec<String>,
    /// Writes that were acknowledged.
    pub(crate) writes: u64,
    /// Reads that were answered, and right.
    pub(crate) reads: u64,
    /// Writes that were refused for want of room.
    pub(crate) refused: u64,
    /// Of each round that held, the longest time that the probe waited for a write, in microseconds; ascending.
    pub(crate) pauses_us: Vec<u64>,
}

impl Line {
    /// The pause that so many percent of the rounds stayed within, in milliseconds.
    fn pause_ms(&self, percent: usize) -> String {
        let rank = (self.pauses_us.len() * percent).div_ceil(100).max(1) - 1;
        self.pauses_us
            .get(rank)
            .map_or_else(|| "-".to_owned(), |pause| (pause / 1000).to_string())
    }
}

/// As a table.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "scenario",
        "what happens",
        "rounds",
        "p50 ms",
        "p99 ms",
        "longest ms",
        "writes",
        "refused",
        "errors",
    ]);
    for line in lines {
        table.add_row([
            line.scenario.to_owned(),
            line.what.to_owned(),
            line.rounds.to_string(),
            line.pause_ms(50),
            line.pause_ms(99),
            line.pause_ms(100),
            line.writes.to_string(),
            line.refused.to_string(),
            line.errors.len().to_string(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    //! A percentile of few rounds is one that was measured.
    use super::*;

    fn line(pauses_us: Vec<u64>) -> Line {
        Line {
            scenario: "calm",
            what: "nothing",
            rounds: pauses_us.len(),
            errors: Vec::new(),
            writes: 0,
            reads: 0,
            refused: 0,
            pauses_us,
        }
    }

    #[test]
    fn percentiles_are_pauses_that_were_measured() {
        let line = line(vec![1_000, 2_000, 3_000, 90_000]);
        let told = [50, 99, 100].map(|percent| line.pause_ms(percent));
        assert_eq!(told, ["2", "90", "90"]);
        assert_eq!(self::line(Vec::new()).pause_ms(50), "-");
    }
}
