//! What a guest's disk costs: vhost-blk with one copy and with three beside qemu-storage-daemon's own vhost-user-blk
//! export, and beside NBD on a volume of the same kind, to show what shared memory gives.
//!
//! The vhost-user systems are measured as in `local`, with the same client. NBD has fio's client, whose work is
//! another; its own CPU is in the client's column as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::local::guest::Notification;
use crate::local::pattern::{Direction, PATTERNS, Pattern};
use crate::local::report::{self, Line, Sample};
use crate::local::system::Kind;
use crate::local::{self, Comparison};
use crate::machine;
use crate::node::{Node, runtime};
use crate::process::{Process, program};

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
    socket: PathBuf,
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
    gateway.fill(span)?;
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
    println!("\n{}\n{}", report::tsv(&lines), report::table(&lines));
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
        let socket = folder.join("nbd.sock");
        let mut command = Command::new(program("storaged-nbd")?);
        command
            .arg("--storaged")
            .arg(&node.socket)
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()));
        let mut process = Process::start("storaged-nbd", &mut command, folder.join("nbd.log"))?;
        process.wait_for_file(&socket)?;
        Ok(Self {
            socket,
            processes: [process, node.process],
        })
    }

    fn fio(&self, arguments: &[String]) -> Result<Value> {
        let uri = format!("nbd+unix:///volume?socket={}", self.socket.display());
        let output = Command::new("fio")
            .args(["--name=nbd", "--ioengine=nbd", "--output-format=json"])
            .arg(format!("--uri={uri}"))
            .args(arguments)
            .output()
            .context("run fio")?;
        ensure!(
            output.status.success(),
            "fio ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        // Its engine says a word to people before.
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.find('{').and_then(|at| text.get(at..)).unwrap_or_default();
        serde_json::from_str(figures).with_context(|| format!("read what fio prints: {text}"))
    }

    fn fill(&self, span: u64) -> Result<()> {
        let size = format!("--size={span}");
        self.fio(&["--rw=write".into(), "--bs=1m".into(), size, "--iodepth=4".into()])
            .context("fill the volume behind NBD")?;
        Ok(())
    }

    fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    fn measure(&self, pattern: Pattern, comparison: &Comparison) -> Result<Line> {
        let mut samples = Vec::new();
        for _ in 0..comparison.rounds {
            samples.push(self.sample(pattern, comparison)?);
        }
        Ok(Line {
            kind: Kind::Nbd,
            pattern,
            median: report::median(&samples),
        })
    }

    fn sample(&self, pattern: Pattern, comparison: &Comparison) -> Result<Sample> {
        let reads = pattern.direction == Direction::Read;
        let flushes = u8::from(pattern.direction == Direction::WriteFlush);
        let before = self.cpu_seconds();
        let printed = self.fio(&[
            format!("--rw=rand{}", if reads { "read" } else { "write" }),
            format!("--bs={}", pattern.block),
            format!("--iodepth={}", pattern.depth),
            format!("--size={}", comparison.span),
            format!("--runtime={}", comparison.seconds),
            "--time_based".into(),
            format!("--fsync={flushes}"),
        ])?;
        // A checkpoint is charged to the writes that caused it, as with the other systems.
        local::system::settle(&self.processes);
        let cpu = self.cpu_seconds() - before;
        let job = &printed["jobs"][0];
        let side = &job[if reads { "read" } else { "write" }];
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        let (iops, operations) = (number(&side["iops"]), number(&side["total_ios"]).max(1.0));
        let sync = &job["sync"]["lat_ns"];
        let p99 = |part: &Value| number(&part["percentile"]["99.000000"]) / 1e3;
        let client = (number(&job["usr_cpu"]) + number(&job["sys_cpu"])) / 100.0;
        Ok(Sample {
            iops,
            megabytes: iops * pattern.block as f64 / 1e6,
            mean: (number(&side["clat_ns"]["mean"]) + f64::from(flushes) * number(&sync["mean"])) / 1e3,
            p99: p99(&side["clat_ns"]) + f64::from(flushes) * p99(sync),
            system_cpu: cpu / operations * 1e6,
            client_cpu: client * Duration::from_secs(comparison.seconds).as_secs_f64() / operations * 1e6,
            other_cpu: 0.0,
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The processes end with it; a socket that is left behind goes with the folder.
        let _ = fs::remove_file(&self.socket);
    }
}
