//! What a result was measured on, and what else the machine was doing meanwhile.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Begins a report, and makes a folder for what is measured, which goes with its end.
pub(crate) fn stage(directory: &Path) -> Result<tempfile::TempDir> {
    println!("machine: {}", description());
    println!("load at the start: {}", load());
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(directory)
        .with_context(|| format!("make a folder in {}", directory.display()))
}

/// One line for the head of a report: processor, cores, memory, kernel.
pub(crate) fn description() -> String {
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .map_or_else(
            || "unknown memory".into(),
            |kib| format!("{} GiB", kib.div_ceil(1 << 20)),
        );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{processor}, {cores} cores, {memory}, Linux {}", kernel.trim())
}

/// The load averages of the last 1, 5 and 15 minutes, as the kernel prints them.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// CPU seconds of all cores since boot, idle and waiting time left out.
pub(crate) fn busy_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = text.lines().next() else {
        return 0.0;
    };
    // user nice system idle iowait irq softirq steal; guest time is within user time.
    let ticks: u64 = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .enumerate()
        .filter(|(at, _)| *at != 3 && *at != 4)
        .filter_map(|(_, text)| text.parse::<u64>().ok())
        .sum();
    ticks as f64 / crate::process::TICKS_PER_SECOND
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
