//! Kills real processes under load, at random moments, and verifies every byte afterwards.
//!
//! A parent runs `storaged` with three disks, and a worker that writes a verifying pattern to a volume
//! and reports what it submits and what is acknowledged. Each round kills one of them, or both, starts
//! it again, and holds what is read against what may be read: the last acknowledged write of each
//! block, or one that was never answered, and once a value was read, that value (promises P1 and P2).
#![forbid(unsafe_code)]

mod cluster;
mod oracle;
mod pattern;
mod report;
mod round;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use cluster::Cluster;
use oracle::Oracle;
use round::{Round, Victim};

/// Kills real processes under load.
#[derive(Parser)]
struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// What the order of events is drawn from, as far as it is ours to choose.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the programs are; beside this one if left out.
    #[arg(long, env = "STORAGED_PROGRAMS")]
    programs: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The worker's process; started by the parent.
    #[command(hide = true)]
    Work(worker::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.part {
        Some(Part::Work(options)) => worker::work(&options).map(|()| true),
        None => campaign(arguments.rounds, arguments.seed, arguments.programs),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all rounds held.
fn campaign(rounds: u32, seed: u64, programs: Option<PathBuf>) -> Result<bool> {
    let us = std::env::current_exe()?;
    let programs = programs.unwrap_or_else(|| us.parent().map(PathBuf::from).unwrap_or_default());
    let mut cluster = Cluster::start(programs)?;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut oracle = Oracle::new(worker::BLOCKS);
    let (mut passed, mut failed, mut writes) = (0u32, 0u32, 0u64);
    for number in 1..=rounds {
        let victim = Victim::draw(&mut random);
        let outcome = Round {
            number,
            victim,
            us: &us,
        }
        .run(&mut cluster, &mut oracle, &mut random);
        match outcome {
            Ok(acknowledged) => {
                passed += 1;
                writes += acknowledged;
                println!("round {number}: {victim}, {acknowledged} writes acknowledged, all there");
            }
            Err(error) => {
                failed += 1;
                println!("round {number}: {victim}: {error:#}");
                println!("the disks are kept in {}", cluster.keep().display());
                break;
            }
        }
    }
    cluster.stop()?;
    for disk in cluster.disks() {
        let sound = cluster.check_disk(&disk);
        println!(
            "offline check of {}: {}",
            disk.display(),
            if sound.is_ok() { "sound" } else { "NOT SOUND" }
        );
        if let Err(error) = sound {
            println!("{error:#}");
            failed += 1;
        } else {
            passed += 1;
        }
    }
    println!(
        "{rounds} rounds, {writes} acknowledged writes, {} lost or wrong",
        oracle.violations()
    );
    println!(
        "{passed} passed, {failed} failed, {} skipped",
        rounds.saturating_sub(passed + failed)
    );
    Ok(failed == 0)
}
