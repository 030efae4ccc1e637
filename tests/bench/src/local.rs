//! storaged beside qemu-storage-daemon: the same client, disk and patterns, in turns.
//!
//! For each pattern and round the systems run one after the other, so that what else the machine
//! does falls on all of them; the result is the median of the rounds.

pub(crate) mod drive;
pub(crate) mod guest;
pub(crate) mod pattern;
pub(crate) mod report;
pub(crate) mod system;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use self::drive::Until;
use self::guest::Notification;
use self::pattern::{FILL, PATTERNS, Pattern};
use self::report::{Line, Sample};
use self::system::{Kind, System};
use crate::{machine, process};

/// How `local` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the systems keep their files; the file system must take `O_DIRECT`. Emptied by the end.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Size of each volume, in MiB. All of it is written before anything is measured.
    #[arg(long, default_value_t = 2048)]
    size_mib: u64,
    /// How often each pattern is run on each system.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How long each run takes, in seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only the patterns whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only these systems.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["qemu"])]
    systems: Vec<Kind>,
    /// How the client learns of completions.
    #[arg(long, value_enum, default_value = "events")]
    notification: Notification,
    /// Also write the TSV lines to this file.
    #[arg(long)]
    tsv: Option<PathBuf>,
}

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = machine::stage(&options.directory)?;
    let span = options.size_mib << 20;
    let mut systems = Vec::new();
    for kind in &options.systems {
        let folder = directory.path().join(kind.name());
        systems.push(start_filled(*kind, &folder, span, options.notification)?);
    }
    let comparison = Comparison {
        span,
        rounds: options.rounds,
        seconds: options.seconds,
    };
    let mut lines = Vec::new();
    for pattern in PATTERNS
        .iter()
        .filter(|pattern| pattern.name.contains(&options.only))
    {
        lines.extend(compare(&mut systems, *pattern, &comparison)?);
    }
    println!("load at the end: {}", machine::load());
    let tsv = report::tsv(&lines);
    println!("\n{tsv}\n{}", report::table(&lines, Kind::Qemu.name()));
    println!(
        "{} patterns on {} systems, medians of {} rounds",
        lines.len() / systems.len(),
        systems.len(),
        options.rounds
    );
    if let Some(path) = &options.tsv {
        std::fs::write(path, tsv).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Starts a system whose device has been written from end to end, and waits until it rests.
pub(crate) fn start_filled(
    kind: Kind,
    folder: &Path,
    span: u64,
    notification: Notification,
) -> Result<System> {
    let mut system = System::start(kind, folder, span, notification)?;
    drive::prepare(&mut system.guest)?;
    let until = Until::Operations(span / FILL.block as u64);
    let tally = drive::run(&mut system.guest, FILL, span, 0, until).context("fill the volume")?;
    system.settle();
    eprintln!("{}: filled in {:.1} s", kind.name(), tally.elapsed.as_secs_f64());
    Ok(system)
}

/// How systems are compared.
pub(crate) struct Comparison {
    /// Where in the device, from its beginning, in bytes.
    pub(crate) span: u64,
    /// How often.
    pub(crate) rounds: u64,
    /// How long each time.
    pub(crate) seconds: u64,
}

/// Runs one pattern on all systems in turns.
pub(crate) fn compare(
    systems: &mut [System],
    pattern: Pattern,
    comparison: &Comparison,
) -> Result<Vec<Line>> {
    let mut samples = vec![Vec::new(); systems.len()];
    for round in 0..comparison.rounds {
        for (at, system) in systems.iter_mut().enumerate() {
            let until = Until::Elapsed(Duration::from_secs(comparison.seconds));
            let sample = measure(system, pattern, comparison.span, round + 1, until)
                .with_context(|| format!("{} on {}", pattern.name, system.kind.name()))?;
            eprintln!(
                "{} round {} {}: {:.0} IOPS, {:.1} us, {:.1} us CPU",
                pattern.name,
                round + 1,
                system.kind.name(),
                sample.iops,
                sample.mean,
                sample.system_cpu
            );
            samples[at].push(sample);
        }
    }
    let lines = systems.iter().zip(&samples);
    Ok(lines
        .map(|(system, samples)| Line {
            system: system.kind.name().to_owned(),
            pattern,
            median: report::median(samples),
        })
        .collect())
}

/// Runs one pattern on one system. CPU is counted until the system is at rest again.
fn measure(system: &mut System, pattern: Pattern, span: u64, seed: u64, until: Until) -> Result<Sample> {
    let client = process::cpu_seconds(std::process::id());
    let server = system.cpu_seconds();
    let busy = machine::busy_seconds();
    let tally = drive::run(&mut system.guest, pattern, span, seed, until)?;
    let client = process::cpu_seconds(std::process::id()) - client;
    let seconds = tally.elapsed.as_secs_f64();
    let other = machine::busy_seconds() - busy - client - (system.cpu_seconds() - server);
    system.settle();
    let server = system.cpu_seconds() - server;
    Ok(Sample {
        other_cpu: (other / seconds * 100.0).max(0.0),
        ..report::sample(&tally, pattern, server, client)
    })
}
