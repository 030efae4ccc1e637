//! `DEBIAN/control`: what is in `packaging/`, with the version, the size, and the libraries that the programs are linked with.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::contents::Contents;
use super::moment::output;
use super::tree::Tree;
use crate::workspace;

/// What `dpkg-shlibdeps` wants to find, although all it takes from it is that there is one.
const SOURCE: &str = "Source: storaged\n\nPackage: storaged\nArchitecture: any\n";

/// The text of a package whose programs lie in `tree`, `installed`.
pub(super) fn fill(contents: &Contents, tree: &Tree, installed: &[String], version: &str) -> Result<String> {
    let path = workspace::root().join(contents.folder).join("control");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", &architecture()?)
        .replace("@SIZE@", &tree.size()?.to_string())
        .replace("@LIBRARIES@", &libraries(tree, installed)?))
}

/// What the machine is, as Debian calls it.
pub(super) fn architecture() -> Result<String> {
    Ok(output(Command::new("dpkg").arg("--print-architecture"))?
        .trim()
        .to_owned())
}

/// The packages of the libraries that programs are linked with, each with its least version.
fn libraries(tree: &Tree, programs: &[String]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("debian"))?;
    std::fs::write(folder.path().join("debian/control"), SOURCE)?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").current_dir(folder.path());
    for program in programs {
        command.arg(format!("-e{}", tree.at(program).display()));
    }
    let line = output(&mut command)?;
    let depends = line
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .context("dpkg-shlibdeps does not say which libraries the programs need")?;
    Ok(depends.to_owned())
}
