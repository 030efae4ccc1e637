//! fio as the client of an NBD server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::local::pattern::{Direction, Order, Pattern};
use crate::local::report::Sample;

/// Reads and writes one export.
pub(crate) struct Client {
    uri: String,
}

impl Client {
    /// For the export of this name behind a unix socket.
    pub(crate) fn new(socket: &Path, export: &str) -> Self {
        Self {
            uri: format!("nbd+unix:///{export}?socket={}", socket.display()),
        }
    }

    fn run(&self, arguments: &[String]) -> Result<Value> {
        let output = Command::new("fio")
            .args(["--name=nbd", "--ioengine=nbd", "--output-format=json"])
            .arg(format!("--uri={}", self.uri))
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

    /// Writes all of the first `span` bytes.
    pub(crate) fn fill(&self, span: u64) -> Result<()> {
        let size = format!("--size={span}");
        self.run(&["--rw=write".into(), "--bs=1m".into(), size, "--iodepth=4".into()])
            .context("fill the volume behind NBD")?;
        Ok(())
    }

    /// Runs a pattern. The system's CPU is what `cpu_seconds` has grown by when `settled` returns: a checkpoint is
    /// charged to the writes that caused it.
    pub(crate) fn measure(
        &self,
        pattern: Pattern,
        (span, seconds): (u64, u64),
        cpu_seconds: impl Fn() -> f64,
        settled: impl Fn(),
    ) -> Result<Sample> {
        let reads = pattern.direction == Direction::Read;
        let flushes = u8::from(pattern.direction == Direction::WriteFlush);
        let random = if pattern.order == Order::Random {
            "rand"
        } else {
            ""
        };
        let before = cpu_seconds();
        let printed = self.run(&[
            format!("--rw={random}{}", if reads { "read" } else { "write" }),
            format!("--bs={}", pattern.block),
            format!("--iodepth={}", pattern.depth),
            format!("--size={span}"),
            format!("--runtime={seconds}"),
            "--time_based".into(),
            format!("--fsync={flushes}"),
        ])?;
        settled();
        let cpu = cpu_seconds() - before;
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
            client_cpu: client * Duration::from_secs(seconds).as_secs_f64() / operations * 1e6,
            other_cpu: 0.0,
        })
    }
}

/// Starts our NBD server for the volumes of a storaged; gives the socket.
pub(crate) fn serve(storaged: &Path, folder: &Path) -> Result<(crate::process::Process, PathBuf)> {
    let socket = folder.join("nbd.sock");
    let mut command = Command::new(crate::process::program("storaged-nbd")?);
    command
        .arg("--storaged")
        .arg(storaged)
        .arg("--listen")
        .arg(format!("unix:{}", socket.display()));
    let log = folder.join("nbd.log");
    let mut process = crate::process::Process::start("storaged-nbd", &mut command, log)?;
    process.wait_for_socket(&socket)?;
    Ok((process, socket))
}
