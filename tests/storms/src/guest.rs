//! A real guest in the storms: fio writes and verifies on a disk that `vhost-blk` offers on node 1, beside the writer, and
//! must not see one error.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use vm_tests::backend::Backend;
use vm_tests::guest::{Disk, Guest};
use vm_tests::scenarios::{Setting, fio_verify};

use crate::scenarios::ALL;
use crate::stage::{Kind, PATIENCE, Stage};
use crate::writer::Word;

/// What the guest goes through, in this order.
const STORMS: [&str; 9] = [
    "node-killed",
    "node-stopped",
    "cable",
    "etcd-leader",
    "own-killed",
    "etcd-away",
    "flapping",
    "one-way-to-writer",
    "own-cable",
];
/// The guest's disk.
const VOLUME: &str = "disk";
const SIZE: &str = "256M";
/// What each of fio's two jobs writes in a round.
const MEGABYTES: u32 = 24;
/// How long `vhost-blk` may wait for the volume, in seconds.
const WAIT: u64 = 60;
/// Requests that the guest must have had answered after each storm.
const GOES_ON: u64 = 50;
/// How long fio may take to end a round.
const ROUND_LIMIT: Duration = Duration::from_mins(4);
/// Between two looks into the guest.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One run; whether the guest saw no error.
pub(crate) fn storm(folder: &Path, seed: u64) -> Result<bool> {
    let setting = Setting::prepare(folder)?;
    println!("the guest is run by {:?}", setting.accelerator);
    let mut stage = Stage::set(Kind::Plain, seed)?;
    match through(&setting, &mut stage, seed) {
        Ok(rounds) => {
            stage.end()?;
            println!("{rounds} rounds of fio with verify, no error in the guest");
            println!("{} passed, 0 failed, 0 skipped", STORMS.len());
            Ok(true)
        }
        Err(error) => {
            println!("FAILED: {error:#}");
            println!("the nodes' folders are kept: {}", stage.keep());
            println!("0 passed, 1 failed, 0 skipped");
            Ok(false)
        }
    }
}

/// What the guest's load is called.
const FIO: &str = "fio";

fn through(setting: &Setting, stage: &mut Stage, seed: u64) -> Result<u64> {
    let node = stage.nodes.first().context("there is no node")?;
    node.storagectl(&["volume", "create", VOLUME, SIZE])?;
    let backend = Backend::offer(node, VOLUME, VOLUME, WAIT)?;
    let mut guest = setting.boot_with_fio(vec![Disk::at(backend.socket())])?;
    let fio = fio_verify("/dev/vda", MEGABYTES);
    guest.start(
        FIO,
        &format!("while test ! -f /tmp/stop; do {fio} || exit; echo round >> /tmp/rounds; done"),
    )?;
    let mut random = SmallRng::seed_from_u64(seed);
    for name in STORMS {
        let started = Instant::now();
        let scenario = ALL.iter().find(|scenario| scenario.name == name);
        let scenario = scenario.with_context(|| format!("there is no scenario {name}"))?;
        stage.until_in_sync()?;
        stage.witness.ask(Word::Begin)?;
        let struck = (scenario.strike)(stage, &mut random).and_then(|()| stage.verify());
        let figures = struck.with_context(|| scenario.what.to_owned())?;
        goes_on(&mut guest).with_context(|| format!("in the guest, after: {}", scenario.what))?;
        println!(
            "{name}: no error; the writer beside the guest waited for {} ms at most ({} s)",
            figures.longest_us / 1000,
            started.elapsed().as_secs()
        );
    }
    guest.run("touch /tmp/stop")?;
    guest.wait_for_end(FIO, ROUND_LIMIT)?;
    no_errors(&mut guest)?;
    let rounds = guest.run("grep -c round /tmp/rounds")?;
    let rounds = rounds.trim().parse().context("read how many rounds there were")?;
    guest.power_off()?;
    backend.stop()?;
    Ok(rounds)
}

/// Waits until more of the guest's requests were answered. It must be writing still.
fn goes_on(guest: &mut Guest) -> Result<()> {
    let before = answered(guest)?;
    let deadline = Instant::now() + PATIENCE;
    while answered(guest)? < before + GOES_ON {
        ensure!(Instant::now() < deadline, "I/O hangs for {PATIENCE:?}");
        no_errors(guest)?;
        std::thread::sleep(LOOK_AGAIN);
    }
    no_errors(guest)
}

fn no_errors(guest: &mut Guest) -> Result<()> {
    if let Some(status) = guest.ended(FIO)? {
        guest.went_well(FIO, status)?;
    }
    let log = guest.kernel_log();
    ensure!(!log.contains("I/O error"), "the guest has seen errors: {log}");
    Ok(())
}

/// Reads and writes of the guest's disk that were answered.
fn answered(guest: &mut Guest) -> Result<u64> {
    let fields = guest.run("cat /sys/block/vda/stat")?;
    let numbers: Vec<u64> = fields
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    Ok(numbers.first().copied().unwrap_or(0) + numbers.get(4).copied().unwrap_or(0))
}
