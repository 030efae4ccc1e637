//! What is tested of the packages: that they are the same whenever they are built, what lintian says, and what they do when they
//! are installed, run, upgraded and removed in a Debian of their own (`packaging/trial`).
//!
//! Knows nothing of what belongs into them.

mod root;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Name, Options, package};
use crate::programs::{self, ATTACH, CINDER_API, PRODUCT, Profile};
use crate::tally::Tally;
use crate::{debian, process, workspace};

use root::Root;

/// The versions of the trial: both are higher than what a machine may have installed, and the second is the higher one.
const VERSIONS: [&str; 2] = ["90.1", "90.2"];
/// How long the trial under systemd may take, in seconds.
const BOOTED_LIMIT: u32 = 300;
/// How often it is looked whether the trial is over.
const NEWS_EVERY: Duration = Duration::from_millis(200);
/// What a service manager must have heard from `storaged`, in this order.
const NEWS: [&str; 4] = ["STATUS=waits for records", "READY=1", "WATCHDOG=1", "STOPPING=1"];

/// Builds the packages of programs of this profile, and tries them out. Needs root.
pub(crate) fn trial(profile: Profile) -> Result<Tally> {
    debian::ensure(debian::LINTIAN)?;
    debian::ensure(debian::DEBOOTSTRAP)?;
    debian::fetch_etcd()?;
    let programs = programs::build(profile, &[PRODUCT, &[ATTACH, CINDER_API]].concat())?;
    let folder = tempfile::tempdir_in(workspace::target())?;
    let mut tally = Tally::default();
    let built = |name: &str, version: &str| -> Result<Vec<PathBuf>> {
        let into = folder.path().join(name);
        package(&Options {
            names: Vec::new(),
            programs: Some(programs.clone()),
            version: Some(version.to_owned()),
            into: Some(into.clone()),
            quick: true,
        })?;
        packages(&into)
    };
    let first = built("first", VERSIONS[0])?;
    let again = built("again", VERSIONS[0])?;
    check(
        &mut tally,
        "three packages",
        first.len() == Name::ALL && again.len() == Name::ALL,
    );
    for (package, same) in first.iter().zip(&again) {
        let what = format!("{} built again is the same", package.display());
        check(&mut tally, &what, fs::read(package)? == fs::read(same)?);
        let what = format!("lintian finds nothing in {}", package.display());
        check(&mut tally, &what, lintian(package)?);
    }
    let second = built("second", VERSIONS[1])?;
    let all = [first, second].concat();
    tally.add(inside(&furnished(&all)?)?);
    tally.add(booted(&furnished(&all)?)?);
    Ok(tally)
}

/// A Debian with the packages, and what tries them out.
fn furnished(packages: &[PathBuf]) -> Result<Root> {
    let root = Root::new()?;
    let trial = root.folder("trial")?;
    let scripts =
        ["checks", "inside", "booted"].map(|name| workspace::root().join("packaging/trial").join(name));
    for file in packages.iter().chain(&scripts).chain([&debian::etcd()?]) {
        let name = file.file_name().context("a file has no name")?;
        fs::copy(file, trial.join(name)).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(root)
}

/// Without a systemd, whose part is played here.
fn inside(root: &Root) -> Result<Tally> {
    let (inside, news) = listen(&root.folder("trial")?.join("news"), || {
        programs::count(
            root.command("/trial/inside")
                .env("FIRST", VERSIONS[0])
                .env("SECOND", VERSIONS[1]),
        )
    })?;
    let mut tally = inside?;
    let mut words = news.iter();
    for wanted in NEWS {
        let what = format!("a service manager hears {wanted}");
        check(&mut tally, &what, words.any(|word| word.contains(wanted)));
    }
    Ok(tally)
}

/// With a systemd: a unit runs the trial, and ends the machine with itself.
fn booted(root: &Root) -> Result<Tally> {
    let [first, second] = VERSIONS;
    let unit = format!(
        "[Unit]\nSuccessAction=poweroff-force\nFailureAction=poweroff-force\n[Service]\nType=oneshot\n\
         Environment=FIRST={first} SECOND={second} LC_ALL=C DEBIAN_FRONTEND=noninteractive\nExecStart=/trial/booted\n\
         StandardOutput=file:/trial/result\nStandardError=inherit\nTimeoutStartSec={BOOTED_LIMIT}\n"
    );
    let units = root.folder("etc/systemd/system")?;
    fs::write(units.join("trial.service"), unit)?;
    let wants = root.folder("etc/systemd/system/multi-user.target.wants")?;
    std::os::unix::fs::symlink("../trial.service", wants.join("trial.service"))?;
    root.boot(BOOTED_LIMIT)?;
    let result = fs::read_to_string(root.folder("trial")?.join("result"))
        .context("the Debian has not booted, or its systemd has not begun with the trial")?;
    print!("{result}");
    Tally::find(&result).context("the trial under systemd was cut off")
}

/// Counts, and says what is wrong.
fn check(tally: &mut Tally, what: &str, good: bool) {
    if !good {
        println!("FAILED: {what}");
    }
    tally.record(good);
}

/// The packages in a folder, in order.
fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    found.sort();
    Ok(found)
}

/// Whether Debian's own judge has neither errors nor warnings.
fn lintian(package: &Path) -> Result<bool> {
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--allow-root", "--fail-on", "error,warning"])
        .arg(package);
    Ok(process::run_and_read(&mut lintian)?.1)
}

/// Does something while a service manager listens at `path`. The answer is what that did, and what was said.
fn listen<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<(T, Vec<String>)> {
    let socket = UnixDatagram::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    socket.set_read_timeout(Some(NEWS_EVERY))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let mut heard = Vec::new();
            let mut word = [0; 4096];
            loop {
                match socket.recv(&mut word) {
                    Ok(length) => heard.push(String::from_utf8_lossy(&word[..length]).into_owned()),
                    Err(_) if over.load(Ordering::Relaxed) => return heard,
                    Err(_) => {}
                }
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        let heard = listener.join();
        ensure!(heard.is_ok(), "the listener ended in a panic");
        Ok((done, heard.unwrap_or_default()))
    })
}
