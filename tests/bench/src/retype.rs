//! What a guest notices while its disk moves to another pool, and how fast that is: single 4 KiB writes and reads at
//! random, before and meanwhile, from copies to rows and back, with the rate that volumes move at by themselves and without
//! any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use admin_api::volumes::Volume;
use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use erasure::Profile;
use test_node::{Cluster, Node};

use crate::cluster::attach;
use crate::local::drive::{self, Tally, Until};
use crate::local::guest::Guest;
use crate::local::pattern::{Direction, FILL, Order, Pattern, line};
use crate::machine;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);
/// The longest that a move may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long a turn of the guest takes while it is looked whether the move is over.
const TURN: Duration = Duration::from_millis(500);

/// How `retype` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Size of the volume, in MiB. All of it is written before.
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    /// The pool of rows.
    #[arg(long, value_name = "DATA+PARITY", default_value = "4+2")]
    erasure: Profile,
    /// How long the guest is measured without a move, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

const PATTERNS: [Pattern; 2] = [
    line(
        "randwrite-4K-flush",
        Direction::WriteFlush,
        Order::Random,
        4096,
        1,
    ),
    line("randread-4K", Direction::Read, Order::Random, 4096, 1),
];

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("machine: {}", machine::description());
    let cluster = Cluster::start(usize::from(options.erasure.width()), 1)?;
    let node = &cluster.nodes[0];
    let erasure = options.erasure.to_string();
    node.storagectl(&["pool", "create", "copies", "--copies", "3"])?;
    node.storagectl(&["pool", "create", "rows", "--erasure", &erasure])?;
    let span = options.size_mib << 20;
    node.storagectl(&["volume", "create", "disk", &span.to_string(), "--pool", "copies"])?;
    let folder = tempfile::tempdir()?;
    let (_process, mut guest) = attach(&node.session_socket(), folder.path(), "disk")?;
    drive::prepare(&mut guest)?;
    let all = Until::Operations(span / FILL.block as u64);
    drive::run(&mut guest, FILL, span, 0, all).context("fill the volume")?;

    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "move",
        "rate",
        "guest",
        "MiB/s moved",
        "p50 us",
        "p99 us",
        "longest ms",
        "IOPS",
    ]);
    for pattern in PATTERNS {
        let alone = Until::Elapsed(Duration::from_secs(options.seconds));
        let tally = drive::run(&mut guest, pattern, span, 1, alone)?;
        table.add_row(row(["none", "-"], pattern, None, &tally));
        for rate in [None, Some("4G")] {
            for pool in ["rows", "copies"] {
                let (moved, tally) = while_it_moves(node, &mut guest, (pattern, span), pool, rate)?;
                let speed = options.size_mib as f64 / moved.as_secs_f64();
                let words = [pool, rate.map_or("as it is", |_| "none")];
                table.add_row(row(words, pattern, Some(speed), &tally));
            }
        }
    }
    println!("load at the end: {}", machine::load());
    println!(
        "{table}\n2 patterns, 4 moves each, {} MiB on {} nodes",
        options.size_mib,
        cluster.nodes.len()
    );
    drop(guest);
    Ok(())
}

fn row([to, rate]: [&str; 2], pattern: Pattern, speed: Option<f64>, tally: &Tally) -> [String; 8] {
    let last = tally.latencies.len().saturating_sub(1);
    let at = |hundredths: usize| {
        let found = tally.latencies.get(last * hundredths / 100);
        found.map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1000.0)
    };
    [
        to.to_owned(),
        rate.to_owned(),
        pattern.name.to_owned(),
        speed.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.0}")),
        format!("{:.0}", at(50)),
        format!("{:.0}", at(99)),
        format!("{:.1}", at(100) / 1000.0),
        format!("{:.0}", tally.operations as f64 / tally.elapsed.as_secs_f64()),
    ]
}

/// Lets the guest work until its disk is in the pool; gives how long that took, and what the guest noticed.
fn while_it_moves(
    node: &Node,
    guest: &mut Guest,
    (pattern, span): (Pattern, u64),
    pool: &str,
    rate: Option<&str>,
) -> Result<(Duration, Tally)> {
    let mut words = vec!["volume", "retype", "disk", "--pool", pool, "--detach"];
    words.extend(rate.iter().flat_map(|rate| ["--rate", *rate]));
    let begun = Instant::now();
    node.storagectl(&words)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let watched = until_there(node);
            over.store(true, Ordering::Release);
            watched.map(|()| begun.elapsed())
        });
        let mut all: Option<Tally> = None;
        let mut seed = 2;
        while !over.load(Ordering::Acquire) {
            seed += 1;
            let tally = drive::run(guest, pattern, span, seed, Until::Elapsed(TURN))?;
            all = Some(match all {
                None => tally,
                Some(before) => joined(before, &tally),
            });
        }
        let moved = watch
            .join()
            .map_err(|_| anyhow::anyhow!("the watch ended in a panic"))??;
        Ok((moved, all.context("it was over before the guest began")?))
    })
}

fn joined(mut before: Tally, more: &Tally) -> Tally {
    before.operations += more.operations;
    before.elapsed += more.elapsed;
    before.latencies.extend(&more.latencies);
    before.latencies.sort_unstable();
    before
}

fn until_there(node: &Node) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        ensure!(Instant::now() < deadline, "the volume does not come to its pool");
        let told = node.storagectl(&["--json", "volume", "info", "disk"])?;
        let told: Volume = serde_json::from_str(&told).with_context(|| format!("read {told}"))?;
        if told.moving.is_none() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}
