//! Whose libraries are in programs, and under which licences, as cargo knows it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::moment::output;
use crate::workspace;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// A line for each library of others that any of the programs is linked with.
pub(super) fn list(programs: impl Iterator<Item = &'static str>) -> Result<String> {
    let programs: BTreeSet<&str> = programs.collect();
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--format-version=1", "--locked"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Metadata =
        serde_json::from_str(&output(&mut cargo)?).context("read what cargo says of the workspace")?;
    let begin = metadata.packages.iter().filter(|package| {
        package.targets.iter().any(|target| {
            programs.contains(target.name.as_str()) && target.kind.iter().any(|kind| kind == "bin")
        })
    });
    let linked = linked(
        &metadata.resolve,
        begin.map(|package| package.id.as_str()).collect(),
    );
    let mut lines = BTreeSet::new();
    for package in &metadata.packages {
        if package.source.is_some() && linked.contains(package.id.as_str()) {
            lines.insert(format!(
                "{} {}: {} ({})\n",
                package.name,
                package.version,
                package.license.as_deref().unwrap_or("see its sources"),
                package.repository.as_deref().unwrap_or("no address"),
            ));
        }
    }
    Ok(lines.into_iter().collect())
}

/// What is linked with these, as far as it goes.
fn linked<'a>(resolve: &'a Resolve, mut todo: Vec<&'a str>) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Node> = resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !linked.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        todo.extend(
            dependencies
                .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()))
                .map(|dependency| dependency.pkg.as_str()),
        );
    }
    linked
}
