//! A rolling upgrade between two real versions: three nodes of the older one over a real etcd, two writers that verify
//! every answer, and each node and then each front end replaced by the newer one, as docs/operations/upgrade.md says;
//! and the way back. Then every block is read back and all copies are compared.
//!
//! It is told where the programs of both versions are; who built them is not known here.
#![forbid(unsafe_code)]

mod nbd;
#[path = "../../storms/src/pattern.rs"]
mod pattern;
mod stage;
mod writer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use comfy_table::{Table, presets};

use stage::{NODES, Stage};
use writer::Figures;

/// How long the writers write before anything happens, and between two steps.
const CALM: Duration = Duration::from_secs(3);

/// A rolling upgrade of a cluster under load. Ends with a line "N passed, N failed, N skipped".
#[derive(Parser)]
struct Arguments {
    /// Where the programs of the older version are.
    #[arg(long)]
    old: PathBuf,
    /// Where those of the newer one are; beside this program, if nothing is said.
    #[arg(long)]
    new: Option<PathBuf>,
    /// What the writers draw their requests from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where the programs of both versions are.
struct Versions {
    old: PathBuf,
    new: PathBuf,
}

/// A step that was done.
struct Step {
    what: String,
    took: Duration,
    figures: Figures,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match judge(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does both; the answer is how many of them failed.
fn judge(arguments: &Arguments) -> Result<usize> {
    let new = if let Some(folder) = &arguments.new {
        folder.clone()
    } else {
        let storaged = test_node::program("storaged")?;
        storaged.parent().context("a program in no folder")?.to_owned()
    };
    let versions = Versions {
        old: arguments.old.clone(),
        new,
    };
    let mut steps = Vec::new();
    let outcomes = [
        ("there", there(&versions, arguments.seed, &mut steps)),
        ("and back", back(&versions, arguments.seed + 100, &mut steps)),
    ];
    println!("{}", table(&steps));
    let mut failed = 0;
    for (name, outcome) in outcomes {
        match outcome {
            Ok(()) => println!("{name}: every block is what was written last, and all copies are equal"),
            Err(error) => {
                failed += 1;
                println!("{name}: {error:#}");
            }
        }
    }
    println!("{} passed, {failed} failed, 0 skipped", 2 - failed);
    Ok(failed)
}

/// From the older version to the newer one.
fn there(versions: &Versions, seed: u64, steps: &mut Vec<Step>) -> Result<()> {
    let mut stage = Stage::set(&versions.old, &versions.new, seed)?;
    calm(&mut stage, "the older version", steps)?;
    for node in 0..NODES {
        change_node(&mut stage, node, &versions.new, "newer", steps)?;
    }
    for line in 0..stage.lines.len() {
        change_front(&mut stage, line, &versions.new, "newer", steps)?;
    }
    calm(&mut stage, "the newer version", steps)?;
    stage.verify()
}

/// From the newer version, which has written all there is, to the older one: front ends first, for an older one works
/// with newer nodes, and not the other way round.
fn back(versions: &Versions, seed: u64, steps: &mut Vec<Step>) -> Result<()> {
    let mut stage = Stage::set(&versions.new, &versions.new, seed)?;
    calm(&mut stage, "the newer version, from the beginning", steps)?;
    for line in 0..stage.lines.len() {
        change_front(&mut stage, line, &versions.old, "older", steps)?;
    }
    for node in 0..NODES {
        change_node(&mut stage, node, &versions.old, "older", steps)?;
    }
    calm(&mut stage, "the older version again", steps)?;
    stage.verify()
}

fn calm(stage: &mut Stage, what: &str, steps: &mut Vec<Step>) -> Result<()> {
    take(stage, what.to_owned(), steps, |stage| stage.hold(CALM))
}

fn change_node(
    stage: &mut Stage,
    node: usize,
    programs: &Path,
    version: &str,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let what = format!("node {} gets the {version} version", node + 1);
    take(stage, what, steps, |stage| {
        stage.change_node(node, programs)?;
        stage.until_whole()
    })
}

fn change_front(
    stage: &mut Stage,
    line: usize,
    programs: &Path,
    version: &str,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let volume = stage.lines.get(line).map_or("", |line| line.volume);
    let what = format!("the front end of {volume} gets the {version} version");
    take(stage, what, steps, |stage| stage.change_front(line, programs))
}

/// Takes a step, and notes what the writers did meanwhile.
fn take(
    stage: &mut Stage,
    what: String,
    steps: &mut Vec<Step>,
    step: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<()> {
    stage.figures()?;
    let begun = Instant::now();
    step(stage).with_context(|| what.clone())?;
    let took = begun.elapsed();
    let figures = stage.figures()?;
    println!("{what}: {} ms", took.as_millis());
    steps.push(Step { what, took, figures });
    Ok(())
}

fn table(steps: &[Step]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["step", "took ms", "longest pause ms", "writes", "reads"]);
    for step in steps {
        table.add_row([
            step.what.clone(),
            step.took.as_millis().to_string(),
            step.figures.longest.as_millis().to_string(),
            step.figures.writes.to_string(),
            step.figures.reads.to_string(),
        ]);
    }
    table.to_string()
}
