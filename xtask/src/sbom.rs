//! `cargo xtask sbom`: for each program a list of the crates that are in it and that it is built with, as `CycloneDX`: what an
//! operator compares with lists of known holes. It has no time and no number drawn by lot: the same sources make the same list.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::crates::{self, Metadata, Package, Version};
use crate::programs::{ATTACH, CINDER_API, ISCSI, NBD, STORAGECTL, STORAGED, VHOST_BLK};
use crate::workspace;

/// The form, which most that read such lists know.
const FORM: &str = "1.5";
/// What is shipped.
const PROGRAMS: [&str; 7] = [
    STORAGED.binary,
    VHOST_BLK.binary,
    NBD.binary,
    ATTACH.binary,
    ISCSI.binary,
    STORAGECTL.binary,
    CINDER_API.binary,
];

/// Writes the list of each program into `target/sbom`.
pub(crate) fn write_all() -> Result<()> {
    let folder = workspace::target().join("sbom");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let metadata = crates::metadata()?;
    let sums = checksums()?;
    for program in PROGRAMS {
        let list = list(program, &metadata, &sums)?;
        let path = folder.join(format!("{program}.cdx.json"));
        std::fs::write(&path, format!("{list:#}\n")).with_context(|| format!("write {}", path.display()))?;
        let count = list["components"].as_array().map_or(0, Vec::len);
        println!("{}: {count} crates", path.display());
    }
    Ok(())
}

/// What a crate is called in the list, and by everybody else who makes one.
fn reference(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{version}")
}

fn list(program: &str, metadata: &Metadata, sums: &BTreeMap<Version, String>) -> Result<Value> {
    let (linked, built) = (crates::linked(program)?, crates::built(program)?);
    let packages: Vec<&Package> = (metadata.packages.iter())
        .filter(|package| built.contains(&(package.name.clone(), package.version.clone())))
        .collect();
    let own = packages.iter().find(|package| package.name == program);
    let own = own.with_context(|| format!("{program} is no crate of this workspace"))?;
    let others = packages.iter().filter(|package| package.id != own.id);
    let components: Vec<Value> = others.map(|package| component(package, &linked, sums)).collect();
    let mut described = component(own, &linked, sums);
    described["type"] = "application".into();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": FORM,
        "version": 1,
        "metadata": {"component": described},
        "components": components,
        "dependencies": dependencies(metadata, &packages),
    }))
}

fn component(package: &Package, linked: &BTreeSet<Version>, sums: &BTreeMap<Version, String>) -> Value {
    let version = (package.name.clone(), package.version.clone());
    let reference = reference(&package.name, &package.version);
    let mut described = json!({
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "purl": reference,
        // The form's words for what is in the program, and for what only makes it.
        "scope": if linked.contains(&version) { "required" } else { "excluded" },
    });
    if let Some(license) = &package.license {
        described["licenses"] = json!([{"expression": license.replace(" / ", " OR ").replace('/', " OR ")}]);
    }
    if let Some(sum) = sums.get(&version) {
        described["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    }
    described
}

/// Who asks for whom, of those that are listed.
fn dependencies(metadata: &Metadata, packages: &[&Package]) -> Vec<Value> {
    let references: BTreeMap<&str, String> = (packages.iter())
        .map(|package| (package.id.as_str(), reference(&package.name, &package.version)))
        .collect();
    let nodes = metadata.resolve.nodes.iter();
    let listed = nodes.filter_map(|node| Some((references.get(node.id.as_str())?, node)));
    listed
        .map(|(from, node)| {
            let asked = node.deps.iter().filter(|dependency| {
                let not_tests = |kind: &crates::DependencyKind| kind.kind.as_deref() != Some("dev");
                dependency.dep_kinds.iter().any(not_tests)
            });
            let to: BTreeSet<&String> = asked
                .filter_map(|asked| references.get(asked.pkg.as_str()))
                .collect();
            json!({"ref": from, "dependsOn": to})
        })
        .collect()
}

/// The part of `Cargo.lock` that matters here.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The SHA-256 of what cargo fetches, of each crate of others.
fn checksums() -> Result<BTreeMap<Version, String>> {
    let text = std::fs::read_to_string(workspace::root().join("Cargo.lock")).context("read Cargo.lock")?;
    let lock: Lock = toml::from_str(&text).context("read Cargo.lock")?;
    let locked = lock.package.into_iter();
    Ok(locked
        .filter_map(|locked| Some(((locked.name, locked.version), locked.checksum?)))
        .collect())
}

#[cfg(test)]
mod tests {
    //! Somebody else's reader takes the list, and nothing that is in a program is missing in it.
    use cyclonedx_bom::models::component::Scope;
    use cyclonedx_bom::prelude::{Bom, Validate};

    use super::*;

    #[test]
    fn the_list_of_storaged_is_whole_and_is_what_the_form_says() {
        let metadata = crates::metadata().unwrap();
        let list = list("storaged", &metadata, &checksums().unwrap()).unwrap();
        let bom = Bom::parse_from_json_v1_5(list.to_string().as_bytes()).unwrap();
        let verdict = bom.validate();
        assert!(verdict.passed(), "{verdict:?}");
        let components = bom.components.unwrap().0;
        let required: BTreeSet<Version> = (components.iter())
            .filter(|component| component.scope == Some(Scope::Required))
            .map(|component| {
                (
                    component.name.to_string(),
                    component.version.as_ref().unwrap().to_string(),
                )
            })
            .collect();
        let mut linked = crates::linked("storaged").unwrap();
        linked.retain(|(name, _)| name != "storaged");
        assert_eq!(required, linked);
        let ours: BTreeSet<&str> = (metadata.packages.iter())
            .filter(|package| package.source.is_none())
            .map(|package| package.name.as_str())
            .collect();
        for component in components
            .iter()
            .filter(|component| !ours.contains(component.name.to_string().as_str()))
        {
            assert!(component.hashes.is_some(), "{} has no checksum", component.name);
            assert!(component.licenses.is_some(), "{} has no licence", component.name);
        }
    }
}
