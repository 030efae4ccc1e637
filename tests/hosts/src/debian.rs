//! Debian as hosts have it: a root made by debootstrap from the machine's own archive, kept for later runs, and a folder
//! with the packages that roles install, as a repository. It does not know who installs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use vm_tests::packages::{Need, ensure};

use crate::inside::finish;

/// What makes hosts, on this machine.
const TOOLS: &[Need] = &[
    ("debootstrap", "debootstrap"),
    ("systemd-container", "systemd-nspawn"),
    ("dpkg-dev", "dpkg-scanpackages"),
    ("openssh-client", "ssh-keygen"),
    ("xfsprogs", "mkfs.xfs"),
    ("iproute2", "ip"),
];
/// What every host has from the beginning: what a server that Ansible may use has.
const INCLUDED: &str = "systemd,systemd-sysv,dbus,openssh-server,python3,python3-apt,iproute2,procps,\
                        ca-certificates,openssl,e2fsprogs,xfsprogs,util-linux,udev,kmod";
/// What the roles install out of Debian, with all that it depends on.
const INSTALLED: &[&str] = &[
    "etcd-server",
    "etcd-client",
    "prometheus",
    "prometheus-node-exporter",
    "socat",
    "libnbd-bin",
    "qemu-utils",
    "perl",
    "libjson-perl",
];
/// The names of the folders here say what they were made of: a change of the lists above makes new ones.
const EDITION: u32 = 4;
/// In a folder that is whole, there is this file.
const MARK_OF_WHOLE: &str = ".whole";
/// Where a root keeps what apt has fetched.
const ARCHIVES: &str = "var/cache/apt/archives";

/// A root and its repository.
pub(crate) struct Debian {
    /// Nobody writes into it.
    pub(crate) root: PathBuf,
    /// What Debian's archive is for hosts.
    pub(crate) repository: PathBuf,
}

impl Debian {
    /// Makes what is not there yet in `cache`, which takes two minutes.
    pub(crate) fn prepare(cache: &Path) -> Result<Self> {
        ensure(TOOLS)?;
        let root = cache.join(format!("root-{EDITION}"));
        let repository = cache.join(format!("repository-{EDITION}"));
        if !root.join(MARK_OF_WHOLE).exists() || !repository.join(MARK_OF_WHOLE).exists() {
            for folder in [&root, &repository] {
                if folder.exists() {
                    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
                }
                fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            }
            make(&root, &repository)?;
        }
        Ok(Self { root, repository })
    }
}

fn make(root: &Path, repository: &Path) -> Result<()> {
    let (archive, suite) = archive()?;
    println!("A Debian root is made now, in {}", root.display());
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .arg("--variant=minbase")
        .arg(format!("--include={INCLUDED}"));
    finish(debootstrap.arg(&suite).arg(root).arg(&archive)).context("make a Debian root")?;
    // Names are looked up, and certificates known, as on this machine.
    let _ = fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"));
    let inside = |arguments: &[&str]| finish(Command::new("chroot").arg(root).args(arguments));
    inside(&["apt-get", "-qq", "update"])?;
    let fetch = [
        "apt-get",
        "-qq",
        "-y",
        "--no-install-recommends",
        "--download-only",
        "install",
    ];
    inside(&[&fetch[..], INSTALLED].concat()).context("fetch what roles install")?;
    for entry in fs::read_dir(root.join(ARCHIVES))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb")
            && let Some(name) = path.file_name()
        {
            fs::copy(&path, repository.join(name))?;
        }
    }
    inside(&["sh", "-c", "apt-get clean; rm -rf /var/lib/apt/lists/*"])?;
    index(repository)?;
    // From here on, the repository is the only archive there is. A machine's identity is its own, too.
    fs::write(
        root.join("etc/apt/sources.list"),
        "deb [trusted=yes] file:/srv/debian ./\n",
    )?;
    fs::write(root.join("etc/machine-id"), "")?;
    fs::remove_file(root.join("etc/resolv.conf"))?;
    for folder in [root, repository] {
        fs::write(folder.join(MARK_OF_WHOLE), "")?;
    }
    Ok(())
}

/// Makes a repository of a folder with packages.
pub(crate) fn index(folder: &Path) -> Result<()> {
    let list = finish(
        Command::new("dpkg-scanpackages")
            .args(["--multiversion", "."])
            .current_dir(folder),
    )?;
    fs::write(folder.join("Packages"), format!("{list}\n")).context("write a repository's list")
}

/// The archive that this machine has its packages from, and the release's name.
fn archive() -> Result<(String, String)> {
    let release = fs::read_to_string("/etc/os-release")?;
    let field = |name: &str| release.lines().find_map(|line| line.strip_prefix(name));
    let suite = field("VERSION_CODENAME=").context("/etc/os-release does not name a Debian release")?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    }
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        if let Some(archive) = archive_of(&text, suite) {
            return Ok((archive, suite.to_owned()));
        }
    }
    bail!("no package source of this machine has the suite {suite}")
}

/// The address in a sources file of either form that offers `suite`.
fn archive_of(text: &str, suite: &str) -> Option<String> {
    let one_line = text.lines().find_map(|line| {
        let (head, _) = line.strip_prefix("deb ")?.split_once(&format!(" {suite} "))?;
        head.split_whitespace().last().map(str::to_owned)
    });
    one_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
                stanza.lines().find_map(value)
            };
            field("Suites")?.split_whitespace().find(|name| *name == suite)?;
            field("URIs")?.split_whitespace().next().map(str::to_owned)
        })
    })
}

#[cfg(test)]
mod tests {
    //! The machine's own archive is found in either form of sources file.
    use super::*;

    #[test]
    fn the_archive_is_the_one_that_offers_the_release() {
        let both = "Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\n\n\
                    Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n";
        assert_eq!(archive_of(both, "bookworm").unwrap(), "http://mirror.test/debian");
        let line = "deb [signed-by=/k.gpg] http://mirror.test/debian bookworm main\n";
        assert_eq!(archive_of(line, "bookworm").unwrap(), "http://mirror.test/debian");
        assert_eq!(archive_of(line, "trixie"), None);
    }
}
