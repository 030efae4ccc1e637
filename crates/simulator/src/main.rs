//! Runs simulated worlds, one on each core at a time, and says which failed and how to replay them.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use simulator::campaign::on_all_cores;
use simulator::{Met, Options, Report, row_world, run};

/// As in storaged. Worlds take memory and give it back all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs simulated worlds: virtual time, faulty disks and connections, dying owners.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Prints everything that happens.
    #[arg(long)]
    verbose: bool,
    /// Runs the small worlds of pools that encode rows instead.
    #[arg(long)]
    rows: bool,
    /// The pools of the worlds encode rows.
    #[arg(long, conflicts_with = "rows")]
    encoded: bool,
    /// How long faults go on in each world, in milliseconds of virtual time.
    #[arg(long, default_value_t = Options::default().faulty_ms)]
    faulty_ms: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.rows {
        return small_worlds(&arguments);
    }
    let options = Options {
        verbose: arguments.verbose,
        faulty_ms: arguments.faulty_ms,
        encoded: arguments.encoded,
        hashed: false,
    };
    let started = Instant::now();
    let mut simulated = Duration::ZERO;
    let (mut passed, mut failed, mut events, mut operations) = (0u64, 0u64, 0u64, 0u64);
    let mut met = std::collections::BTreeMap::new();
    let seeds: Vec<u64> = (arguments.from..arguments.from.saturating_add(arguments.seeds)).collect();
    let judge = |seed: &u64, result: Result<Report, String>| match result {
        Ok(report) => {
            simulated += report.simulated;
            events += report.events;
            operations += report.operations;
            for (what, count) in report.met {
                *met.entry(what).or_insert(0) += count;
            }
            passed += 1;
        }
        Err(reason) => {
            failed += 1;
            let which = if arguments.encoded { "--encoded " } else { "" };
            tell_failed(*seed, &reason, which);
        }
    };
    on_all_cores(&seeds, |seed| world(*seed, options), judge);
    for (what, count) in &met {
        println!("met {count:>8} times: {what}");
    }
    println!(
        "{} seeds, {}, {operations} operations, {events} events",
        arguments.seeds,
        speed(simulated, started.elapsed()),
    );
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How fast it went: by the clock, of which other programs on the machine take a part, and by the time for which all
/// threads of this process had a processor.
fn speed(simulated: Duration, took: Duration) -> String {
    let worked = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let times = |seconds: Duration| simulated.as_secs_f64() / seconds.as_secs_f64().max(1e-9);
    format!(
        "{:.2} simulated hours in {:.1} s: {:.0} times real time; {:.1} s of processor time: {:.0} times per second of a processor",
        simulated.as_secs_f64() / 3600.0,
        took.as_secs_f64(),
        times(took),
        worked.as_secs_f64(),
        times(worked),
    )
}

/// Says which world failed, and how to see it again.
fn tell_failed(seed: u64, reason: &str, which: &str) {
    println!("seed {seed} FAILED: {reason}");
    println!("  replay: cargo run -p simulator --release -- {which}--from {seed} --seeds 1 --verbose");
}

/// Runs worlds of rows.
fn small_worlds(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let seeds: Vec<u64> = (arguments.from..arguments.from.saturating_add(arguments.seeds)).collect();
    let (mut passed, mut failed, mut met) = (0u64, 0u64, Met::default());
    let run = |seed: &u64| match catch_unwind(AssertUnwindSafe(|| row_world(*seed, arguments.verbose))) {
        Ok(result) => result,
        Err(_) => Err("a panic".to_owned()),
    };
    on_all_cores(&seeds, run, |seed, result| match result {
        Ok(world) => {
            passed += 1;
            met += world;
        }
        Err(reason) => {
            failed += 1;
            tell_failed(*seed, &reason, "--rows ");
        }
    });
    println!("{met} in {:.1} s", started.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one world; every hundredth twice, for it must do the same again.
fn world(seed: u64, options: Options) -> Result<Report, String> {
    let twice = seed.is_multiple_of(100);
    let options = Options {
        hashed: twice,
        ..options
    };
    let report = survive(seed, options)?;
    if let Some(violation) = report.violations.first() {
        return Err(violation.clone());
    }
    if twice {
        let again = survive(seed, options)?;
        if (again.hash, again.events) != (report.hash, report.events) {
            return Err("the same seed did something else when it ran again".to_owned());
        }
    }
    Ok(report)
}

/// A panic in a machine is a failure of its seed, not of the run.
fn survive(seed: u64, options: Options) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, options))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("?");
        format!("a panic: {text}")
    })
}
