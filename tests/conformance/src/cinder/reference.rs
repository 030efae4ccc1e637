//! What the real Cinder makes of the same tests in the same place: the measure of what ours makes of them.
//!
//! The file is written by `conformance cinder --reference --record`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use super::outcome::{Fate, Outcome};

/// The file, with the versions that it is of in its first lines.
const RECORD: &str = include_str!("reference.txt");
/// How the file begins.
const HEADER: &str = "\
# What became of each test of volumes of Tempest and of Cinder's plugin, run against the real Cinder, with Keystone and without
# Nova, Glance, Barbican, a second backend and replication. Versions are those of tests/openstack/requirements.
# A test that was skipped has the reason beside it. Written by `conformance cinder --reference --record FILE`.
";

static KNOWN: LazyLock<BTreeMap<String, Outcome>> = LazyLock::new(|| {
    let outcomes = RECORD.lines().filter_map(read);
    outcomes.map(|outcome| (outcome.test.clone(), outcome)).collect()
});

/// Reads a line: `FATE TEST`, and after a colon the reason.
fn read(line: &str) -> Option<Outcome> {
    let (fate, rest) = line.split_once(' ')?;
    let (test, reason) = rest.split_once(": ").unwrap_or((rest, ""));
    Some(Outcome {
        test: test.to_owned(),
        fate: Fate::read(fate)?,
        reason: reason.to_owned(),
    })
}

/// As a file of this kind.
pub(super) fn written(outcomes: &[Outcome]) -> String {
    let mut text = HEADER.to_owned();
    for outcome in outcomes {
        let (word, test) = (outcome.fate.word(), &outcome.test);
        // Writing to a string does not fail.
        let _ = match outcome.reason.as_str() {
            "" => writeln!(text, "{word} {test}"),
            reason => writeln!(text, "{word} {test}: {reason}"),
        };
    }
    text
}

/// Looks at an outcome in the light of what the real Cinder makes of the test: a test that it does not skip must not be
/// skipped, and one that it fails, too, says so.
pub(super) fn judge(outcome: &mut Outcome) {
    let Some(known) = KNOWN.get(&outcome.test) else {
        return;
    };
    match (outcome.fate, known.fate) {
        (Fate::Skipped, Fate::Passed | Fate::Failed) => {
            outcome.fate = Fate::Failed;
            outcome.reason = format!("skipped, which the real Cinder is not: {}", outcome.reason);
        }
        (Fate::Failed, Fate::Failed) => {
            outcome.reason = format!("{} (the real Cinder: {})", outcome.reason, known.reason);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    //! The record says of many tests that they pass, and is read as it was written.
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let all: Vec<Outcome> = KNOWN.values().cloned().collect();
        assert_eq!(written(&all), RECORD);
        assert!(all.iter().filter(|outcome| outcome.fate == Fate::Passed).count() > 300);
    }

    #[test]
    fn a_test_that_only_we_skip_is_a_failure() {
        let passes = KNOWN
            .values()
            .find(|outcome| outcome.fate == Fate::Passed)
            .unwrap();
        let mut ours = passes.clone();
        judge(&mut ours);
        assert_eq!(&ours, passes);
        ours.fate = Fate::Skipped;
        judge(&mut ours);
        assert_eq!(ours.fate, Fate::Failed);
        let mut skipped = KNOWN
            .values()
            .find(|outcome| outcome.fate == Fate::Skipped)
            .unwrap()
            .clone();
        judge(&mut skipped);
        assert_eq!(skipped.fate, Fate::Skipped);
    }
}
