//! libiscsi's own conformance suite, `iscsi-test-cu`, over two paths: nothing fails, and exactly the known tests are skipped.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};

use crate::iscsi::{LONG_BLOCKS, Portal, SHORT_BLOCKS};
use crate::suite::{Check, Finding};
use crate::tool::bounded_by;

pub(super) const SHORT: &[Check<Portal>] = &[Check {
    name: "libiscsi's suite passes on a unit with blocks of 512 bytes",
    tools: &["iscsi-test-cu"],
    run: short_blocks,
}];

pub(super) const LONG: &[Check<Portal>] = &[Check {
    name: "libiscsi's suite passes on a unit with blocks of 4096 bytes",
    tools: &["iscsi-test-cu"],
    run: long_blocks,
}];

/// Tests that do not apply to a thin disk that is always writable, by suite (docs/protocol/iscsi.md says why of each).
const SKIPPED: &[(&str, usize)] = &[
    ("PreventAllow", 8),
    ("ReadDefectData10", 1),
    ("ReadDefectData12", 1),
    ("ReadOnly", 1),
    ("Sanitize", 11),
    ("StartStopUnit", 1),
    ("WriteAtomic16", 6),
    ("WriteSame10", 1),
    ("WriteSame16", 1),
];

/// Those of them and of others that need several logical blocks in a physical one.
const SKIPPED_WITH_LONG_BLOCKS: &[(&str, usize)] =
    &[("CompareAndWrite", 1), ("WriteSame10", 2), ("WriteSame16", 2)];

/// Asks for the run that begins at one block and awaits that it begins at another, if a physical block has several
/// logical ones.
const WRONG_WITH_SHORT_BLOCKS: &str = "GetLBAStatus.UnmapSingle";

fn short_blocks(stage: &mut Portal) -> Finding {
    run(stage, SHORT_BLOCKS, &[WRONG_WITH_SHORT_BLOCKS], &[])
}

fn long_blocks(stage: &mut Portal) -> Finding {
    run(stage, LONG_BLOCKS, &[], SKIPPED_WITH_LONG_BLOCKS)
}

/// The suite writes whole units again and again, to a cluster all copies of them.
const SUITE_SECONDS_MAX: u32 = 400;

/// What became of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    Skipped,
    Failed,
}

fn run(stage: &mut Portal, unit: u32, wrong: &[&str], more: &'static [(&str, usize)]) -> Finding {
    // With one gateway twice the same: the second connection is the second path.
    let (one, two) = (stage.path(0, unit)?, stage.unit("", unit)?);
    let output = bounded_by(SUITE_SECONDS_MAX, "iscsi-test-cu")
        .args(["--dataloss", "--verbose", "--test", "ALL", &one, &two])
        .output()
        .context("run iscsi-test-cu")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        said.contains("Tests completed"),
        "the suite did not end: {}",
        tail(&said)
    );
    let fates = fates(&said);
    ensure!(fates.len() >= 230, "only {} tests ran", fates.len());
    let failed: BTreeSet<&str> = named(&fates, Fate::Failed).collect();
    let allowed: BTreeSet<&str> = wrong.iter().copied().collect();
    ensure!(failed == allowed, "failed: {failed:?}\n{said}");
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    for test in named(&fates, Fate::Skipped) {
        let suite = test.split_once('.').map_or(test, |(suite, _)| suite);
        *skipped.entry(suite).or_default() += 1;
    }
    let mut known: BTreeMap<&str, usize> = SKIPPED.iter().copied().collect();
    for (suite, count) in more {
        *known.entry(suite).or_default() += count;
    }
    ensure!(skipped == known, "skipped: {skipped:?}, and not {known:?}");
    Ok(())
}

fn named(fates: &BTreeMap<String, Fate>, wanted: Fate) -> impl Iterator<Item = &str> {
    let chosen = fates.iter().filter(move |(_, fate)| **fate == wanted);
    chosen.map(|(name, _)| name.as_str())
}

/// Reads the suite's output: `Suite: NAME`, then for each test `Test: NAME ...`, what it says, and `passed` or `FAILED`.
fn fates(said: &str) -> BTreeMap<String, Fate> {
    let mut fates = BTreeMap::new();
    let mut suite = "";
    let mut test = None;
    for line in said.lines() {
        if let Some(name) = line.trim_start().strip_prefix("Suite: ") {
            suite = name.trim();
        }
        if let Some((_, rest)) = line.split_once("  Test: ") {
            let name = rest.split_whitespace().next().unwrap_or_default();
            test = Some(format!("{suite}.{name}"));
        }
        let Some(test) = &test else { continue };
        let fate = fates.entry(test.clone()).or_insert(Fate::Passed);
        if line.starts_with("FAILED") || line.contains("...FAILED") {
            *fate = Fate::Failed;
        } else if line.contains("[SKIPPED]") && *fate == Fate::Passed {
            *fate = Fate::Skipped;
        }
    }
    fates
}

fn tail(said: &str) -> &str {
    let from = said.len().saturating_sub(600);
    said.get(from..).unwrap_or(said)
}

#[cfg(test)]
mod tests {
    //! What the suite prints is read as it is meant.
    use super::*;

    #[test]
    fn each_test_has_one_fate() {
        let said = "Suite: A\n  Test: One ...\n    text\npassed\n  Test: Two ...    [SKIPPED] no\npassed\n\
                    Suite: B\n  Test: One ...\n    [FAILED] x\nFAILED\n    1. file.c:1 - CU_ASSERT";
        let fates = fates(said);
        let of = |name: &str| fates.get(name).copied();
        assert_eq!(of("A.One"), Some(Fate::Passed));
        assert_eq!(of("A.Two"), Some(Fate::Skipped));
        assert_eq!(of("B.One"), Some(Fate::Failed));
        assert_eq!(fates.len(), 3);
    }
}
