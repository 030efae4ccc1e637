//! The tests that crates have themselves: builds them all at once, and runs them one after the other.
//!
//! Runs them without cargo, which holds its lock on the build folder until it knows that nothing is to be compiled: others
//! compile meanwhile.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::process::{announce, run_and_read};
use crate::programs::{self, Profile, Program};
use crate::tally::Tally;
use crate::workspace;

/// A program of tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Executable {
    /// The folder of its crate, where cargo would run it.
    folder: PathBuf,
    /// Whether it has the unit tests of a crate's library.
    of_library: bool,
    path: PathBuf,
}

/// All of the workspace, once they are built.
static ALL: OnceLock<Vec<Executable>> = OnceLock::new();

/// Builds all tests of the workspace, and programs, in one go: both processors are busy to the end only once.
pub(crate) fn build(with: &[Program]) -> Result<&'static [Executable]> {
    let binaries = with.iter().flat_map(|program| ["--bin", program.binary]);
    let built = compile(["--workspace", "--tests"].into_iter().chain(binaries))?;
    ensure!(!built.is_empty(), "cargo built no tests");
    programs::are_built(Profile::Checked, with);
    Ok(ALL.get_or_init(|| built))
}

/// Tests at once for each processor: those that take long run several processes, and wait for them more than they compute.
const AT_ONCE: usize = 2;

/// Runs them all, whatever others found.
pub(crate) fn run(all: &[Executable]) -> Result<Tally> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let at_once = format!("--test-threads={}", processors * AT_ONCE);
    let mut tally = Tally::default();
    for executable in all {
        let (output, good) = run_and_read(executable.command().args(["--quiet", &at_once]))?;
        tally.add(judged(&output, good));
    }
    Ok(tally)
}

/// The unit tests of one crate's library. If all tests were built already, nothing is compiled.
pub(crate) fn of_library(package: &str, folder: &str) -> Result<Executable> {
    let folder = workspace::root().join(folder);
    let found = |all: &[Executable]| {
        let mut fitting = all.iter().filter(|one| one.of_library && one.folder == folder);
        fitting.next().cloned()
    };
    let one = match ALL.get() {
        Some(all) => found(all),
        None => found(&compile(["--package", package, "--tests"])?),
    };
    one.with_context(|| format!("{package} has no unit tests"))
}

impl Executable {
    /// Runs it the way cargo would.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        workspace::forget_ourselves(&mut command);
        command.current_dir(&self.folder);
        command
    }
}

/// Has cargo build something, and reads which tests it built, in order.
fn compile<'a>(what: impl IntoIterator<Item = &'a str>) -> Result<Vec<Executable>> {
    let mut cargo = workspace::cargo();
    cargo
        .arg("build")
        .args(what)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    announce(&cargo);
    let output = cargo.output().context("start cargo")?;
    if !output.status.success() {
        bail!("the tests were not built: cargo ended with {}", output.status);
    }
    tests_in(&String::from_utf8_lossy(&output.stdout))
}

/// What cargo says of what it built, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Built>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Built {
    test: bool,
}

fn tests_in(messages: &str) -> Result<Vec<Executable>> {
    let mut all = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("read a message of cargo")?;
        let is_test = message.profile.is_some_and(|profile| profile.test);
        if message.reason != "compiler-artifact" || !is_test {
            continue;
        }
        let (Some(path), Some(manifest)) = (message.executable, message.manifest_path) else {
            continue;
        };
        all.push(Executable {
            folder: manifest.parent().unwrap_or(Path::new("/")).to_owned(),
            of_library: message.target.is_some_and(|target| target.kind == ["lib"]),
            path,
        });
    }
    all.sort();
    Ok(all)
}

/// What one program of tests counted. A process that dies leaves no count, or none of a failure.
fn judged(output: &str, good: bool) -> Tally {
    let mut tally = Tally::of_cargo_test(output);
    let reported = output.lines().any(|line| line.starts_with("test result:"));
    if tally.failed == 0 && !(good && reported) {
        tally.failed = 1;
    }
    tally
}

#[cfg(test)]
mod tests {
    //! No program of tests is forgotten, and none that dies counts as passed.
    use super::*;

    #[test]
    fn tests_are_found_among_what_cargo_built() {
        let line = |reason: &str, manifest: &str, kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"{reason}","manifest_path":"{manifest}","target":{{"kind":["{kind}"],"name":"x"}},"profile":{{"opt_level":"1","test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            line("compiler-artifact", "/w/store/Cargo.toml", "lib", false, "null"),
            line(
                "compiler-artifact",
                "/w/store/Cargo.toml",
                "bin",
                false,
                r#""/t/store""#,
            ),
            line(
                "compiler-artifact",
                "/w/store/Cargo.toml",
                "test",
                true,
                r#""/t/deps/basics-1""#,
            ),
            line(
                "compiler-artifact",
                "/w/store/Cargo.toml",
                "lib",
                true,
                r#""/t/deps/store-2""#,
            ),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let one = |of_library, path: &str| Executable {
            folder: "/w/store".into(),
            of_library,
            path: path.into(),
        };
        assert_eq!(
            tests_in(&messages.join("\n")).unwrap(),
            [one(false, "/t/deps/basics-1"), one(true, "/t/deps/store-2")]
        );
    }

    #[test]
    fn a_program_that_dies_or_says_nothing_counts_as_a_failure() {
        let passed = "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!((judged(passed, true).passed, judged(passed, true).failed), (5, 0));
        assert_eq!(judged(passed, false).failed, 1);
        assert_eq!(judged("", true).failed, 1);
        assert_eq!(judged("running 5 tests\n", false).failed, 1);
    }
}
