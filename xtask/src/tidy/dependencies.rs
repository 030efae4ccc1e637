//! Which crates of others may be here: their licences, where they come from, which are refused, how many versions of one, and
//! how many `storaged` links. The lists are those of `deny.toml`, which `cargo deny` reads, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use spdx::{Expression, ParseMode};

use super::Finding;
use crate::crates::{self, Metadata, Package, Version};
use crate::workspace;

/// Where the lists are.
pub(super) const POLICY: &str = "deny.toml";
/// The most crates of others that `storaged` links: each is code that somebody has to trust.
const LINKED_MAX: usize = 155;

/// What cargo writes before a registry's address. Crates from a repository or a folder of others have no checksum.
const REGISTRY: &str = "registry+";

/// The part of `deny.toml` that is held to here.
#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Named>,
    skip: Vec<Named>,
}

/// A crate, `NAME` or `NAME@VERSION`, of which the version may be a beginning; and why it is listed.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "crate")]
    what: String,
    reason: String,
}

impl Named {
    fn is(&self, package: &Package) -> bool {
        match self.what.split_once('@') {
            None => self.what == package.name,
            Some((name, version)) => {
                let rest = package.version.strip_prefix(version);
                name == package.name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        }
    }
}

/// Asks cargo, and compares with the lists.
pub(super) fn check(metadata: &Metadata) -> Result<Vec<Finding>> {
    let text = std::fs::read_to_string(workspace::root().join(POLICY)).context("read deny.toml")?;
    let mut messages = judge(metadata, &crates::of_workspace()?, &text)?;
    let members: BTreeSet<&str> = (metadata.packages.iter())
        .filter(|package| metadata.workspace_members.contains(&package.id))
        .map(|package| package.name.as_str())
        .collect();
    let linked = crates::linked("storaged")?;
    let others = linked.iter().filter(|(name, _)| !members.contains(name.as_str()));
    messages.extend(too_many(others.count()));
    let at = |message| Finding::new(Path::new(POLICY), 1, message);
    Ok(messages.into_iter().map(at).collect())
}

fn too_many(count: usize) -> Option<String> {
    (count > LINKED_MAX).then(|| format!("storaged links {count} crates of others; {LINKED_MAX} is the most"))
}

/// What of the crates that are used is not as the lists want it.
fn judge(metadata: &Metadata, used: &BTreeSet<Version>, policy: &str) -> Result<Vec<String>> {
    let policy: Policy = toml::from_str(policy).context("read deny.toml")?;
    let packages: Vec<&Package> = (metadata.packages.iter())
        .filter(|package| used.contains(&(package.name.clone(), package.version.clone())))
        .collect();
    let others = packages
        .iter()
        .filter(|package| !metadata.workspace_members.contains(&package.id));
    let mut messages: Vec<String> = others.flat_map(|package| policy.about(package)).collect();
    messages.extend(policy.versions(&packages));
    messages.extend(one_registry(&packages));
    Ok(messages)
}

/// Two registries may have two crates of one name.
fn one_registry(packages: &[&Package]) -> Option<String> {
    let registries: BTreeSet<&str> = (packages.iter())
        .filter_map(|package| package.source.as_deref())
        .filter(|source| source.starts_with(REGISTRY))
        .collect();
    let named: Vec<&str> = registries.into_iter().collect();
    (named.len() > 1).then(|| format!("crates come from several registries: {}", named.join(", ")))
}

impl Policy {
    /// What is wrong with one crate.
    fn about(&self, package: &Package) -> Vec<String> {
        let what = format!("{} {}", package.name, package.version);
        let mut messages = Vec::new();
        let license = package.license.as_deref().unwrap_or("none that it names");
        if !self.allows(license) {
            messages.push(format!("{what} has a licence that is not on the list: {license}"));
        }
        let source = package.source.as_deref().unwrap_or("a folder");
        if !source.starts_with(REGISTRY) {
            messages.push(format!("{what} comes from {source}, and not from a registry"));
        }
        let refused = self.bans.deny.iter().find(|refused| refused.is(package));
        messages.extend(refused.map(|refused| format!("{what} is refused: {}", refused.reason)));
        messages
    }

    fn allows(&self, license: &str) -> bool {
        // Older crates write `A/B` where either will do.
        Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|wanted| self.licenses.allow.contains(&wanted.to_string()))
        })
    }

    /// Crates in several versions that nobody has thought about, and thoughts about some that are not here.
    fn versions(&self, packages: &[&Package]) -> Vec<String> {
        let mut left: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let skipped = |package: &Package| self.bans.skip.iter().any(|skip| skip.is(package));
        for package in packages.iter().filter(|package| !skipped(package)) {
            left.entry(&package.name).or_default().push(&package.version);
        }
        let several = left.into_iter().filter(|(_, versions)| versions.len() > 1);
        let several = several.map(|(name, versions)| {
            format!(
                "{name} is here in several versions, {}: list all but one with the reason",
                versions.join(" and ")
            )
        });
        let absent = (self.bans.skip.iter()).filter(|skip| !packages.iter().any(|package| skip.is(package)));
        let absent = absent.map(|skip| {
            format!(
                "{} is not here, and need not be listed ({})",
                skip.what, skip.reason
            )
        });
        several.chain(absent).collect()
    }
}

