//! What became of tests: read from what ran them, printed for people and programs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The most characters of a reason that are shown: a line.
const REASON_SHOWN_MAX: usize = 300;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Passed,
    Failed,
    Skipped,
}

impl Fate {
    /// As it is written down.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Reads what was written down.
    pub(super) fn read(word: &str) -> Option<Self> {
        let all = [Self::Passed, Self::Failed, Self::Skipped];
        all.into_iter().find(|fate| fate.word() == word)
    }
}

/// A test, what became of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Outcome {
    /// With modules and class.
    pub(super) test: String,
    pub(super) fate: Fate,
    /// A line; nothing if it passed.
    pub(super) reason: String,
}

impl Outcome {
    /// Reads what `outcomes.py` printed of a test, or of what came before a class.
    pub(super) fn read(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("read {line:?}"))?;
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let fate = match text("status") {
            "success" | "xfail" => Fate::Passed,
            "skip" => Fate::Skipped,
            _ => Fate::Failed,
        };
        let reason = match fate {
            Fate::Passed => String::new(),
            Fate::Skipped => shortened(text("reason").trim()),
            Fate::Failed => reason(text("traceback")),
        };
        Ok(Self {
            test: name(text("id")).to_owned(),
            fate,
            reason,
        })
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({"test": self.test, "outcome": self.fate.word(), "reason": self.reason})
    }

    /// What is before the test's own name.
    pub(super) fn class(&self) -> &str {
        self.test.rsplit_once('.').map_or("", |(class, _)| class)
    }

    /// What is before the class.
    fn module(&self) -> &str {
        self.class().rsplit_once('.').map_or("", |(module, _)| module)
    }
}

/// A test's name without its marks: `MODULE.CLASS.NAME[id-UUID,smoke]`.
pub(super) fn name(id: &str) -> &str {
    id.split('[').next().unwrap_or_default()
}

/// The class, where an identity stands for what is done once before its tests: `setUpClass (MODULE.CLASS)`.
pub(super) fn class_before(test: &str) -> Option<&str> {
    let (_, class) = test.split_once("Class (")?;
    class.strip_suffix(')')
}

/// The line of a traceback that says what happened: the first after the last that tells a place in a program.
fn reason(traceback: &str) -> String {
    let lines: Vec<&str> = traceback.lines().collect();
    let after = lines
        .iter()
        .rposition(|line| line.starts_with("    ") || line.starts_with("  File "))
        .map_or(0, |last| last + 1);
    let said = lines.get(after..).unwrap_or_default();
    let said: Vec<&str> = said
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect();
    if said.is_empty() {
        return "no reason was given".to_owned();
    }
    shortened(&said.join(" "))
}

fn shortened(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(REASON_SHOWN_MAX) {
        Some((end, _)) => format!("{}...", one_line.get(..end).unwrap_or_default()),
        None => one_line,
    }
}

/// Prints how many tests of each module had which fate, then each that failed.
pub(super) fn print_table(outcomes: &[Outcome]) {
    let mut modules: BTreeMap<&str, [u32; 3]> = BTreeMap::new();
    for outcome in outcomes {
        let counts = modules.entry(outcome.module()).or_default();
        counts[outcome.fate as usize] += 1;
    }
    println!("\n{:<76} {:>6} {:>6} {:>7}", "", "passed", "failed", "skipped");
    for (module, [passed, failed, skipped]) in modules {
        println!("{module:<76} {passed:>6} {failed:>6} {skipped:>7}");
    }
    println!();
    for outcome in outcomes.iter().filter(|outcome| outcome.fate == Fate::Failed) {
        println!("{} ... FAILED\n    {}", outcome.test, outcome.reason);
    }
}

#[cfg(test)]
mod tests {
    //! What the test runner says is understood.
    use super::*;

    #[test]
    fn the_reason_is_what_follows_the_last_place_of_a_traceback() {
        let traceback = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\n    ~^^\n\
                         tempest.lib.exceptions.BadRequest: Bad request\nDetails: {'code': 400}\n\n";
        let line = json!({"id": "a.b.C.test[id-1,smoke]", "status": "fail", "traceback": traceback});
        let outcome = Outcome::read(&line.to_string()).unwrap();
        assert_eq!(outcome.test, "a.b.C.test");
        assert_eq!((outcome.class(), outcome.module()), ("a.b.C", "a.b"));
        assert_eq!(outcome.fate, Fate::Failed);
        assert_eq!(
            outcome.reason,
            "tempest.lib.exceptions.BadRequest: Bad request Details: {'code': 400}"
        );
    }

    #[test]
    fn what_is_before_a_class_is_told_from_a_test() {
        assert_eq!(class_before("setUpClass (a.b.C)"), Some("a.b.C"));
        assert_eq!(class_before("a.b.C.test"), None);
    }
}
