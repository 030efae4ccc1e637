//! Our own packages as a repository that hosts install from: those that were built, and the same or older ones under
//! another version, which an upgrade begins or ends with. It does not know what is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian::index;
use crate::inside::finish;
use crate::roll_out::proxmox;

/// What is put behind a version to make it a later one.
const LATER: &str = "+later1";

/// A folder with our packages in two versions.
pub(crate) struct Packages {
    pub(crate) repository: PathBuf,
    /// What hosts begin with.
    pub(crate) first: String,
    /// What they are upgraded to.
    pub(crate) second: String,
}

impl Packages {
    /// Takes the packages in `built`. If there are older ones, hosts begin with these; else they begin with what was built,
    /// and are upgraded to the same under a later version.
    pub(crate) fn gather(built: &Path, older: Option<&Path>, repository: &Path) -> Result<Self> {
        if repository.exists() {
            fs::remove_dir_all(repository).with_context(|| format!("remove {}", repository.display()))?;
        }
        fs::create_dir_all(repository).with_context(|| format!("make {}", repository.display()))?;
        let newer = take(built, repository)?;
        let main = |list: &[PathBuf]| version_of_storaged(list);
        let (first, second) = if let Some(older) = older {
            let older = take(older, repository)?;
            (main(&older)?, main(&newer)?)
        } else {
            let version = main(&newer)?;
            for package in &newer {
                repack(package, repository)?;
            }
            (version.clone(), format!("{version}{LATER}"))
        };
        ensure!(
            first != second,
            "both versions of our packages are called {first}"
        );
        proxmox::stand_in(repository)?;
        index(repository)?;
        Ok(Self {
            repository: repository.to_owned(),
            first,
            second,
        })
    }
}

/// Copies all packages of a folder; the answer is where they are now.
fn take(folder: &Path, into: &Path) -> Result<Vec<PathBuf>> {
    let mut taken = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let to = into.join(path.file_name().context("a package without a name")?);
            fs::copy(&path, &to)?;
            taken.push(to);
        }
    }
    taken.sort();
    Ok(taken)
}

fn version_of_storaged(packages: &[PathBuf]) -> Result<String> {
    for package in packages {
        if field(package, "Package")? == "storaged" {
            return field(package, "Version");
        }
    }
    anyhow::bail!("there is no package storaged: cargo xtask package makes it")
}

fn field(package: &Path, name: &str) -> Result<String> {
    finish(Command::new("dpkg-deb").arg("--field").arg(package).arg(name))
}

/// The same package under a later version.
fn repack(package: &Path, into: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    finish(Command::new("dpkg-deb").arg("-R").arg(package).arg(&root))?;
    let control = root.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let later: Vec<String> = text.lines().map(later_line).collect();
    fs::write(&control, later.join("\n") + "\n")?;
    // Fast rather than small: it lives for one run.
    let mut build = Command::new("dpkg-deb");
    finish(
        build
            .args(["--root-owner-group", "-Zgzip", "-z1", "-b"])
            .arg(&root)
            .arg(into),
    )
    .map(drop)
}

fn later_line(line: &str) -> String {
    if line.starts_with("Version: ") {
        format!("{line}{LATER}")
    } else {
        line.to_owned()
    }
}
