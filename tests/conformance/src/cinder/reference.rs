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
# What became of each test of volumes of Tempest and of Cinder's plugin, run against the real Cinder, with Keystone and Glance
# and without Nova, Barbican, a second backend and replication. Versions are those of tests/openstack/requirements.
# A test that was skipped has the reason beside it. Written by `conformance cinder --reference --record FILE`.
";

type Known = BTreeMap<String, Outcome>;

static KNOWN: LazyLock<Known> = LazyLock::new(|| known(RECORD));

/// What a record says, by test.
fn known(record: &str) -> Known {
    let outcomes = record.lines().filter_map(read);
    outcomes.map(|outcome| (outcome.test.clone(), outcome)).collect()
}

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
    judge_by(&KNOWN, outcome);
}

fn judge_by(known: &Known, outcome: &mut Outcome) {
    let Some(known) = known.get(&outcome.test) else {
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
    //! A record is read as it was written, and outcomes are judged by it.
    use super::*;

    fn outcome(test: &str, fate: Fate, reason: &str) -> Outcome {
        Outcome {
            test: test.to_owned(),
            fate,
            reason: reason.to_owned(),
        }
    }

    fn all() -> Vec<Outcome> {
        vec![
            outcome("a.B.fails", Fate::Failed, "because"),
            outcome("a.B.passes", Fate::Passed, ""),
            outcome("a.B.skips", Fate::Skipped, "no Nova: none"),
        ]
    }

    #[test]
    fn what_was_written_is_read_again() {
        let text = written(&all());
        assert_eq!(known(&text).into_values().collect::<Vec<_>>(), all());
        assert_eq!(
            written(&KNOWN.values().cloned().collect::<Vec<_>>())
                .lines()
                .count(),
            3 + KNOWN.len()
        );
    }

    #[test]
    fn a_test_that_only_we_skip_is_a_failure() {
        let known = known(&written(&all()));
        let judged = |test: &str, fate| {
            let mut ours = outcome(test, fate, "ours");
            judge_by(&known, &mut ours);
            ours
        };
        assert_eq!(judged("a.B.passes", Fate::Passed).fate, Fate::Passed);
        assert_eq!(judged("a.B.passes", Fate::Skipped).fate, Fate::Failed);
        assert_eq!(judged("a.B.skips", Fate::Skipped).fate, Fate::Skipped);
        assert!(judged("a.B.fails", Fate::Failed).reason.contains("because"));
        assert_eq!(judged("a.B.new", Fate::Skipped).fate, Fate::Skipped);
    }
}
