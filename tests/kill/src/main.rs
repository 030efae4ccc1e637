//! Kills real processes under load, at random moments, and verifies every byte afterwards.
//!
//! A parent runs `storaged` with three disks, and a worker that writes a verifying pattern to a volume
//! and reports what it submits and what is acknowledged. Each round kills one of them, or both, starts
//! it again, and holds what is read against what may be read: the last acknowledged write of each
//! block, or one that was never answered, and once a value was read, that value (promises P1 and P2).
#![forbid(unsafe_code)]

mod oracle;
mod pattern;
mod report;
mod round;
mod worker;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use test_node::Node;

use oracle::Oracle;
use round::{Round, Victim};

/// How many disks, and copies of each block.
const DISKS: u32 = 3;
/// The pool that the volume lies in.
const POOL: &str = "kill";

/// Kills real processes under load.
#[derive(Parser)]
struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// What the order of events is drawn from, as far as it is ours to choose.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
        None => campaign(arguments.rounds, arguments.seed),
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
fn campaign(rounds: u32, seed: u64) -> Result<bool> {
    let us = std::env::current_exe()?;
    let mut node = Node::start(DISKS)?;
    node.storagectl(&["pool", "create", POOL, "--copies", &DISKS.to_string()])?;
    let size = worker::BLOCKS * pattern::BLOCK as u64;
    node.storagectl(&[
        "volume",
        "create",
        worker::VOLUME,
        &size.to_string(),
        "--pool",
        POOL,
    ])?;
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
        .run(&mut node, &mut oracle, &mut random);
        match outcome {
            Ok(acknowledged) => {
                passed += 1;
                writes += acknowledged;
                println!("round {number}: {victim}, {acknowledged} writes acknowledged, all there");
            }
            Err(error) => {
                failed += 1;
                println!("round {number}: {victim}: {error:#}");
                println!("the disks are kept in {}", node.keep().display());
                break;
            }
        }
    }
    let skipped = rounds - passed - failed;
    node.stop()?;
    for disk in node.disks() {
        let path = disk.to_str().context("a folder's name is not UTF-8")?;
        match node.storagectl(&["disk", "check", path]) {
            Ok(_) => passed += 1,
            Err(error) => {
                failed += 1;
                println!("{error:#}");
                println!("the disks are kept in {}", node.keep().display());
            }
        }
    }
    let disks = node.disks().len();
    let violations = oracle.violations();
    println!(
        "{rounds} rounds, {writes} acknowledged writes, {violations} lost or wrong; {disks} disks checked offline"
    );
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}