#[cfg(test)]
mod tests {
    //! What the lists do not allow is found, and nothing else.
    use super::*;
    use crate::crates::Resolve;

    const HERE: &str = "registry+https://crates.test/index";
    const LISTS: &str = r#"
        [licenses]
        allow = ["MIT", "ISC", "Apache-2.0"]
        [bans]
        deny = [{ crate = "openssl-sys", reason = "there is another" }]
        skip = [{ crate = "rand@0.8", reason = "an old friend" }]
    "#;

    fn package(name: &str, version: &str, license: &str, source: &str) -> Package {
        Package {
            id: format!("{name} {version}"),
            name: name.into(),
            version: version.into(),
            license: Some(license.into()),
            repository: None,
            source: Some(source.into()),
            manifest_path: String::new(),
        }
    }

    /// What is found if these are used, and another one is told of that nobody uses.
    fn judged(packages: Vec<Package>) -> Vec<String> {
        let version = |package: &Package| (package.name.clone(), package.version.clone());
        let used = packages.iter().map(version).collect();
        let stranger = package(
            "stranger",
            "1.0.0",
            "GPL-3.0-only",
            "git+https://git.test/stranger",
        );
        let metadata = Metadata {
            packages: packages.into_iter().chain([stranger]).collect(),
            workspace_members: BTreeSet::new(),
            resolve: Resolve { nodes: Vec::new() },
            workspace_root: String::new(),
        };
        judge(&metadata, &used, LISTS).unwrap()
    }

    fn found(mut packages: Vec<Package>) -> Vec<String> {
        packages.push(package("rand", "0.8.5", "MIT", HERE));
        judged(packages)
    }

    #[test]
    fn a_licence_is_good_if_one_of_those_to_choose_from_is_on_the_list() {
        for good in [
            "MIT",
            "MIT/GPL-2.0",
            "GPL-3.0-only OR (MIT AND ISC)",
            "Apache-2.0 AND MIT",
        ] {
            assert!(
                found(vec![package("a", "1.0.0", good, HERE)]).is_empty(),
                "{good}"
            );
        }
        for bad in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "LGPL-2.1-or-later",
            "Apache-2.0 WITH LLVM-exception",
            "whatever",
        ] {
            let found = found(vec![package("a", "1.0.0", bad, HERE)]);
            assert_eq!(
                found,
                [format!("a 1.0.0 has a licence that is not on the list: {bad}")]
            );
        }
        let mut silent = package("a", "1.0.0", "", HERE);
        silent.license = None;
        assert_eq!(found(vec![silent]).len(), 1);
    }

    #[test]
    fn a_crate_comes_from_the_registry_and_is_not_one_that_is_refused() {
        let from = |source| found(vec![package("a", "1.0.0", "MIT", source)]);
        let by_git = "a 1.0.0 comes from git+https://git.test/a, and not from a registry";
        assert_eq!(from("git+https://git.test/a"), [by_git]);
        let two = "crates come from several registries: registry+https://crates.test/index, registry+https://other.test/index";
        assert_eq!(from("registry+https://other.test/index"), [two]);
        let refused = found(vec![package("openssl-sys", "0.9.1", "MIT", HERE)]);
        assert_eq!(refused, ["openssl-sys 0.9.1 is refused: there is another"]);
    }

    #[test]
    fn a_second_version_has_to_be_listed_and_a_list_has_nothing_that_is_not_here() {
        let rand = |version| package("rand", version, "MIT", HERE);
        assert!(found(vec![rand("0.9.1")]).is_empty());
        assert_eq!(
            found(vec![rand("0.9.1"), rand("0.10.0")]),
            ["rand is here in several versions, 0.9.1 and 0.10.0: list all but one with the reason"]
        );
        let friend = "rand@0.8 is not here, and need not be listed (an old friend)";
        assert_eq!(judged(Vec::new()), [friend]);
    }

    #[test]
    fn a_version_is_named_by_its_beginning_up_to_a_dot() {
        let skip = |what: &str| Named {
            what: what.into(),
            reason: String::new(),
        };
        let is = |what, version| skip(what).is(&package("a", version, "MIT", HERE));
        assert!(is("a@0.1", "0.1.5") && is("a@0.1.5", "0.1.5") && is("a", "7.0.0"));
        assert!(!is("a@0.1", "0.10.5") && !is("b@0.1", "0.1.5"));
    }

    #[test]
    fn a_program_does_not_grow_beyond_what_can_be_looked_after() {
        assert_eq!(too_many(LINKED_MAX), None);
        assert!(too_many(LINKED_MAX + 1).is_some());
    }
}
