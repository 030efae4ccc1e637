//! Every build of the workspace agrees on the features of others' crates, or compiles them, and all that stands on them,
//! once more.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Finding;
use crate::workspace;

/// Findings about the workspace as it is.
pub(super) fn check() -> Result<Vec<Finding>> {
    Ok(judge(&resolved("normal,build")?, &resolved("normal,build,dev")?))
}

/// What cargo resolves where it follows edges of these kinds: a line for each crate, version and set of features.
fn resolved(edges: &str) -> Result<String> {
    let mut tree = workspace::cargo();
    tree.args([
        "tree",
        "--workspace",
        "--prefix",
        "none",
        "--format",
        "{p} {f}",
        "--edges",
        edges,
    ]);
    let output = tree.output().context("start cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("cargo tree does not speak UTF-8")
}

/// What programs are compiled with must be what tests are compiled with.
fn judge(programs: &str, tests: &str) -> Vec<Finding> {
    let of_tests = sets(tests);
    sets(programs)
        .difference(&of_tests)
        .map(|line| {
            let message = format!(
                "a build without tests compiles this with other features than tests do, and so anew: {line}; name in \
                 [dependencies] here what asks for more in tests"
            );
            Finding::new(Path::new("tests/features/Cargo.toml"), 1, message)
        })
        .collect()
}

fn sets(tree: &str) -> BTreeSet<&str> {
    // A star says that what stands below was shown before.
    tree.lines()
        .map(|line| line.trim_end_matches(" (*)").trim_end())
        .collect()
}

#[cfg(test)]
mod tests {
    //! One feature more in tests is found; crates that tests alone have are not.
    use super::*;

    #[test]
    fn a_feature_that_tests_alone_ask_for_is_found() {
        let programs = "storaged v0.1.0 (/w) \nserde v1.0.0 default,std\nserde v1.0.0 default,std (*)\n";
        let agreeing = format!("{programs}proptest v1.0.0 default\n");
        assert_eq!(judge(programs, &agreeing), []);
        let more = agreeing.replace("default,std", "alloc,default,std");
        let found = judge(programs, &more);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].message.contains("serde v1.0.0 default,std;"),
            "{}",
            found[0]
        );
    }
}
