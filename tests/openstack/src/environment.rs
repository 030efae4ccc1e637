//! Python environments: a list of exact versions becomes a folder of programs, made once and used by all later runs. It does
//! not know what the programs do.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

/// The lists, by name.
const REQUIREMENTS: &[(&str, &str)] = &[
    ("keystone", include_str!("../requirements/keystone.txt")),
    ("clients", include_str!("../requirements/clients.txt")),
    ("tempest", include_str!("../requirements/tempest.txt")),
    ("cinder", include_str!("../requirements/cinder.txt")),
    ("nova", include_str!("../requirements/nova.txt")),
    ("glance", include_str!("../requirements/glance.txt")),
    ("swift", include_str!("../requirements/swift.txt")),
    ("barbican", include_str!("../requirements/barbican.txt")),
    ("schemathesis", include_str!("../requirements/schemathesis.txt")),
    ("ansible", include_str!("../requirements/ansible.txt")),
];

/// In a folder that cargo builds in, there is this file.
const MARK_OF_TARGET: &str = "CACHEDIR.TAG";
/// In an environment that is whole, there is this file.
const MARK_OF_WHOLE: &str = "whole";
/// The most bytes of a program's words that are shown when it failed.
const SAID_SHOWN_MAX: usize = 4000;

/// A folder with an interpreter, and programs for it.
#[derive(Clone, Debug)]
pub struct Environment {
    folder: PathBuf,
}

impl Environment {
    /// The environment of a list: `keystone`, `clients`, `tempest`, `cinder`, `nova`, `glance`, `swift`, `barbican`,
    /// `schemathesis` or `ansible`. Made now if it is not there, which takes a
    /// minute; who else wants it meanwhile waits.
    pub fn of(name: &str) -> Result<Self> {
        let list = REQUIREMENTS.iter().find(|(known, _)| *known == name);
        let (_, requirements) = list.with_context(|| format!("there is no list of requirements {name:?}"))?;
        Self::made_in(&cache()?, name, requirements)
    }

    fn made_in(cache: &Path, name: &str, requirements: &str) -> Result<Self> {
        let python = interpreter()?;
        let identity = Uuid::new_v5(
            &Uuid::NAMESPACE_OID,
            format!("{python}\n{requirements}").as_bytes(),
        );
        let folder = cache.join(format!("{name}-{}", identity.simple()));
        let _lock = lock(cache, name)?;
        if !folder.join(MARK_OF_WHOLE).exists() {
            install(&folder, name, requirements)?;
        }
        Ok(Self { folder })
    }

    /// Where one of its programs is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Runs one of its programs, in a folder, which must succeed; gives what it printed.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        inside: &Path,
    ) -> Result<String> {
        let mut command = Command::new(self.program(name));
        finish(command.args(arguments).current_dir(inside))
    }

    /// Where its packages are.
    pub fn packages(&self) -> Result<PathBuf> {
        let print = "import sysconfig; print(sysconfig.get_path('purelib'))";
        finish(Command::new(self.program("python")).args(["-c", print])).map(|said| said.trim().into())
    }

    /// Its folder: what is made by its programs once for all may be kept in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Keeps others from making the same thing in the same place until the file is dropped.
pub(crate) fn lock(folder: &Path, name: &str) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(format!("{name}.lock"));
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Where environments are kept: beside what cargo builds, else in `target`.
fn cache() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let built = program
        .ancestors()
        .find(|folder| folder.join(MARK_OF_TARGET).exists());
    let target = match built {
        Some(folder) => folder.to_owned(),
        None => std::env::current_dir()?.join("target"),
    };
    Ok(target.join("openstack"))
}

/// Which Python there is.
fn interpreter() -> Result<String> {
    finish(Command::new("python3").arg("--version"))
        .map(|said| said.trim().to_owned())
        .context("Python is needed, with its venv module: install python3-venv")
}

fn install(folder: &Path, name: &str, requirements: &str) -> Result<()> {
    if folder.exists() {
        // Somebody was interrupted.
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    eprintln!(
        "The Python programs of {name} are installed now, in {}",
        folder.display()
    );
    finish(Command::new("python3").args(["-m", "venv"]).arg(folder))
        .context("make a Python environment: install python3-venv")?;
    let list = folder.join("requirements.txt");
    fs::write(&list, requirements)?;
    let pip = folder.join("bin/pip");
    let mut command = Command::new(pip);
    command.args([
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--disable-pip-version-check",
    ]);
    // The lists hold all that is needed. Nothing is compiled: that would need compilers and headers.
    command
        .args(["--only-binary", ":all:", "--requirement"])
        .arg(&list);
    finish(&mut command).with_context(|| format!("install the requirements of {name}"))?;
    fs::write(folder.join(MARK_OF_WHOLE), "").context("mark the environment as whole")
}

/// Runs a program that must succeed; gives what it printed.
pub(crate) fn finish(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        said(&output)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The end of what a program said.
fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    let from = all.len().saturating_sub(SAID_SHOWN_MAX);
    String::from_utf8_lossy(all.get(from..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    //! An environment is whole or made anew, and a list that cannot be had leaves none behind that seems whole.
    use super::*;

    #[test]
    fn an_interrupted_environment_is_made_anew_and_a_whole_one_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        let first = Environment::made_in(cache.path(), "none", "").unwrap();
        let left = first.folder().join("left");
        fs::write(&left, "").unwrap();
        Environment::made_in(cache.path(), "none", "").unwrap();
        assert!(left.exists(), "a whole environment was made anew");
        fs::remove_file(first.folder().join(MARK_OF_WHOLE)).unwrap();
        Environment::made_in(cache.path(), "none", "").unwrap();
        assert!(!left.exists(), "half an environment was taken for a whole one");
    }

    #[test]
    fn what_cannot_be_installed_is_an_error_and_leaves_nothing_whole() {
        let cache = tempfile::tempdir().unwrap();
        let made = Environment::made_in(cache.path(), "none", "./there-is-no-such-file.whl");
        let error = format!("{:#}", made.unwrap_err());
        assert!(error.contains("install the requirements of none"), "{error}");
        let mut left = fs::read_dir(cache.path()).unwrap();
        assert!(left.all(|left| !left.unwrap().path().join(MARK_OF_WHOLE).exists()));
    }
}
