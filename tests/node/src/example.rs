//! Files in `packaging/` that explain every option of a program: what is in them, compared with what the program knows. Which
//! options there are is asked of the program's own reader, by one that it does not know: its refusal names all others.

use std::collections::BTreeSet;

/// An option that no program has.
const UNKNOWN: &str = "is_no_option";

/// The file's text with those options, too, that it shows behind two signs.
pub fn with_all_options(text: &str) -> String {
    let lines = text.lines().map(|line| line.strip_prefix("## ").unwrap_or(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Options that the program knows and the file does not explain. `refusal` is what the program's reader says of a text.
pub fn unexplained(text: &str, refusal: impl Fn(&str) -> String) -> Vec<String> {
    let all: toml::Table = with_all_options(text).parse().unwrap_or_default();
    let mut missing = Vec::new();
    let mut sections = vec![(String::new(), &all)];
    while let Some((path, table)) = sections.pop() {
        let probe = if path.is_empty() {
            format!("{UNKNOWN} = 1\n")
        } else {
            format!("[{path}]\n{UNKNOWN} = 1\n")
        };
        let said = refusal(&probe);
        let known = known(&said);
        if known.is_empty() {
            missing.push(format!("what is known in [{path}]: {said}"));
        }
        for name in known {
            let full = format!("{path}.{name}");
            let full = full.trim_start_matches('.').to_owned();
            match table.get(&name) {
                None => missing.push(full),
                Some(toml::Value::Table(below)) => sections.push((full, below)),
                Some(_) => {}
            }
        }
    }
    missing
}

/// The names in "unknown field `x`, expected one of `a`, `b`".
fn known(refusal: &str) -> BTreeSet<String> {
    let expected = refusal
        .split_once(&format!("`{UNKNOWN}`, expected"))
        .map_or("", |(_, expected)| expected);
    let expected = expected.lines().next().unwrap_or_default();
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    //! What is missing is found, in sections within sections, too.
    use super::*;

    #[test]
    fn an_option_that_is_not_explained_is_named() {
        let refusal = |probe: &str| {
            let names = if probe.starts_with("[a.b]") {
                "`x` or `y`"
            } else {
                "one of `a`, `b`, `z`"
            };
            format!("unknown field `{UNKNOWN}`, expected {names}\n")
        };
        let text = "z = 1\n## b = 1\n[a]\na = 1\n## z = 2\n## [a.b]\n# A word.\n## x = 1\n";
        assert_eq!(unexplained(text, refusal), ["a.b.y"]);
        assert_eq!(unexplained(text, |_| String::new()).len(), 1);
    }
}
