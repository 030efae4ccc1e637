//! What belongs to which package, and where it lies.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::moment::{Moment, output};
use super::tree::{FILE, PROGRAM, Tree, stripped};
use super::{changelog, manual, third_parties};
use crate::workspace;

const UNITS: &str = "usr/lib/systemd/system";

/// A package.
pub(super) struct Contents {
    pub(super) name: &'static str,
    /// Its own folder: control, scripts, users.
    pub(super) folder: &'static str,
    /// Programs: what they are built as, what they are installed as, and where their manual belongs.
    programs: &'static [(&'static str, &'static str, Section)],
    /// Files of the repository, and the folders that they are put into.
    files: &'static [(&'static str, &'static str)],
    /// Folders that are there and empty.
    folders: &'static [&'static str],
}

/// Which part of the manual a program belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    /// For operators: made of what the program says of itself.
    Eight,
    /// `storagectl` writes its own pages, a page a command.
    Own,
}

/// What a node runs.
pub(super) const STORAGED: &Contents = &Contents {
    name: "storaged",
    folder: "packaging/storaged",
    programs: &[
        ("storaged", "storaged", Section::Eight),
        ("vhost-blk", "vhost-blk", Section::Eight),
        ("storaged-nbd", "storaged-nbd", Section::Eight),
        ("storaged-iscsi", "storaged-iscsi", Section::Eight),
        ("storaged-attach", "storaged-attach", Section::Eight),
        ("storagectl", "storagectl", Section::Own),
    ],
    files: &[
        ("storaged/systemd/storaged.service", UNITS),
        ("vhost-blk/systemd/storaged-vhost-blk@.service", UNITS),
        ("vhost-blk/systemd/storaged-vhost-blk@.socket", UNITS),
        ("gateways/nbd/systemd/storaged-nbd@.service", UNITS),
        ("gateways/iscsi/systemd/storaged-iscsi.service", UNITS),
        ("gateways/attach/systemd/storaged-attach.service", UNITS),
        ("gateways/attach/systemd/storaged-attach-nbd.service", UNITS),
        ("gateways/attach/systemd/storaged-attach-mounts.service", UNITS),
        ("packaging/storaged/examples", "usr/share/doc/storaged/examples"),
        ("docs/operations/cluster.md", "usr/share/doc/storaged"),
        ("docs/operations/hypervisors.md", "usr/share/doc/storaged"),
        ("docs/operations/packages.md", "usr/share/doc/storaged"),
        ("docs/operations/upgrade.md", "usr/share/doc/storaged"),
    ],
    folders: &["etc/storaged/nbd", "etc/storaged/vhost"],
};

/// OpenStack's door. Debian's Cinder has a `/usr/bin/cinder-api` of its own, and both may be installed side by side.
pub(super) const CINDER: &Contents = &Contents {
    name: "storaged-cinder-api",
    folder: "packaging/cinder-api",
    programs: &[("cinder-api", "storaged-cinder-api", Section::Eight)],
    files: &[
        ("cinder-api/systemd/storaged-cinder-api.service", UNITS),
        (
            "packaging/cinder-api/examples",
            "usr/share/doc/storaged-cinder-api/examples",
        ),
        (
            "docs/operations/openstack.md",
            "usr/share/doc/storaged-cinder-api",
        ),
    ],
    folders: &["etc/storaged"],
};

/// Scripts that dpkg runs, where a package has them.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

impl Contents {
    /// Programs without what debuggers want. The answer is where they lie.
    pub(super) fn install_programs(&self, tree: &mut Tree, programs: &Path) -> Result<Vec<String>> {
        let mut installed = Vec::new();
        for (built, name, _) in self.programs {
            let program = stripped(&programs.join(built))?;
            let place = format!("usr/bin/{name}");
            tree.put(&place, &program, PROGRAM)?;
            installed.push(place);
        }
        Ok(installed)
    }

