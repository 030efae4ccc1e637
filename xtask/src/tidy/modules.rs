//! Finds source files that no module names: they look alive and are never compiled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Finding;

/// Findings about all files. `read` gives a file's text.
pub(super) fn check(files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> Vec<Finding> {
    let known: BTreeSet<&Path> = files.iter().map(PathBuf::as_path).collect();
    let sources = files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let dead = sources.filter(|file| {
        let Some(name) = file.file_stem().and_then(|stem| stem.to_str()) else {
            return false;
        };
        let parents = parents(file);
        let mut named = parents
            .iter()
            .filter(|parent| known.contains(parent.as_path()))
            .peekable();
        // A file without a possible parent is a root of its own, as in tests/ and examples/.
        named.peek().is_some() && !named.any(|parent| names(&read(parent), name))
    });
    dead.map(|file| Finding::new(file, 1, "no module names this file, so it is never compiled"))
        .collect()
}

/// The files that could name a file as their module.
fn parents(file: &Path) -> Vec<PathBuf> {
    let Some(folder) = file.parent() else {
        return Vec::new();
    };
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let mut parents = vec![folder.with_extension("rs")];
    if folder.ends_with("src") && !["lib", "main"].contains(&stem) {
        parents.extend([folder.join("lib.rs"), folder.join("main.rs")]);
    }
    parents
}

/// Whether a line of `text` is `mod NAME;`, however visible.
fn names(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim();
        line == format!("mod {name};")
            || (line.starts_with("pub") && line.ends_with(&format!(" mod {name};")))
    })
}

#[cfg(test)]
mod tests {
    //! A forgotten file is found, wherever its parent would be.
    use super::*;

    fn dead(files: &[(&str, &str)]) -> Vec<String> {
        let paths: Vec<PathBuf> = files.iter().map(|(path, _)| path.into()).collect();
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).unwrap_or_default()
        };
        check(&paths, &read)
            .into_iter()
            .map(|finding| finding.path.display().to_string())
            .collect()
    }

    #[test]
    fn a_file_that_no_module_names_is_dead() {
        let files = [
            ("a/src/lib.rs", "pub mod live;\n"),
            ("a/src/live.rs", "    mod deep;\npub(crate) mod wide;\n"),
            ("a/src/live/deep.rs", ""),
            ("a/src/live/wide.rs", ""),
            ("a/src/live/gone.rs", ""),
            ("a/src/forgotten.rs", ""),
            ("a/tests/root.rs", ""),
        ];
        assert_eq!(dead(&files), ["a/src/live/gone.rs", "a/src/forgotten.rs"]);
    }
}
