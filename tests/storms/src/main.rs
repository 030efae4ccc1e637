//! Storms: a real cluster of three nodes, each in a network namespace with a member of etcd, and all that a network, a
//! coordination store and disks can do to it, while a writer goes on and checks every answer.
//!
//! Each round of a scenario ends with the same questions: did the writer see an error or a wrong block, are all copies in
//! sync again and equal, do writes go on. How long the writer waited is told and not judged.
#![forbid(unsafe_code)]

mod disk;
mod guest;
mod network;
mod pattern;
mod relay;
mod report;
mod scenarios;
mod stage;
mod witness;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use vm_tests::image::Image;

use report::Line;
use scenarios::{ALL, Scenario};
use stage::Stage;
use writer::{Figures, Word};

/// How long the writer writes before something happens, and after it has recovered.
const CALM: Duration = Duration::from_millis(700);

/// Real nodes in bad weather. Needs root, and makes namespaces of its own. Ends with a line "N passed, N failed,
/// N skipped".
#[derive(Parser)]
struct Arguments {
    /// Only these scenarios.
    scenarios: Vec<String>,
    /// Name the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Only the short set: what every change must pass.
    #[arg(long, conflicts_with = "scenarios")]
    short: bool,
    /// How often each happens.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// What moments and lengths are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The figures as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Instead of all this, boot a guest that writes and verifies through kills, stops, pulled cables and the death of
    /// etcd's leader.
    #[arg(long)]
    guest: bool,
    /// Where the guest's image is kept.
    #[arg(long, default_value = "target/guest")]
    folder: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The writer's process; started by the parent.
    #[command(hide = true)]
    Work(writer::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.part {
        Some(Part::Work(options)) => writer::work(options).map(|()| true),
        None => perform(&arguments),
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

/// Whether all held.
fn perform(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for scenario in ALL {
            let set = if scenario.short { "short" } else { "" };
            println!("{:<20} {set:<6} {}", scenario.name, scenario.what);
        }
        return Ok(true);
    }
    for name in &arguments.scenarios {
        ensure!(
            ALL.iter().any(|scenario| scenario.name == name),
            "there is no scenario {name:?}: --list names them"
        );
    }
    if arguments.guest && !network::is_inside() {
        // What it is made of may have to be fetched, which cannot be done from in there.
        Image::prepare(&arguments.folder)?;
    }
    network::enter()?;
    network::raise().context("make the network")?;
    if arguments.guest {
        return guest::storm(&arguments.folder, arguments.seed);
    }
    let wanted = |scenario: &&Scenario| {
        let named =
            arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|name| name == scenario.name);
        named && (scenario.short || !arguments.short)
    };
    let chosen: Vec<&Scenario> = ALL.iter().filter(wanted).collect();
    let lines = campaign(&chosen, arguments.rounds, arguments.seed);
    let table = if arguments.json {
        serde_json::to_string_pretty(&lines)?
    } else {
        report::table(&lines)
    };
    println!("{table}");
    let passed: usize = lines.iter().map(|line| line.rounds).sum();
    let failed: usize = lines.iter().map(|line| line.errors.len()).sum();
    // What goes wrong when the last stage ends counts beside the rounds.
    let skipped = (chosen.len() * arguments.rounds).saturating_sub(passed + failed);
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

fn campaign(chosen: &[&Scenario], rounds: usize, seed: u64) -> Vec<Line> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut lines: Vec<Line> = Vec::new();
    let mut stage: Option<Stage> = None;
    for scenario in chosen {
        let mut line = Line {
            scenario: scenario.name,
            what: scenario.what,
            rounds: 0,
            errors: Vec::new(),
            writes: 0,
            reads: 0,
            refused: 0,
            pauses_us: Vec::new(),
        };
        for round in 1..=rounds {
            let started = Instant::now();
            let held = round_of(&mut stage, scenario, seed, &mut random);
            let seconds = started.elapsed().as_secs();
            match held {
                Ok(figures) => {
                    let pause = Duration::from_micros(figures.longest_us);
                    eprintln!(
                        "{}, round {round}: the longest pause {pause:.1?} ({seconds} s)",
                        scenario.name
                    );
                    line.rounds += 1;
                    line.writes += figures.writes;
                    line.reads += figures.reads;
                    line.refused += figures.refused;
                    line.pauses_us.push(figures.longest_us);
                }
                Err(error) => {
                    // What happened is not over: the next one begins with a new stage.
                    let kept = stage.take().map_or_else(String::new, |mut stage| stage.keep());
                    eprintln!(
                        "{}, round {round}: FAILED after {seconds} s: {error:#}",
                        scenario.name
                    );
                    eprintln!("the nodes' folders are kept: {kept}");
                    line.errors.push(format!("{error:#}"));
                }
            }
        }
        line.pauses_us.sort_unstable();
        lines.push(line);
    }
    if let (Some(Err(error)), Some(line)) = (stage.map(Stage::end), lines.last_mut()) {
        eprintln!("the end: FAILED: {error:#}");
        line.errors.push(format!("at the end: {error:#}"));
    }
    lines
}

/// One scenario, once, on the stage that it needs.
fn round_of(
    stage: &mut Option<Stage>,
    scenario: &Scenario,
    seed: u64,
    random: &mut SmallRng,
) -> Result<Figures> {
    if let Some(former) = stage.take_if(|stage| stage.kind != scenario.kind) {
        former.end().context("at the end of a stage")?;
    }
    if stage.is_none() {
        *stage = Some(Stage::set(scenario.kind, seed).context("set the stage")?);
    }
    let Some(stage) = stage else {
        bail!("there is no stage")
    };
    stage.until_in_sync()?;
    stage.witness.ask(Word::Begin)?;
    stage.witness.hold(CALM)?;
    (scenario.strike)(stage, random)?;
    stage.witness.hold(CALM)?;
    let figures = stage.verify()?;
    ensure!(
        scenario.fills || figures.refused == 0,
        "{} writes were refused for want of room",
        figures.refused
    );
    Ok(figures)
}
