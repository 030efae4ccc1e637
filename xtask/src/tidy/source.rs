//! Rules about the text of a source file: its length, its header, its characters, its words.

use std::path::Path;

use super::Finding;

/// No file is longer.
const FILE_LINES_MAX: usize = 800;
/// A longer file says in its header why it is one file, with [`LENGTH_REASON`].
const FILE_LINES_REASON: usize = 500;
/// How a long file's header begins to give its reason.
const LENGTH_REASON: &str = "One file because";
/// Half of the files are shorter.
const FILE_LINES_MEDIAN: usize = 200;
/// Names that say nothing about what is in a module.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "common", "manager", "misc"];

/// What holds for every source, whatever its language.
pub(super) fn check_text(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        if let Some(found) = content.chars().find(|c| !c.is_ascii()) {
            findings.push(Finding::new(
                path,
                line,
                format!("{found:?} is not ASCII: write an escape"),
            ));
        }
        // Split, so that this file does not find itself.
        for private in [
            concat!("/work", "/"),
            concat!("../sha", "red"),
            concat!("sha", "red/notes"),
        ] {
            if content.contains(private) {
                findings.push(Finding::new(
                    path,
                    line,
                    format!("{private:?} exists on one machine only"),
                ));
            }
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(
            path,
            text.lines().count(),
            "the last line has no end",
        ));
    }
    findings
}

/// What holds for Rust files.
pub(super) fn check_rust(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line, message: String| findings.push(Finding::new(path, line, message));
    if !text.starts_with("//! ") {
        found(1, "a file opens with //! and says what it is for".into());
    }
    let lines = text.lines().count();
    let header = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .collect::<Vec<_>>()
        .join(" ");
    if lines > FILE_LINES_MAX {
        found(
            lines,
            format!("{lines} lines, at most {FILE_LINES_MAX}: split by subject"),
        );
    } else if lines > FILE_LINES_REASON && !header.contains(LENGTH_REASON) {
        found(
            lines,
            format!("{lines} lines: above {FILE_LINES_REASON} the header says \"{LENGTH_REASON} ...\""),
        );
    }
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if stem == "mod" {
        found(1, "no mod.rs: use NAME.rs beside the folder NAME".into());
    }
    if EMPTY_NAMES.contains(&stem) {
        found(
            1,
            format!("{stem:?} says nothing: name the module for its subject"),
        );
    }
    let comments = ["TODO", "FIXME", "XXX", "HACK"];
    for (line, content) in (1..).zip(text.lines()) {
        let comment = content.split_once("//").map_or("", |(_, comment)| comment);
        if let Some(word) = comments.iter().find(|word| comment.contains(&format!("{word}:"))) {
            found(
                line,
                format!("{word}: finish it, or write down why it is right as it is"),
            );
        }
    }
    findings.extend(check_examples(path, text));
    findings
}

/// Examples in documentation would be tests that nobody runs: `cargo xtask test` does not look for them, because rustdoc
/// compiles every crate for that.
fn check_examples(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inside = false;
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim_start();
        let comment = content
            .strip_prefix("///")
            .or_else(|| content.strip_prefix("//!"));
        let Some(fence) = comment.and_then(|comment| comment.trim_start().strip_prefix("```")) else {
            continue;
        };
        if !inside && !fence.starts_with("text") {
            let message =
                "an example in a comment is a test that is not run: make it a test, or mark it as text";
            findings.push(Finding::new(path, line, message));
        }
        inside = !inside;
    }
    findings
}

/// Half of all files are short.
pub(super) fn check_median(lengths: &mut [usize]) -> Option<Finding> {
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied()?;
    let message = format!("the median file has {median} lines, should be below {FILE_LINES_MEDIAN}");
    (median >= FILE_LINES_MEDIAN).then(|| Finding::new(Path::new("."), 0, message))
}

#[cfg(test)]
mod tests {
    //! Each rule finds its violation, and leaves a sound file alone.
    use super::*;

    fn messages(name: &str, text: &str) -> String {
        let path = Path::new(name);
        let all = check_text(path, text).into_iter().chain(check_rust(path, text));
        all.map(|finding| finding.message).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_sound_file_has_no_findings() {
        assert_eq!(
            messages("src/lease.rs", "//! Leases.\n\n// Why.\nfn f() {}\n"),
            ""
        );
        assert_eq!(messages("src/lease.rs", "//! ```text\n//! 0  a\n//! ```\n"), "");
    }

    #[test]
    fn each_broken_rule_is_found() {
        for (name, text, part) in [
            ("src/a.rs", "fn f() {}\n", "opens with //!"),
            ("src/a.rs", "//! A.\n// \u{2014}\n", "not ASCII"),
            ("src/a.rs", "//! A.\nfn f() {}", "no end"),
            ("src/a/mod.rs", "//! A.\n", "no mod.rs"),
            ("src/utils.rs", "//! A.\n", "says nothing"),
            ("src/a.rs", concat!("//! A.\n// See /work", "/x\n"), "one machine"),
            ("src/a.rs", concat!("//! A.\n// TO", "DO: x\n"), "finish it"),
            (
                "src/a.rs",
                "//! A.\n/// ```\n/// f();\n/// ```\nfn f() {}\n",
                "make it a test",
            ),
        ] {
            let found = messages(name, text);
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[test]
    fn a_long_file_is_split_or_gives_its_reason() {
        let long = |header: &str, lines: usize| format!("//! {header}\n{}", "fn f() {}\n".repeat(lines - 1));
        assert!(messages("a.rs", &long("A.", 801)).contains("split by subject"));
        assert!(messages("a.rs", &long("One file because so.", 801)).contains("split by subject"));
        assert!(messages("a.rs", &long("A.", 501)).contains(LENGTH_REASON));
        assert_eq!(messages("a.rs", &long("A. One file because so.", 501)), "");
        assert_eq!(messages("a.rs", &long("A.", 500)), "");
    }

    #[test]
    fn the_median_is_what_half_of_the_files_stay_below() {
        assert_eq!(check_median(&mut [10, 900, 20]), None);
        assert!(check_median(&mut [10, 900, 200]).is_some());
        assert_eq!(check_median(&mut []), None);
    }
}
