//! Rule about `docs/lessons.md`: each test that is named there exists.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;

/// Underscores from which on a word in backquotes is the name of a test and not of anything else.
const UNDERSCORES_MIN: usize = 4;

/// The names of the tests in a source.
pub(super) fn tests(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")
            && std::mem::take(&mut is_test)
        {
            let end = rest.find('(').unwrap_or(rest.len());
            names.push(rest[..end].to_owned());
        }
    }
    names
}

/// What is named in a document and is none of these tests.
pub(super) fn check(path: &Path, document: &str, tests: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in document.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            let is_name = word
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            if is_name && word.matches('_').count() >= UNDERSCORES_MIN && !tests.contains(word) {
                findings.push(Finding::new(path, number + 1, format!("there is no test {word}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#[test]\n#[ignore]\nfn a_test_that_is_there() {}\nfn no_test_that_is_here() {}\n\
                          #[tokio::test(start_paused = true)]\nasync fn one_that_takes_its_time() {}\n";

    #[test]
    fn a_test_that_is_named_and_does_not_exist_is_found() {
        let tests: BTreeSet<String> = tests(SOURCE).into_iter().collect();
        let found = |document: &str| check(Path::new("a.md"), document, &tests).len();
        assert_eq!(
            found("`a_test_that_is_there`, `one_that_takes_its_time`, `min_in_sync`"),
            0
        );
        assert_eq!(found("`a_test_that_was_there` and `no_test_that_is_here`"), 2);
    }
}
