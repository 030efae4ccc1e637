//! What a process tells Prometheus, and what docs/operations/metrics.md says that it tells: the same families, or a test fails.

use std::collections::{BTreeMap, BTreeSet};

/// The document.
const DOCUMENT: &str = include_str!("../../../docs/operations/metrics.md");

/// What is said of a family: its type, its labels, what it means.
pub type Meaning = (String, BTreeSet<String>, String);

/// The families of a text as it is served. Panics if it is none.
pub fn served(text: &str) -> BTreeMap<String, Meaning> {
    let mut families: BTreeMap<String, Meaning> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let former = families.insert(name.to_owned(), (String::new(), BTreeSet::new(), help.to_owned()));
            assert!(former.is_none(), "{name} comes twice");
            name.clone_into(&mut last);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            assert_eq!(name, last, "a type stands under another name");
            kind.clone_into(&mut families.entry(last.clone()).or_default().0);
        } else {
            assert!(line.starts_with(&last), "{line} stands under {last}");
            families
                .entry(last.clone())
                .or_default()
                .1
                .extend(label_names(line));
        }
    }
    families
}

/// Names of labels, without that of a histogram's steps. No value here has an escaped quote in it.
fn label_names(line: &str) -> impl Iterator<Item = String> {
    let labels = line.split_once('{').map_or("", |(_, rest)| rest);
    let quoted = labels.split('"').step_by(2);
    quoted
        .filter_map(|part| part.trim_start_matches(',').strip_suffix('='))
        .filter(|name| *name != "le")
        .map(str::to_owned)
}

/// The families that the document lists for a program. Panics if it has no table of that program.
pub fn documented(program: &str) -> BTreeMap<String, Meaning> {
    let heading = format!("\n## {program}\n");
    let section = DOCUMENT.split_once(&heading).map(|(_, section)| section);
    let section = section.unwrap_or_else(|| panic!("the document has no section {program}"));
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, _unit, help] = cells[..] else {
            panic!("{row} has not five cells");
        };
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (
            name.trim_matches('`').to_owned(),
            (kind.to_owned(), labels, help.to_owned()),
        )
    })
    .collect()
}
