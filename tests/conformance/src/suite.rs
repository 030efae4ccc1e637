//! Runs checks one after another, says how each went, and counts.

use std::fmt;
use std::time::Instant;

use crate::tool;

/// What a check found.
pub type Finding = anyhow::Result<()>;

/// One check against a stage of type `S`.
pub struct Check<S> {
    /// A sentence: what holds if it passes.
    pub name: &'static str,
    /// The programs that it runs.
    pub tools: &'static [&'static str],
    /// Looks.
    pub run: fn(&mut S) -> Finding,
}

/// Where a check takes place.
pub trait Stage {
    /// Ends it. A server that does not leave well fails the check.
    fn close(self) -> Finding;
}

/// Which checks to run.
pub struct Selection {
    /// Part of the names of those to run; empty for all.
    pub only: String,
}

/// How many checks passed, failed, and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What they say held.
    pub passed: u32,
    /// It did not, or could not be found out.
    pub failed: u32,
    /// Their programs are not installed.
    pub skipped: u32,
}

impl Tally {
    /// Whether nothing failed, and something was checked at all.
    pub fn is_good(self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Reads a count that was printed.
    pub fn read(line: &str) -> Option<Self> {
        let mut numbers = line.split(", ").map(|part| part.split_once(' ')?.0.parse().ok());
        Some(Self {
            passed: numbers.next()??,
            failed: numbers.next()??,
            skipped: numbers.next()??,
        })
    }

    /// Counts a failure outside of any check.
    pub fn fail(&mut self, what: &str, error: &anyhow::Error) {
        println!("{what} ... FAILED\n    {error:#}");
        self.failed += 1;
    }

    /// Runs those of `checks` that are selected, each on a stage of its own.
    pub fn run<S: Stage>(
        &mut self,
        title: &str,
        checks: &[Check<S>],
        selection: &Selection,
        stage: impl Fn() -> anyhow::Result<S>,
    ) {
        for check in checks.iter().filter(|check| check.name.contains(&selection.only)) {
            let name = check.name;
            if let Some(missing) = check.tools.iter().find(|tool| !tool::is_installed(tool)) {
                println!("{title}: {name} ... skipped: {missing} is not installed");
                self.skipped += 1;
                continue;
            }
            let start = Instant::now();
            let found = stage().and_then(|mut stage| {
                (check.run)(&mut stage)?;
                stage.close()
            });
            let took = start.elapsed().as_secs_f32();
            match found {
                Ok(()) => {
                    println!("{title}: {name} ... ok ({took:.1} s)");
                    self.passed += 1;
                }
                Err(error) => {
                    println!("{title}: {name} ... FAILED ({took:.1} s)\n    {error:#}");
                    self.failed += 1;
                }
            }
        }
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
    //! A count that another process printed is read as it was.
    use super::*;

    #[test]
    fn a_printed_count_reads_back() {
        let tally = Tally {
            passed: 5,
            failed: 1,
            skipped: 20,
        };
        assert_eq!(Tally::read(&tally.to_string()), Some(tally));
        assert_eq!(Tally::read("thread panicked"), None);
    }
}
