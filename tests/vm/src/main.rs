//! `vm-tests`: boots real guests on the real programs and checks what they see.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use vm_tests::scenarios::{ALL, LONG, Setting, killed, migrated};

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
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let long = if arguments.short { &[] } else { LONG };
    for scenario in ALL.iter().chain(long) {
        if !wanted(scenario.name) {
            skipped += 1;
            continue;
        }
        let started = Instant::now();
        let result = (scenario.run)(&setting);
        let seconds = started.elapsed().as_secs();
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok      {} ({seconds} s)", scenario.name);
            }
            Err(cause) => {
                failed += 1;
                println!("FAILED  {} ({seconds} s): {cause:#}", scenario.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