    /// Units, examples, users and folders.
    pub(super) fn install_files(&self, tree: &mut Tree) -> Result<()> {
        for (source, folder) in self.files {
            let path = workspace::root().join(source);
            if path.is_dir() {
                for entry in fs::read_dir(&path).with_context(|| format!("read {source}"))? {
                    install(tree, &entry?.path(), folder)?;
                }
            } else {
                install(tree, &path, folder)?;
            }
        }
        for folder in self.folders {
            tree.folder(folder)?;
        }
        let places = [
            ("sysusers.conf", format!("usr/lib/sysusers.d/{}.conf", self.name)),
            ("tmpfiles.conf", format!("usr/lib/tmpfiles.d/{}.conf", self.name)),
            (
                "lintian-overrides",
                format!("usr/share/lintian/overrides/{}", self.name),
            ),
        ];
        for (source, place) in places {
            let path = workspace::root().join(self.folder).join(source);
            if path.is_file() {
                tree.put(&place, &read(&path)?, FILE)?;
            }
        }
        Ok(())
    }

    /// The manual, what shells complete, what has changed, and whose it is.
    pub(super) fn install_documents(
        &self,
        tree: &mut Tree,
        programs: &Path,
        version: &str,
        moment: Moment,
    ) -> Result<()> {
        let documents = format!("usr/share/doc/{}", self.name);
        let root = workspace::root();
        tree.put(
            &format!("{documents}/copyright"),
            &read(&root.join("packaging/copyright"))?,
            FILE,
        )?;
        tree.put(
            &format!("{documents}/third-party.txt"),
            third_parties::list(self.programs.iter().map(|(built, ..)| *built))?.as_bytes(),
            FILE,
        )?;
        let changes = fs::read_to_string(root.join("CHANGELOG.md")).context("read CHANGELOG.md")?;
        let changes = changelog::debian(&changes, self.name, version, &moment.in_mails()?);
        tree.put_compressed(&format!("{documents}/changelog"), changes.as_bytes())?;
        for (built, name, section) in self.programs {
            let program = programs.join(built);
            match section {
                Section::Eight => {
                    let page = manual::page(&program, name, version, &moment.day()?)?;
                    tree.put_compressed(&format!("usr/share/man/man8/{name}.8"), page.as_bytes())?;
                }
                Section::Own => install_own_manual(tree, &program)?,
            }
        }
        Ok(())
    }

    /// What dpkg reads and runs.
    pub(super) fn install_scripts(&self, tree: &mut Tree, control: &str) -> Result<()> {
        tree.put("DEBIAN/control", control.as_bytes(), FILE)?;
        for script in SCRIPTS {
            let path = workspace::root().join(self.folder).join(script);
            if path.is_file() {
                tree.put(&format!("DEBIAN/{script}"), &read(&path)?, PROGRAM)?;
            }
        }
        Ok(())
    }
}

fn install(tree: &mut Tree, source: &Path, folder: &str) -> Result<()> {
    let name = source
        .file_name()
        .context("a file has no name")?
        .to_string_lossy();
    tree.put(&format!("{folder}/{name}"), &read(source)?, FILE)
}

/// `storagectl`'s pages and completions, as it writes them.
fn install_own_manual(tree: &mut Tree, storagectl: &Path) -> Result<()> {
    let pages = tempfile::tempdir()?;
    output(Command::new(storagectl).arg("man").arg(pages.path()))?;
    for entry in fs::read_dir(pages.path())? {
        let page = entry?.path();
        let name = page
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        tree.put_compressed(&format!("usr/share/man/man1/{name}"), &read(&page)?)?;
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/storagectl"),
        ("zsh", "usr/share/zsh/vendor-completions/_storagectl"),
        ("fish", "usr/share/fish/vendor_completions.d/storagectl.fish"),
    ] {
        let script = output(Command::new(storagectl).args(["completion", shell]))?;
        tree.put(place, script.as_bytes(), FILE)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
