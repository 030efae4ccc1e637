//! How many checks passed, failed and were skipped: the last line of every command that tests.

use std::fmt;

/// A count of checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Counts one check.
    pub(crate) fn record(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Counts all of another.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Whether nothing failed, and something was checked at all.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Reads the last line of a program's output that is a tally.
    pub(crate) fn find(output: &str) -> Option<Self> {
        output.lines().rev().find_map(Self::read)
    }

    /// `N passed, N failed` with or without `, N skipped`, at the end of a line.
    fn read(line: &str) -> Option<Self> {
        let mut tally = Self::default();
        let (mut has_passed, mut has_failed) = (false, false);
        let tail = line.rsplit_once(['.', ':']).map_or(line, |(_, tail)| tail);
        for part in tail.split([',', ';']) {
            let (count, what) = part.trim().split_once(' ')?;
            let count = count.parse().ok()?;
            match what {
                "passed" => (tally.passed, has_passed) = (count, true),
                "failed" => (tally.failed, has_failed) = (count, true),
                "skipped" | "ignored" => tally.skipped = count,
                _ => return None,
            }
        }
        (has_passed && has_failed).then_some(tally)
    }

    /// The sum of all `test result:` lines that `cargo test` printed.
    pub(crate) fn of_cargo_test(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines().filter(|line| line.starts_with("test result:")) {
            let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            for pair in words.windows(2) {
                let Ok(count) = pair[0].parse::<u64>() else {
                    continue;
                };
                match pair[1] {
                    "passed" => sum.passed += count,
                    "failed" => sum.failed += count,
                    "ignored" => sum.skipped += count,
                    _ => {}
                }
            }
        }
        sum
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    //! Counting must not make failures disappear.
    use super::*;

    #[test]
    fn a_tally_reads_back_from_the_last_line_that_has_one() {
        let tally = Tally {
            passed: 12,
            failed: 3,
            skipped: 4,
        };
        assert_eq!(
            Tally::find(&format!(
                "1 passed, 0 failed, 0 skipped\nnoise\n{tally}\nmore noise"
            )),
            Some(tally)
        );
        assert_eq!(
            Tally::find("crash: 5 passed, 1 failed"),
            Some(Tally {
                passed: 5,
                failed: 1,
                skipped: 0
            })
        );
        assert_eq!(Tally::find("all 5 tests passed"), None);
        assert_eq!(
            Tally::find("5 passed"),
            None,
            "a line that keeps quiet about failures is no tally"
        );
    }

    #[test]
    fn the_results_of_all_test_binaries_are_summed() {
        let line = |result, passed, failed| {
            format!(
                "test result: {result}. {passed} passed; {failed} failed; 1 ignored; 0 measured; 2 filtered out\n"
            )
        };
        let output = format!("{}noise\n{}", line("ok", 5, 0), line("FAILED", 1, 2));
        assert_eq!(
            Tally::of_cargo_test(&output),
            Tally {
                passed: 6,
                failed: 2,
                skipped: 2
            }
        );
    }

    #[test]
    fn nothing_checked_is_not_good() {
        assert!(!Tally::default().is_good());
        assert!(
            !Tally {
                passed: 5,
                failed: 1,
                skipped: 0
            }
            .is_good()
        );
        assert!(
            Tally {
                passed: 1,
                failed: 0,
                skipped: 9
            }
            .is_good()
        );
    }
}
