//! How much room data takes on the disks, metadata included, by how it was written: in a pool of three copies and in one
//! of rows, at once and after small writes have come to rest.
//!
//! A pool has the disks of one node here, so all of them tell what they hold.

use std::thread;
use std::time::{Duration, Instant};

use admin_api::disks::DiskList;
use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use erasure::Profile;
use test_node::Node;

use crate::cluster::attach;
use crate::local::drive::{self, Until};
use crate::local::pattern::{Direction, FILL, Order, Pattern, line};
use crate::machine;
use crate::process::Process;

/// Small writes are at rest after so long without a change of what disks hold: twice as long as a front is left alone.
const REST: Duration = Duration::from_secs(12);
/// The longest wait for that.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// How `space` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Size of each volume, in MiB.
    #[arg(long, default_value_t = 256)]
    size_mib: u64,
    /// The pool of rows.
    #[arg(long, value_name = "DATA+PARITY", default_value = "4+2")]
    erasure: Profile,
}

/// What is done to a volume, after the fill if `first` says so.
struct Case {
    name: &'static str,
    first: bool,
    then: Option<Pattern>,
}

const fn small(name: &'static str, order: Order) -> Pattern {
    line(name, Direction::Write, order, 4096, 32)
}

const CASES: [Case; 3] = [
    Case {
        name: "written in 1 MiB",
        first: true,
        then: None,
    },
    Case {
        name: "written in 4 KiB, one after the other",
        first: false,
        then: Some(small("seqwrite-4K", Order::Sequential)),
    },
    Case {
        name: "as many 4 KiB at random over what is there",
        first: true,
        then: Some(small("randwrite-4K", Order::Random)),
    },
];

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("machine: {}", machine::description());
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "pool",
        "data",
        "disks hold / data at once",
        "at rest",
        "until then",
    ]);
    let erasure = options.erasure.to_string();
    for (pool, kept) in [
        ("copies", ["--copies", "3"]),
        ("rows", ["--erasure", erasure.as_str()]),
    ] {
        for case in &CASES {
            let [at_once, at_rest] = measure(options, pool, kept, case)?;
            table.add_row([
                kept[1].to_owned(),
                case.name.to_owned(),
                format!("{:.2}", at_once.0),
                format!("{:.2}", at_rest.0),
                format!("{:.0} s", at_rest.1.saturating_sub(REST).as_secs_f64()),
            ]);
        }
    }
    println!(
        "{table}\n6 measurements on one node, {} MiB each",
        options.size_mib
    );
    Ok(())
}

/// What the disks hold of a byte of data: at once, and when that changes no more, and after how long.
fn measure(options: &Options, pool: &str, kept: [&str; 2], case: &Case) -> Result<[(f64, Duration); 2]> {
    let node = Node::start(u32::from(options.erasure.width()))?;
    let span = options.size_mib << 20;
    node.storagectl(&["pool", "create", pool, kept[0], kept[1]])?;
    node.storagectl(&["volume", "create", pool, &span.to_string()])?;
    let empty = used(&node)?;
    let folder = tempfile::tempdir()?;
    let (process, mut guest): (Process, _) = attach(&node.session_socket(), folder.path(), pool)?;
    drive::prepare(&mut guest)?;
    if case.first {
        let all = Until::Operations(span / FILL.block as u64);
        drive::run(&mut guest, FILL, span, 0, all).context("fill the volume")?;
    }
    if let Some(pattern) = case.then {
        let all = Until::Operations(span / pattern.block as u64);
        drive::run(&mut guest, pattern, span, 1, all).context("write to the volume")?;
    }
    let begun = Instant::now();
    let ratio = |held: u64| held.saturating_sub(empty) as f64 / span as f64;
    let at_once = (ratio(used(&node)?), Duration::ZERO);
    let (mut held, mut since) = (used(&node)?, Instant::now());
    while since.elapsed() < REST && begun.elapsed() < PATIENCE {
        thread::sleep(LOOK);
        let now = used(&node)?;
        if now != held {
            (held, since) = (now, Instant::now());
        }
    }
    let at_rest = (ratio(held), begun.elapsed());
    drop((guest, process));
    Ok([at_once, at_rest])
}

/// What all disks hold together, in bytes.
fn used(node: &Node) -> Result<u64> {
    let list = node.storagectl(&["--json", "disk", "list"])?;
    let list: DiskList = serde_json::from_str(&list).with_context(|| format!("read {list}"))?;
    let held = list
        .disks
        .iter()
        .map(|disk| disk.used.context("a disk does not tell what it holds"));
    held.sum()
}
