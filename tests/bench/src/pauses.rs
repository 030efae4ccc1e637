//! How long a guest waits when something dies: a probe writes a block every 10 milliseconds, something happens, and
//! the longest write is the pause.
//!
//! Three real nodes on loopback share the machine's cores and its disk, over TLS and one etcd, with a lease
//! of two seconds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use client::request;
use client::transport::Address;
use client::volume::{Options as Opening, Volume};
use comfy_table::{Table, presets};
use test_node::{Cluster, Node};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::machine;
use crate::node::runtime;

/// Between two writes of the probe.
const BEAT: Duration = Duration::from_millis(10);
/// How long the probe writes before something happens, and after it has recovered.
const CALM: Duration = Duration::from_secs(1);
/// How long the volume may take to become free.
const OPEN_WAIT: Duration = Duration::from_secs(20);
/// The longest wait for anything that comes by itself.
const PATIENCE: Duration = Duration::from_mins(2);
/// The probe goes over so much of the volume, in bytes: over many placement groups.
const SPAN: u64 = 256 << 20;
const BLOCK: u64 = 4096;

/// How `pauses` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often each thing happens.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// Nothing: what the probe sees anyway.
    Nothing,
    /// The `storaged` of another node is killed: its connections are refused from then on.
    NodeKilled,
    /// The `storaged` of another node stands still: its connections stay, and nothing answers.
    NodeStalled,
    /// The `storaged` of the guest's own node is killed and started again at once.
    OwnKilled,
    /// The guest's node hands the volume over: it is closed there and opened on another node.
    Moved,
}

const ALL: [(Blow, &str); 5] = [
    (Blow::Nothing, "nothing"),
    (Blow::NodeKilled, "another node's storaged killed"),
    (Blow::NodeStalled, "another node stands still"),
    (Blow::OwnKilled, "own storaged killed and started again"),
    (Blow::Moved, "closed here, opened on another node"),
];

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("machine: {}", machine::description());
    println!("load at the start: {}", machine::load());
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["what happens", "median ms", "p99 ms", "longest ms", "rounds"]);
    let mut cluster = Cluster::secured(3, 1)?;
    cluster.nodes[0].storagectl(&["pool", "create", "main", "--copies", "3"])?;
    cluster.nodes[0].storagectl(&["volume", "create", "probe", &SPAN.to_string()])?;
    for (blow, what) in ALL {
        let mut pauses = Vec::new();
        for round in 0..options.rounds {
            let pause = strike(&mut cluster, blow)?;
            eprintln!("{what}, round {}: {pause:.1?}", round + 1);
            pauses.push(pause);
        }
        pauses.sort_unstable();
        let at = |percent: usize| {
            let rank = (pauses.len() * percent).div_ceil(100).max(1) - 1;
            let pause = pauses.get(rank).copied().unwrap_or_default();
            format!("{:.0}", pause.as_secs_f64() * 1e3)
        };
        table.add_row([what, &at(50), &at(99), &at(100), &pauses.len().to_string()]);
    }
    println!("load at the end: {}\n\n{table}", machine::load());
    println!("{} kinds of blows", ALL.len());
    Ok(())
}

/// One blow; the answer is the longest write.
fn strike(cluster: &mut Cluster, blow: Blow) -> Result<Duration> {
    until_well(&cluster.nodes[0])?;
    let probe = Probe::default();
    let sockets = [0, 1].map(|node: usize| cluster.nodes[node].session_socket());
    std::thread::scope(|scope| {
        // On a thread of its own: what is done below waits for processes.
        let beating = scope.spawn(|| LocalSet::new().block_on(&runtime()?, beat(&probe, &sockets)));
        probe.until_it_wrote(CALM, || beating.is_finished());
        let struck = strike_at(cluster, blow, &probe);
        probe.until_it_wrote(CALM, || beating.is_finished());
        probe.over.store(true, Ordering::Relaxed);
        match beating.join() {
            Ok(beaten) => struck.and(beaten),
            Err(_) => bail!("the probe panicked"),
        }
    })?;
    mend(cluster, blow)?;
    Ok(Duration::from_micros(probe.longest_us.load(Ordering::Relaxed)))
}

fn strike_at(cluster: &mut Cluster, blow: Blow, probe: &Probe) -> Result<()> {
    match blow {
        Blow::Nothing => {}
        Blow::NodeKilled => cluster.nodes[2].kill()?,
        Blow::NodeStalled => cluster.nodes[2].storaged().freeze()?,
        Blow::OwnKilled => {
            cluster.nodes[0].kill()?;
            cluster.nodes[0].start_again()?;
        }
        Blow::Moved => probe.moves.store(true, Ordering::Relaxed),
    }
    Ok(())
}

fn mend(cluster: &mut Cluster, blow: Blow) -> Result<()> {
    if blow == Blow::NodeStalled {
        // One that was put out while it ran would wait before it comes back.
        cluster.nodes[2].storaged().thaw()?;
        cluster.nodes[2].kill()?;
    }
    if matches!(blow, Blow::NodeKilled | Blow::NodeStalled) {
        cluster.nodes[2].start_again()?;
    }
    Ok(())
}

/// What the probe and whoever strikes know of each other.
#[derive(Default)]
struct Probe {
    over: AtomicBool,
    /// The volume is to be opened elsewhere.
    moves: AtomicBool,
    writes: AtomicU64,
    longest_us: AtomicU64,
}

impl Probe {
    fn wrote(&self, begun: Instant) {
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.longest_us.fetch_max(took, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for so many writes as there are in this time, unless it has ended.
    fn until_it_wrote(&self, time: Duration, ended: impl Fn() -> bool) {
        let beats = time.as_millis() / BEAT.as_millis();
        let goal = self.writes.load(Ordering::Relaxed) + u64::try_from(beats).unwrap_or(u64::MAX);
        let deadline = Instant::now() + PATIENCE;
        while self.writes.load(Ordering::Relaxed) < goal && !ended() && Instant::now() < deadline {
            std::thread::sleep(BEAT);
        }
    }
}

fn block() -> Bytes {
    Bytes::from(vec![7; 4096])
}

async fn beat(probe: &Probe, [here, there]: &[PathBuf; 2]) -> Result<()> {
    let mut volume = open(here).await?;
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut place = 0;
    while !probe.over.load(Ordering::Relaxed) {
        ticks.tick().await;
        // A prime number of blocks, so that it goes over all objects.
        place = (place + 1031 * BLOCK) % SPAN;
        let begun = Instant::now();
        if probe.moves.swap(false, Ordering::Relaxed) {
            volume.close().await;
            volume = open(there).await?;
        }
        request::write(&volume, place, block()).await?;
        probe.wrote(begun);
    }
    volume.close().await;
    Ok(())
}

async fn open(storaged: &Path) -> Result<Volume> {
    let options = Opening {
        program: "bench".into(),
        storaged: vec![Address::Unix(storaged.to_owned())],
        volume: "probe".into(),
        snapshot: None,
        read_only: false,
        wait: OPEN_WAIT,
        read_cache: None,
    };
    let volume = Volume::open(options).await.context("open the volume")?;
    volume.opened().await;
    Ok(volume)
}

/// Waits until all copies are in sync.
fn until_well(node: &Node) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if node.storagectl(&["status"])?.contains("all copies are in sync") {
            return Ok(());
        }
        std::thread::sleep(BEAT);
    }
    bail!("the copies are not in sync again after {PATIENCE:?}")
}
