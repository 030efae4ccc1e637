//! The Debian packages that guests need: QEMU and file system tools are installed, the guest's kernel
//! and its busybox are only fetched and unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A package, and a program by which one sees that it is installed.
pub type Need = (&'static str, &'static str);

/// QEMU's own iSCSI initiator, which is a module and no program.
pub const ISCSI_MODULE: &str = "/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so";

/// What guests need on this machine.
const INSTALLED: &[Need] = &[
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("qemu-utils", "qemu-img"),
    ("qemu-block-extra", ISCSI_MODULE),
    ("e2fsprogs", "mkfs.ext4"),
    ("kmod", "depmod"),
    ("xfsprogs", "mkfs.xfs"),
    ("fio", "fio"),
    ("sqlite3", "sqlite3"),
];

/// Packages that are built from one source with `qemu-utils`.
const WITH_QEMU: &[&str] = &["qemu-system-x86", "qemu-block-extra"];

/// Installs what guests need and what is missing, and says so.
pub fn install() -> Result<()> {
    ensure(INSTALLED)
}

/// Installs what is missing, and says so.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<&str> = needs
        .iter()
        .filter(|(_, program)| find(program).is_none())
        .map(|(package, _)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    println!(
        "These Debian packages are needed and missing, and are installed now: {}",
        missing.join(" ")
    );
    let mut install = as_root("apt-get")?;
    install.args(["-qq", "-y", "--no-install-recommends"]);
    let sources = tempfile::tempdir()?;
    run(as_root("apt-get")?.args(["-qq", "update"]))?;
    // QEMU's packages must all be of one version. If this machine has a newer qemu-utils, from
    // backports, the rest must come from there as well.
    let of_qemu = missing.iter().find(|package| WITH_QEMU.contains(package));
    if let Some(package) = of_qemu
        && !same_version("qemu-utils", package)?
    {
        let suite = add_backports(sources.path())?;
        let parts = format!("Dir::Etc::sourceparts={}", sources.path().display());
        run(as_root("apt-get")?.args(["-qq", "-o", &parts, "update"]))?;
        install.args(["-o", &parts, "-t", &suite]);
    }
    run(install.arg("install").args(missing))
}

/// Fetches a package and unpacks it into `into`. Nothing is installed and no script of it runs.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fetch = || {
        run(Command::new("apt-get")
            .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(folder.path()))
    };
    if fetch().is_err() {
        // The lists of packages may be missing or old.
        run(as_root("apt-get")?.args(["-qq", "update"]))?;
        fetch()?;
    }
    let file = fs::read_dir(folder.path())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get has fetched no package file for {package}"))?;
    fs::create_dir_all(into)?;
    run(Command::new("dpkg-deb").arg("-x").arg(file).arg(into))
}

/// The package that a package without content depends on and whose name begins with `prefix`.
pub fn dependency(package: &str, prefix: &str) -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", package])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .with_context(|| {
            format!("{package} depends on no package {prefix}...: is the list of packages there?")
        })
}

/// Where a program is, if it is installed. Looks into the system folders too, which are not in the
/// path of an ordinary user.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Whether the second package would be installed in the version that the first one has. True also if the
/// first one is not installed.
fn same_version(installed: &str, wanted: &str) -> Result<bool> {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", installed])
        .stderr(Stdio::null())
        .output()?;
    let version = String::from_utf8_lossy(&query.stdout).into_owned();
    if !query.status.success() || version.is_empty() {
        return Ok(true);
    }
    let policy = Command::new("apt-cache").args(["policy", wanted]).output()?;
    let policy = String::from_utf8_lossy(&policy.stdout);
    let candidate = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(candidate.is_some_and(|candidate| upstream(candidate) == upstream(&version)))
}

/// A Debian version without its revision.
fn upstream(version: &str) -> &str {
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

/// Writes the machine's own package sources into `folder`, and beside them the backports of the same
/// archive. Gives the name of their suite.
fn add_backports(folder: &Path) -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release does not name a Debian release")?;
    let suite = format!("{codename}-backports");
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    }
    let mut line = None;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        line = line.or_else(|| backports_line(&text, codename, &suite));
        if let Some(name) = file
            .file_name()
            .filter(|_| file.parent() != Some(Path::new("/etc/apt")))
        {
            fs::copy(&file, folder.join(name))?;
        }
    }
    let line = line.with_context(|| format!("no package source of this machine has the suite {codename}"))?;
    fs::write(folder.join("storaged-tests-backports.list"), line)?;
    Ok(suite)
}

/// A line for the suite `suite`, of the archive that offers `codename` according to a sources file of
/// either form.
fn backports_line(text: &str, codename: &str, suite: &str) -> Option<String> {
    let one_line = text.lines().find_map(|line| {
        let (head, tail) = line.strip_prefix("deb ")?.split_once(&format!(" {codename} "))?;
        Some(format!(
            "deb {head} {suite} {}\n",
            tail.split_whitespace().next()?
        ))
    });
    one_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                stanza
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                    .map(str::trim)
            };
            field("Suites")?
                .split_whitespace()
                .find(|name| *name == codename)?;
            let signed = field("Signed-By")
                .map(|key| format!("[signed-by={key}] "))
                .unwrap_or_default();
            Some(format!(
                "deb {signed}{} {suite} main\n",
                field("URIs")?.split_whitespace().next()?
            ))
        })
    })
}

fn as_root(program: &str) -> Result<Command> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else if find("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.args(["DEBIAN_FRONTEND=noninteractive", program]);
        sudo
    } else {
        bail!("installing packages needs root: run this as root, or install sudo, or install them by hand")
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("run {command:?}"))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{command:?} has failed: {status}")
    }
}

#[cfg(test)]
mod tests {
    //! The machine's own archive is found in either form of sources file.
    use super::*;

    #[test]
    fn the_backports_come_from_the_archive_that_the_machine_uses() {
        let deb822 = "Types: deb\n# a remark\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\n\
                      URIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(
            backports_line(deb822, "bookworm", "bookworm-backports").unwrap(),
            "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.test/debian bookworm-backports main\n"
        );
        let one_line = "# deb http://old.test/debian bookworm main\ndeb http://mirror.test/debian bookworm main contrib\n";
        assert_eq!(
            backports_line(one_line, "bookworm", "bookworm-backports").unwrap(),
            "deb http://mirror.test/debian bookworm-backports main\n"
        );
        assert_eq!(backports_line(deb822, "trixie", "trixie-backports"), None);
    }

    #[test]
    fn a_revision_does_not_make_another_version() {
        assert_eq!(
            upstream("1:10.0.2+ds-2+deb13u1~bpo12+1"),
            upstream("1:10.0.2+ds-3")
        );
        assert_ne!(upstream("1:7.2+dfsg-7+deb12u18+b3"), upstream("1:10.0.2+ds-2"));
    }
}
