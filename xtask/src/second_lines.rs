//! Mutants that no simulated world notices in a bounded run: each names a unit test of `replication`,
//! which must pass without the mutant and fail with it.
//!
//! Knows how to run those tests; which mutants there are, the simulator's program `mutants` says.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::run_and_read;
use crate::tally::Tally;
use crate::unit_tests::{self, Executable};

/// Names the mutant to a test: `replication`'s `mutation` module reads it.
const VARIABLE: &str = "STORAGED_MUTANT";

/// Tries each mutant that `program`, told to list them, names.
pub(crate) fn run(program: &mut Command) -> Result<Tally> {
    let (output, good) = run_and_read(program)?;
    ensure!(good, "the program that lists the mutants failed");
    let tests = unit_tests::of_library("replication", "crates/replication")?;
    let mut tally = Tally::default();
    for (mutant, test) in pairs(&output) {
        let without = outcome(&tests, test, None)?;
        let with = outcome(&tests, test, Some(mutant))?;
        let caught = is_caught(without, with);
        let word = if caught { "caught" } else { "MISSED" };
        println!("{word}  {mutant} by the test {test}");
        tally.record(caught);
    }
    Ok(tally)
}

/// The lines `MUTANT TEST` of a list.
fn pairs(output: &str) -> impl Iterator<Item = (&str, &str)> {
    output.lines().filter_map(|line| line.split_once(' '))
}

/// Whether exactly this test tells the two apart: a name that fits no test runs none, and catches nothing.
fn is_caught(without: Tally, with: Tally) -> bool {
    (without.passed, without.failed) == (1, 0) && (with.passed, with.failed) == (0, 1)
}

/// Runs one test, with a mutant or without.
fn outcome(tests: &Executable, test: &str, mutant: Option<&str>) -> Result<Tally> {
    let mut command = tests.command();
    command.args(["--quiet", "--exact", test]).env_remove(VARIABLE);
    if let Some(mutant) = mutant {
        command.env(VARIABLE, mutant);
    }
    // Read, not shown: that a test fails is what is wanted.
    let output = command.output().context("start a test")?;
    Ok(Tally::of_cargo_test(&String::from_utf8_lossy(&output.stdout)))
}

#[cfg(test)]
mod tests {
    //! A test that does not exist, or fails anyway, catches nothing.
    use super::*;

    fn tally(passed: u64, failed: u64) -> Tally {
        Tally {
            passed,
            failed,
            skipped: 0,
        }
    }

    #[test]
    fn only_a_test_that_tells_the_two_apart_catches() {
        assert!(is_caught(tally(1, 0), tally(0, 1)));
        assert!(!is_caught(tally(1, 0), tally(1, 0)), "it fails to notice");
        assert!(!is_caught(tally(0, 1), tally(0, 1)), "it fails anyway");
        assert!(!is_caught(tally(0, 0), tally(0, 0)), "there is no such test");
    }

    #[test]
    fn a_list_is_read_line_by_line() {
        let list = "One a::b\nTwo c\n";
        assert_eq!(pairs(list).collect::<Vec<_>>(), [("One", "a::b"), ("Two", "c")]);
    }
}
