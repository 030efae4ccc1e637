//! The change log as Debian wants it, made of `CHANGELOG.md`: its sections, with the items of their lists.

use std::fmt::Write as _;

/// How wide a line is.
const WIDTH: usize = 78;
/// Who says so.
const AUTHOR: &str = "storaged developers <storaged@example.org>";

/// The change log of a package; what is not released yet is the version that is built.
pub(super) fn debian(markdown: &str, package: &str, version: &str, date: &str) -> String {
    let mut text = String::new();
    for (heading, items) in sections(markdown) {
        let number = if heading.starts_with(|first: char| first.is_ascii_digit()) {
            heading.split_whitespace().next().unwrap_or(version)
        } else {
            version
        };
        let _ = writeln!(text, "{package} ({number}) unstable; urgency=medium\n");
        for item in items {
            text.push_str(&wrapped(&item));
        }
        let _ = writeln!(text, "\n -- {AUTHOR}  {date}\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Sections of the second level, each with the items of its lists.
fn sections(markdown: &str) -> Vec<(String, Vec<String>)> {
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    let mut goes_on = false;
    for line in markdown.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            sections.push((heading.trim().to_owned(), Vec::new()));
            goes_on = false;
            continue;
        }
        let Some((_, items)) = sections.last_mut() else {
            continue;
        };
        if let Some(item) = line.strip_prefix("- ") {
            items.push(item.trim().to_owned());
            goes_on = true;
        } else if let (true, Some(more), Some(item)) = (goes_on, line.strip_prefix("  "), items.last_mut()) {
            item.push(' ');
            item.push_str(more.trim());
        } else {
            goes_on = false;
        }
    }
    sections
}

/// An item in lines of at most [`WIDTH`], unless a word is longer.
fn wrapped(item: &str) -> String {
    let mut text = String::new();
    let mut line = "  *".to_owned();
    for word in item.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            "   ".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    //! What dpkg reads, from what people read.
    use super::*;

    #[test]
    fn items_of_all_sections_are_wrapped_and_the_newest_has_the_version_that_is_built() {
        let long = "word ".repeat(30);
        let markdown = format!(
            "# Changelog\n\n## Unreleased\n\nWords.\n\n- One thing,\n  and more of it.\n- {long}\n\n## 0.0.9\n\n- Old.\n"
        );
        let text = debian(&markdown, "storaged", "0.1.0", "Sat, 28 Nov 2026 12:00:00 +0000");
        assert!(text.starts_with(
            "storaged (0.1.0) unstable; urgency=medium\n\n  * One thing, and more of it.\n  * word"
        ));
        assert!(text.contains("\nstoraged (0.0.9) unstable; urgency=medium\n\n  * Old.\n\n -- storaged"));
        assert!(!text.contains("Words."));
        assert!(text.lines().all(|line| line.len() <= WIDTH + 2), "{text}");
        assert_eq!(text.matches(" -- ").count(), 2);
    }
}
