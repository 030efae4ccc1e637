//! Runs the fuzz targets with libFuzzer, on the stable compiler.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};

use crate::debian;
use crate::process::{run, run_and_read};
use crate::tally::Tally;
use crate::workspace;

/// Longer inputs than this find nothing that shorter ones do not, and slow the search.
const INPUT_BYTES_MAX: u32 = 64 * 1024;
/// A target may not use more memory than this, in MiB: parsers have bounds.
const MEMORY_MIB_MAX: u32 = 1024;
/// One input may not take longer than this, in seconds: parsers do not loop.
const INPUT_SECONDS_MAX: u32 = 10;

/// Fuzzes each target for an equal share of `seconds`, or only those named; as many at once as there are processors, each of
/// which takes one. With `keep`, what was
/// found is merged into the corpus in the repository, as few inputs as cover the same. With a `seed`
/// the search begins the same way each time: a change is then not judged by another one's luck.
pub(crate) fn fuzz(seconds: u64, only: &[String], keep: bool, seed: Option<u32>) -> Result<Tally> {
    debian::ensure(debian::COMPILER)?;
    let fuzzer = build()?;
    let mut targets = targets()?;
    if let Some(unknown) = only.iter().find(|name| !targets.contains(name)) {
        anyhow::bail!("no fuzz target {unknown:?}: there are {}", targets.join(", "));
    }
    targets.retain(|name| only.is_empty() || only.contains(name));
    let mut tally = Tally::default();
    let share = (seconds / targets.len().max(1) as u64).max(1);
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    for few in targets.chunks(at_once) {
        let outcomes = together(few, |name| one(&fuzzer, name, share, seed));
        for outcome in outcomes {
            tally.record(outcome?);
        }
    }
    for name in targets.iter().filter(|_| keep) {
        merge(&fuzzer, name)?;
    }
    Ok(tally)
}

/// Does the same with several targets, each in a thread of its own; the answers are in their order.
fn together(names: &[String], work: impl Fn(&str) -> Result<bool> + Sync) -> Vec<Result<bool>> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = names.iter().map(|name| scope.spawn(move || work(name))).collect();
        let ended = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended
            .map(|end| end.unwrap_or_else(|_| Err(anyhow!("what reads a target's output has panicked"))))
            .collect()
    })
}

/// The targets: each has a folder of inputs.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(corpus()).context("list tests/fuzz/corpus")? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    ensure!(
        !names.is_empty(),
        "there is no fuzz target: tests/fuzz/corpus is empty"
    );
    Ok(names)
}

fn corpus() -> PathBuf {
    workspace::root().join("tests/fuzz/corpus")
}

/// Where inputs are gathered that are not kept.
fn gathered(name: &str) -> PathBuf {
    workspace::target().join("fuzz/gathered").join(name)
}

/// Builds the targets beside everything else: only crates of this workspace are compiled anew, with the
/// instrumentation, so what others wrote is neither compiled a second time nor searched for new ways through it.
fn build() -> Result<PathBuf> {
    run(&mut building())?;
    Ok(workspace::target().join("debug/fuzz"))
}

/// What builds the targets.
pub(crate) fn building() -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "build",
            "--workspace",
            "--bin",
            "fuzz",
            "--features",
            "fuzz/libfuzzer",
            // No target runs it: it is only linked, and takes longest to compile at the level that simulations want.
            "--config",
            "profile.dev.package.replication.opt-level=1",
        ])
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            workspace::root().join("tests/fuzz/instrument.sh"),
        );
    cargo
}

/// Whether a target held for so many seconds.
fn one(fuzzer: &Path, name: &str, seconds: u64, seed: Option<u32>) -> Result<bool> {
    let gathered = gathered(name);
    let broken = workspace::target().join("fuzz/broken").join(name);
    std::fs::create_dir_all(&gathered).context("make a folder for inputs")?;
    std::fs::create_dir_all(&broken).context("make a folder for inputs that break a target")?;
    let mut command = libfuzzer(fuzzer, name);
    command
        // 0 is another seed each time.
        .arg(format!("-seed={}", seed.unwrap_or(0)))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .args([&gathered, &corpus().join(name)]);
    let (_, good) = run_and_read(&mut command)?;
    if good {
        println!("fuzz {name}: held for {seconds} s");
    } else {
        println!(
            "fuzz {name}: BROKEN; the input is the newest file in {}",
            broken.display()
        );
        println!(
            "Mend it, and keep the input in tests/fuzz/corpus/{name}: cargo test -p fuzz runs it for ever."
        );
    }
    Ok(good)
}

fn merge(fuzzer: &Path, name: &str) -> Result<()> {
    let mut command = libfuzzer(fuzzer, name);
    command
        .arg("-merge=1")
        .args([corpus().join(name), gathered(name)]);
    run(&mut command)
}

fn libfuzzer(fuzzer: &Path, name: &str) -> Command {
    let mut command = Command::new(fuzzer);
    command
        .env("STORAGED_FUZZ_TARGET", name)
        .args(["-verbosity=0", "-print_final_stats=1"])
        .stderr(Stdio::inherit());
    command
}

#[cfg(test)]
mod tests {
    //! Targets that are tried side by side are all tried, and no outcome is lost.
    use super::*;

    #[test]
    fn targets_side_by_side_have_each_its_own_outcome() {
        let names = ["held", "broken", "failed"].map(str::to_owned);
        let outcomes = together(&names, |name| match name {
            "failed" => Err(anyhow!("it did not start")),
            name => Ok(name == "held"),
        });
        let told: Vec<Option<bool>> = outcomes.into_iter().map(Result::ok).collect();
        assert_eq!(told, [Some(true), Some(false), None]);
    }
}
