//! What cargo says of the crates of this workspace and of others: which there are, who asks for whom, what is linked into
//! which program. It knows nothing of what is allowed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::workspace;

/// For this platform only: what others would link is not built here.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The part of `cargo metadata` that matters here.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: BTreeSet<String>,
    pub(crate) resolve: Resolve,
    pub(crate) workspace_root: String,
}

/// One crate in one version.
#[derive(Deserialize, Default)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) version: String,
    /// What its authors allow, as an expression of SPDX.
    pub(crate) license: Option<String>,
    /// Where its sources are kept.
    pub(crate) repository: Option<String>,
    /// Where it comes from; nowhere, if it is of this workspace.
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: String,
}

/// Who asks for whom.
#[derive(Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// A crate and whom it asks for.
#[derive(Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Dependency>,
}

/// Whom, and for what.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

/// For what: nothing for the crate itself, `build`, or `dev`.
#[derive(Deserialize)]
pub(crate) struct DependencyKind {
    pub(crate) kind: Option<String>,
}

impl Node {
    /// Whom the crate itself asks for: neither its build script nor its tests.
    pub(crate) fn normal(&self) -> Vec<&str> {
        let normal = self
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        normal.map(|dependency| dependency.pkg.as_str()).collect()
    }
}

/// Asks cargo.
pub(crate) fn metadata() -> Result<Metadata> {
    let platform = format!("--filter-platform={PLATFORM}");
    let text = said(&["metadata", "--format-version=1", &platform])?;
    serde_json::from_str(&text).context("read the answer of cargo metadata")
}

/// All that can be reached from one, by whatever way.
pub(crate) fn reachable<'a>(from: &'a str, uses: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(package) = next.pop() {
        for used in uses.get(package).into_iter().flatten() {
            if reached.insert(*used) {
                next.push(used);
            }
        }
    }
    reached
}

/// A crate's name and version.
pub(crate) type Version = (String, String);

/// What of a program is in the program: with the features that it asks for by itself, without what only runs in the compiler.
pub(crate) fn linked(program: &str) -> Result<BTreeSet<Version>> {
    tree(&["--package", program], "normal,no-proc-macro")
}

/// The same, and what runs while it is built.
pub(crate) fn built(program: &str) -> Result<BTreeSet<Version>> {
    tree(&["--package", program], "normal,build")
}

/// What any program or test of this workspace is built with. `cargo metadata` tells of more: of some that nobody asks for with
/// the features that are on.
pub(crate) fn of_workspace() -> Result<BTreeSet<Version>> {
    tree(&["--workspace"], "normal,build,dev")
}

fn tree(of: &[&str], edges: &str) -> Result<BTreeSet<Version>> {
    let options = ["--edges", edges, "--prefix", "none", "--target", PLATFORM];
    let text = said(&[&["tree"], of, &options].concat())?;
    // Between the trees of several crates is an empty line.
    let named = text.lines().filter(|line| !line.is_empty());
    named.map(read_line).collect()
}

/// `NAME vVERSION`, and perhaps more.
fn read_line(line: &str) -> Result<Version> {
    let mut words = line.split_whitespace();
    let read = (words.next(), words.next().and_then(|word| word.strip_prefix('v')));
    let (Some(name), Some(version)) = read else {
        anyhow::bail!("cargo tree names no crate: {line:?}");
    };
    Ok((name.to_owned(), version.to_owned()))
}

fn said(arguments: &[&str]) -> Result<String> {
    let name = arguments.first().copied().unwrap_or_default();
    let output = workspace::cargo()
        .args(arguments)
        .output()
        .with_context(|| format!("run cargo {name}"))?;
    ensure!(
        output.status.success(),
        "cargo {name} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("cargo does not speak UTF-8")
}

#[cfg(test)]
mod tests {
    //! A line that names no crate must not pass for one.
    use super::*;

    #[test]
    fn a_line_of_the_tree_is_a_name_and_a_version() {
        let read = |line| read_line(line).ok();
        let expected = Some(("a-b".to_owned(), "1.2.3+x".to_owned()));
        assert_eq!(read("a-b v1.2.3+x"), expected);
        assert_eq!(read("a-b v1.2.3+x (/home/a) (*)"), expected);
        assert_eq!(read("[build-dependencies]"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn what_a_program_is_built_with_is_more_than_what_is_in_it() {
        let (linked, built) = (linked("storaged").unwrap(), built("storaged").unwrap());
        let has = |crates: &BTreeSet<Version>, name| crates.iter().any(|(known, _)| known == name);
        assert!(has(&linked, "storaged") && has(&linked, "ring") && !has(&linked, "serde_derive"));
        assert!(linked.is_subset(&built) && has(&built, "serde_derive"));
    }
}
