//! Rules about Markdown files: one title, and links that lead somewhere.

use std::path::{Component, Path, PathBuf};

use super::Finding;

/// Findings about one document. `exists` says whether a path, relative to the root, is there.
pub(super) fn check(path: &Path, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut titles = 0;
    let mut in_code = false;
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        // Split, so that this file does not find itself.
        if content.contains(concat!("/work", "/")) || content.contains(concat!("../sha", "red")) {
            findings.push(Finding::new(path, line, "this path exists on one machine only"));
        }
        if in_code {
            continue;
        }
        titles += usize::from(content.starts_with("# "));
        for target in links(content) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !exists(&resolve(path, file)) {
                findings.push(Finding::new(
                    path,
                    line,
                    format!("the link to {target} leads nowhere"),
                ));
            }
        }
    }
    if titles != 1 {
        findings.push(Finding::new(
            path,
            1,
            format!("{titles} titles: a document has exactly one line with \"# \""),
        ));
    }
    findings
}

/// The targets of `[text](target)` in a line, outside of code.
fn links(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (part, text) in line.split('`').enumerate() {
        // Every second part lies between backticks.
        if part % 2 == 0 {
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| target));
        }
    }
    found
}

/// `target`, as written in the document `path`, relative to the root.
fn resolve(path: &Path, target: &str) -> PathBuf {
    let mut resolved = path.parent().unwrap_or(Path::new("")).to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            Component::Normal(name) => resolved.push(name),
            _ => {}
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    //! Each rule finds its violation, and leaves code samples alone.
    use super::*;

    fn messages(text: &str) -> String {
        let exists = |path: &Path| [Path::new("README.md"), Path::new("docs/a.md")].contains(&path);
        let found = check(Path::new("docs/b.md"), text, &exists);
        found
            .into_iter()
            .map(|finding| finding.message)
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn a_document_has_exactly_one_title() {
        assert_eq!(messages("# A\n\n## B\n```\n# in a shell\n```\n"), "");
        assert!(messages("text\n").contains("0 titles"));
        assert!(messages("# A\n# B\n").contains("2 titles"));
    }

    #[test]
    fn a_link_leads_to_a_file_that_is_there() {
        assert_eq!(
            messages("# A\n[x](a.md) [y](../README.md#top) [z](https://example.org/) [w](#a)\n"),
            ""
        );
        assert!(messages("# A\n[x](../a.md)\n").contains("../a.md leads nowhere"));
        assert_eq!(messages("# A\n`[x](gone.md)`\n"), "");
    }
}
