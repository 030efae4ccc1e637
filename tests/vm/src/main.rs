//! `vm-tests`: boots real guests on the real programs and checks what they see.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use vm_tests::scenarios::{ALL, LONG, Scenario, Setting, killed, migrated};

/// Runs scenarios with real guests. Ends with a line "N passed, N failed, N skipped".
#[derive(Parser)]
struct Arguments {
    /// Only scenarios whose name contains one of these words.
    words: Vec<String>,
    /// Leave out those that take too long for each change.
    #[arg(long)]
    short: bool,
    /// Name the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Instead of the scenarios, kill `vhost-blk` so often under one guest.
    #[arg(long, value_name = "NUMBER")]
    kills: Option<u32>,
    /// Instead of the scenarios, move one guest between two QEMUs so often.
    #[arg(long, value_name = "NUMBER", conflicts_with = "kills")]
    moves: Option<u32>,
    /// What the moments of the kills are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many scenarios at once.
    #[arg(long, value_name = "NUMBER", default_value_t = at_once())]
    at_once: NonZero<usize>,
    /// Where the guest's image is kept.
    #[arg(long, default_value = "target/guest")]
    folder: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted =
        |name: &str| arguments.words.is_empty() || arguments.words.iter().any(|word| name.contains(word));
    if arguments.list {
        for scenario in ALL.iter().chain(LONG) {
            println!("{}", scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let setting = Setting::prepare(&arguments.folder)?;
    println!("guests are run by {:?}", setting.accelerator);
    if let Some(kills) = arguments.kills {
        let figures = killed::campaign(&setting, kills, arguments.seed);
        return Ok(conclude(kills, arguments.seed, figures));
    }
    if let Some(moves) = arguments.moves {
        let figures = migrated::campaign(&setting, moves, arguments.seed);
        return Ok(conclude(moves, arguments.seed, figures));
    }
    let long = if arguments.short { &[] } else { LONG };
    let all = ALL.iter().chain(long);
    let (chosen, left_out): (Vec<_>, Vec<_>) = all.partition(|scenario| wanted(scenario.name));
    let kept = run(&chosen, &setting, arguments.at_once);
    let failed = chosen.len() - kept;
    println!("{kept} passed, {failed} failed, {} skipped", left_out.len());
    Ok(if failed == 0 && kept > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Tries scenarios in order, so many at once, and says of each how it went when it ends; gives the number of promises that
/// were kept.
fn run(scenarios: &[&Scenario], setting: &Setting, at_once: NonZero<usize>) -> usize {
    let (next, kept) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            if holds(scenario, setting) {
                kept.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once.get() {
            scope.spawn(work);
        }
    });
    kept.into_inner()
}

fn holds(scenario: &Scenario, setting: &Setting) -> bool {
    let started = Instant::now();
    let result = (scenario.run)(setting);
    let seconds = started.elapsed().as_secs();
    match &result {
        Ok(()) => println!("ok      {} ({seconds} s)", scenario.name),
        Err(cause) => println!("FAILED  {} ({seconds} s): {cause:#}", scenario.name),
    }
    result.is_ok()
}

/// One for each processor: a guest that is emulated takes one, and leaves little of it.
fn at_once() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// The end of a campaign: each event that the guest has not noticed counts as passed.
fn conclude(events: u32, seed: u64, figures: Result<impl Display>) -> ExitCode {
    match figures {
        Ok(figures) => {
            println!("{figures}");
            println!("{events} passed, 0 failed, 0 skipped");
            ExitCode::SUCCESS
        }
        Err(cause) => {
            println!("FAILED, seed {seed}: {cause:#}");
            println!("0 passed, 1 failed, 0 skipped");
            ExitCode::FAILURE
        }
    }
}
