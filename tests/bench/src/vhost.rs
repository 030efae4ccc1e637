//! What a guest's disk costs: vhost-blk with one copy and with three beside qemu-storage-daemon's own vhost-user-blk
//! export, and beside NBD on a volume of the same kind, to show what shared memory gives.
//!
//! The vhost-user systems are measured as in `local`, with the same client. NBD has fio's client, whose work is
//! another; its own CPU is in the client's column as well.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::local::guest::Notification;
use crate::local::pattern::{PATTERNS, Pattern};
use crate::local::report::{self, Line};
use crate::local::system::{Kind, ids, settle};
use crate::local::{self, Comparison};
use crate::node::{Node, runtime};
use crate::process::Process;
use crate::{fio, machine};

/// The patterns that a guest's disk is judged by.
const JUDGED_BY: [&str; 5] = [
    "randread-4K",
    "randread-4K-qd32",
    "randwrite-4K-flush",
    "randwrite-4K",
    "randwrite-4K-qd32",
];
const SYSTEMS: [Kind; 3] = [Kind::Qemu, Kind::OneCopy, Kind::ThreeCopies];

/// How `vhost` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the systems keep their files; the file system must take `O_DIRECT`. Emptied by the end.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Size of each volume, in MiB. All of it is written before anything is measured.
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    /// How often each pattern is run on each system.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How long each run takes, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

/// A volume behind the NBD gateway.
struct Gateway {
    client: fio::Client,
    processes: [Process; 2],
}

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = machine::stage(&options.directory)?;
    let span = options.size_mib << 20;
    let mut systems = Vec::new();
    for kind in SYSTEMS {
        let folder = directory.path().join(kind.name());
        systems.push(local::start_filled(kind, &folder, span, Notification::Events)?);
    }
    let gateway = Gateway::start(&directory.path().join("nbd"), span)?;
    gateway.client.fill(span)?;
    let comparison = Comparison {
        span,
        rounds: options.rounds,
        seconds: options.seconds,
    };
    let mut lines = Vec::new();
    for pattern in PATTERNS
        .iter()
        .filter(|pattern| JUDGED_BY.contains(&pattern.name))
    {
        lines.extend(local::compare(&mut systems, *pattern, &comparison)?);
        lines.push(gateway.measure(*pattern, &comparison)?);
    }
    println!("load at the end: {}", machine::load());
    println!(
        "\n{}\n{}",
        report::tsv(&lines),
        report::table(&lines, Kind::Qemu.name())
    );
    println!(
        "{} patterns on {} systems, medians of {} rounds",
        JUDGED_BY.len(),
        SYSTEMS.len() + 1,
        options.rounds
    );
    Ok(())
}

impl Gateway {
    fn start(folder: &Path, size: u64) -> Result<Self> {
        let node = Node::start(&folder.join("node"), 1)?;
        runtime()?.block_on(async {
            node.admin.create_pool("pool", 1).await?;
            node.admin.create_volume("volume", size).await
        })?;
        let (process, socket) = fio::serve(&node.socket, folder)?;
        Ok(Self {
            client: fio::Client::new(&socket, "volume"),
            processes: [process, node.process],
        })
    }

    fn measure(&self, pattern: Pattern, comparison: &Comparison) -> Result<Line> {
        let how = (comparison.span, comparison.seconds);
        let cpu = || self.processes.iter().map(Process::cpu_seconds).sum();
        let settle = || settle(&ids(&self.processes));
        let rounds = 0..comparison.rounds;
        let samples = rounds.map(|_| self.client.measure(pattern, how, cpu, settle));
        Ok(Line {
            system: Kind::Nbd.name().to_owned(),
            pattern,
            median: report::median(&samples.collect::<Result<Vec<_>>>()?),
        })
    }
}
