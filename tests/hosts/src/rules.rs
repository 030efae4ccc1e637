//! What can be judged without hosts: whether ansible-lint and promtool are content, whether every variable of a role is
//! specified, and whether alerts and dashboard ask for figures that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use test_openstack::environment::Environment;
use vm_tests::packages::unpack;

use crate::inside::finish;
use crate::{Step, step};

/// Where alerts and dashboard are, in the collection.
const FILES: &str = "roles/monitoring/files";
/// What figures of ours begin with.
const PREFIXES: [&str; 4] = ["storaged_", "vhost_blk_", "cinder_api_", "node_textfile_"];
/// Figures that the roll-out itself makes, or that the node exporter has.
const OTHERS: [&str; 2] = ["storaged_collected", "node_textfile_mtime_seconds"];
/// What Prometheus adds to a histogram's name.
const SUFFIX: &str = "_bucket";

/// All of it. What is fetched for it is kept in `folder`.
pub(crate) fn all((environment, collection): &(Environment, PathBuf), folder: &Path) -> Vec<Step> {
    vec![
        step("ansible-lint, profile production", || {
            lint(environment, collection)
        }),
        step("every variable of a role is specified", || specified(collection)),
        step("promtool on the alerts", || alerts(collection, folder)),
        step("what each alert means is told, and of no other", || {
            told(collection)
        }),
        step("alerts and dashboard ask for figures that there are", || {
            figures(collection)
        }),
    ]
}

/// In a copy: it writes beside what it reads.
fn lint(environment: &Environment, collection: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("collections/ansible_collections/storaged");
    fs::create_dir_all(&place)?;
    let copy = place.join("storaged");
    finish(Command::new("cp").arg("-r").arg(collection).arg(&copy))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut lint = Command::new(environment.program("ansible-lint"));
    lint.args(["--offline", "--profile", "production", "--nocolor"])
        .current_dir(&copy)
        .env("PATH", format!("{}:{path}", environment.program("").display()))
        .env("ANSIBLE_HOME", folder.path().join("home"))
        .env("ANSIBLE_COLLECTIONS_PATH", folder.path().join("collections"))
        .env("LC_ALL", "C.UTF-8");
    finish(&mut lint).map(drop)
}

/// Every default has a line in the role's specification.
fn specified(collection: &Path) -> Result<()> {
    let mut counted = 0;
    for role in fs::read_dir(collection.join("roles"))? {
        let role = role?.path();
        let defaults = read(&role.join("defaults/main.yml"))?;
        let specification = read(&role.join("meta/argument_specs.yml"))?;
        for name in defaults.lines().filter_map(|line| variable(line)) {
            ensure!(
                specification.contains(&format!("\n      {name}:\n")),
                "{name} of the role {} is not specified",
                role.display()
            );
            counted += 1;
        }
    }
    ensure!(counted > 0, "no role has variables");
    Ok(())
}

fn variable(line: &str) -> Option<&str> {
    let (name, _) = line.split_once(':')?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_name(name).then_some(name)
}

/// The promtool of Debian's package, which is not installed for that: it would be started at once.
fn alerts(collection: &Path, folder: &Path) -> Result<()> {
    let place = folder.join("prometheus");
    let promtool = place.join("usr/bin/promtool");
    if !promtool.is_file() {
        unpack("prometheus", &place)?;
    }
    let mut check = Command::new(promtool);
    check.args(["check", "rules", "--lint-fatal"]);
    finish(check.arg(collection.join(FILES).join("alerts.yml"))).map(drop)
}

/// The documents tell of each alert what it means and what to do, and of none that there is not.
fn told(collection: &Path) -> Result<()> {
    let documents = collection.with_file_name("docs").join("operations/alerts.md");
    let (rules, document) = (
        read(&collection.join(FILES).join("alerts.yml"))?,
        read(&documents)?,
    );
    let ruled = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let ruled: BTreeSet<&str> = ruled.collect();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    ensure!(!ruled.is_empty(), "there are no alerts");
    ensure!(
        ruled == told,
        "of {:?} one side only knows",
        ruled.symmetric_difference(&told).collect::<Vec<_>>()
    );
    Ok(())
}

/// Each figure that is asked for is one that the documents, which are compared with what processes serve, name.
fn figures(collection: &Path) -> Result<()> {
    let documents = collection.with_file_name("docs").join("operations/metrics.md");
    let known = known(&read(&documents)?);
    ensure!(!known.is_empty(), "{} names no figures", documents.display());
    for file in ["alerts.yml", "dashboard.json"] {
        let asked = asked(&read(&collection.join(FILES).join(file))?);
        ensure!(!asked.is_empty(), "{file} asks for nothing");
        let unknown: Vec<&String> = asked.iter().filter(|name| !known.contains(*name)).collect();
        ensure!(
            unknown.is_empty(),
            "{file} asks for figures that there are not: {unknown:?}"
        );
    }
    Ok(())
}

/// The names in a document's tables; of histograms, also what Prometheus makes of them.
fn known(document: &str) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = OTHERS.map(str::to_owned).into();
    for line in document.lines().filter_map(|line| line.strip_prefix("| `")) {
        let Some((name, rest)) = line.split_once('`') else {
            continue;
        };
        names.insert(if rest.starts_with(" | histogram") {
            format!("{name}{SUFFIX}")
        } else {
            name.to_owned()
        });
    }
    names
}

/// The names of figures in a text.
fn asked(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    //! A figure that is gone from the product must be missed here.
    use super::*;

    #[test]
    fn names_are_read_from_tables_and_expressions() {
        let known =
            known("| `storaged_disk_up` | gauge |\n| `vhost_blk_request_seconds` | histogram | `volume` |\n");
        assert!(known.contains("storaged_disk_up"));
        assert!(known.contains("vhost_blk_request_seconds_bucket"));
        assert!(!known.contains("vhost_blk_request_seconds"));
        let asked =
            asked("sum(rate(storaged_disk_upp[5m])) and \"uid\": \"storaged\" and up{job=\"storaged\"}");
        assert_eq!(asked, BTreeSet::from(["storaged_disk_upp".to_owned()]));
        assert!(!known.contains("storaged_disk_upp"));
    }

    #[test]
    fn a_default_is_known_by_its_line() {
        assert_eq!(variable("etcd_name: x"), Some("etcd_name"));
        assert_eq!(variable("  - name: x"), None);
        assert_eq!(variable("---"), None);
    }
}
