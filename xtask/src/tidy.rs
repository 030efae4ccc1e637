//! The rules of the code base that a machine can check. Each rule is a function from what it looks at
//! to findings, and has a test that shows a violation being found.

mod dependencies;
mod directions;
mod document;
mod features;
mod functions;
mod lessons;
mod modules;
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::crates;
use crate::process::run;
use crate::tally::Tally;
use crate::workspace;

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: PathBuf,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Runs all rules, prints what they find, and counts each rule as one check.
pub(crate) fn tidy(sources_only: bool) -> Result<Tally> {
    let mut tally = rules()?;
    if sources_only {
        tally.skipped += 2;
        return Ok(tally);
    }
    tally.add(format());
    tally.add(lints());
    Ok(tally)
}

/// Our own rules.
pub(crate) fn rules() -> Result<Tally> {
    let mut tally = Tally::default();
    let metadata = crates::metadata()?;
    for (name, findings) in [
        ("sources", source_rules()?),
        ("documents", document_rules()?),
        ("directions", directions::check(&metadata)),
        ("dependencies", dependencies::check(&metadata)?),
        ("features", features::check()?),
    ] {
        for finding in &findings {
            println!("{finding}");
        }
        println!(
            "tidy {name}: {}",
            if findings.is_empty() {
                "ok".into()
            } else {
                format!("{} findings", findings.len())
            }
        );
        tally.record(findings.is_empty());
    }
    Ok(tally)
}

/// The format, which rustfmt judges.
pub(crate) fn format() -> Tally {
    let mut format = workspace::cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut tally = Tally::default();
    tally.record(run(&mut format).is_ok());
    tally
}

/// The lints, for which clippy compiles everything, in its own way.
pub(crate) fn lints() -> Tally {
    let mut tally = Tally::default();
    tally.record(run(&mut linting()).is_ok());
    tally
}

/// What judges the lints.
pub(crate) fn linting() -> Command {
    let mut clippy = workspace::cargo();
    clippy.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    clippy
}

fn source_rules() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut lengths = Vec::new();
    let mut measured = functions::Measured::default();
    for path in workspace::files()?
        .iter()
        .filter(|path| has_extension(path, &["rs", "toml"]))
    {
        let text = read(path)?;
        findings.extend(source::check_text(path, &text));
        if has_extension(path, &["rs"]) {
            findings.extend(source::check_rust(path, &text));
            findings.extend(functions::check(path, &text, &mut measured));
            findings.extend(functions::check_root(path, &text));
            lengths.push(text.lines().count());
        }
    }
    findings.extend(measured.verdict());
    findings.extend(modules::check(&workspace::files()?, &|path| {
        read(path).unwrap_or_default()
    }));
    findings.extend(source::check_median(&mut lengths));
    Ok(findings)
}

fn document_rules() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let files = workspace::files()?;
    for path in files.iter().filter(|path| has_extension(path, &["md"])) {
        findings.extend(document::check(path, &read(path)?, &|target| {
            workspace::root().join(target).exists()
        }));
    }
    let mut tests = BTreeSet::new();
    for path in files.iter().filter(|path| has_extension(path, &["rs"])) {
        tests.extend(lessons::tests(&read(path)?));
    }
    let lessons = Path::new("docs/lessons.md");
    findings.extend(lessons::check(lessons, &read(lessons)?, &tests));
    Ok(findings)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .is_some_and(|found| extensions.iter().any(|extension| found == *extension))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(workspace::root().join(path)).with_context(|| format!("read {}", path.display()))
}
