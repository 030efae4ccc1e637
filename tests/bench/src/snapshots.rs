//! What snapshots and clones cost: by the volume's size, by what is written in it, and by how many
//! snapshots it has already; and what a read costs through a thousand of them.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::request;
use client::volume::Volume;
use comfy_table::{Table, presets};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::{JoinSet, LocalSet};

use crate::machine;
use crate::node::{self, Node};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const BLOCK: u64 = protocol::BLOCK_SIZE as u64;
const OBJECT: u64 = 4 << 20;
const BLOCKS_PER_OBJECT: u64 = OBJECT / BLOCK;
/// 1 GiB and 1 TiB, empty and written.
const VOLUMES: usize = 4;
/// At how many snapshots figures are taken.
const DEPTHS: [usize; 4] = [1, 10, 100, 1000];
/// Writes in flight while a volume is filled.
const FILL_DEPTH: usize = 64;
/// Around each depth, so many snapshots and clones are timed and the median taken.
const SAMPLES: usize = 9;
/// Reads for one figure of read latency.
const READS: usize = 2000;

/// How `snapshots` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where storaged keeps its files. Emptied by the end.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// The most snapshots of one volume.
    #[arg(long, default_value_t = 1000)]
    depth: usize,
    /// Copies of the pool; each gets a disk.
    #[arg(long, default_value_t = 1)]
    copies: u32,
}

/// One line of the result.
struct Line {
    volume: String,
    depth: usize,
    snapshot: Duration,
    clone: Duration,
    /// Of a random object.
    read: Option<Duration>,
    /// Of the object that has a layer for each snapshot.
    deep_read: Option<Duration>,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = machine::stage(&options.directory)?;
    let node = Node::start(directory.path(), options.copies)?;
    let lines = LocalSet::new().block_on(&node::runtime()?, all_volumes(&node, options))?;
    println!("load at the end: {}", machine::load());
    print(&lines);
    println!("{VOLUMES} volumes, up to {} snapshots each", options.depth);
    Ok(())
}

async fn all_volumes(node: &Node, options: &Options) -> Result<Vec<Line>> {
    node.admin.create_pool("pool", options.copies).await?;
    let mut lines = Vec::new();
    for (size, size_name) in [(GIB, "1-GiB"), (TIB, "1-TiB")] {
        for (written, state) in [(false, "empty"), (true, "written")] {
            let name = format!("{size_name}-{state}");
            eprintln!("{name}: up to {} snapshots", options.depth);
            node.admin.create_volume(&name, size).await?;
            lines.extend(one_volume(node, &name, size, written, options.depth).await?);
        }
    }
    Ok(lines)
}

/// Takes snapshots of one volume up to `depth`. The written volume is open, so that each snapshot
/// stops a real owner, and one block is written before each snapshot, so that each layer is real:
/// all of them in the first object, which gets as many layers as there are snapshots.
async fn one_volume(node: &Node, name: &str, size: u64, written: bool, depth: usize) -> Result<Vec<Line>> {
    let volume = if written {
        Some(fill(node, name, size).await?)
    } else {
        None
    };
    let (mut lines, mut taken) = (Vec::new(), Vec::new());
    for at in 1..=depth {
        if let Some(volume) = &volume {
            write(volume, at as u64 % BLOCKS_PER_OBJECT * BLOCK).await?;
        }
        let snapshot = format!("s{at}");
        taken.push(node.admin.snapshot(name, &snapshot).await?);
        if !DEPTHS.contains(&at) {
            continue;
        }
        let mut clones = Vec::new();
        for sample in 0..SAMPLES {
            let clone = format!("{name}-c{at}-{sample}");
            clones.push(node.admin.clone_snapshot(name, &snapshot, &clone).await?);
        }
        let mut line = Line {
            volume: name.to_owned(),
            depth: at,
            snapshot: median(&mut taken[at.saturating_sub(SAMPLES)..].to_vec()),
            clone: median(&mut clones),
            read: None,
            deep_read: None,
        };
        if let Some(volume) = &volume {
            line.read = Some(read(volume, size / OBJECT, OBJECT).await?);
            line.deep_read = Some(read(volume, BLOCKS_PER_OBJECT.min(at as u64), BLOCK).await?);
        }
        lines.push(line);
    }
    if let Some(volume) = volume {
        volume.close().await;
    }
    Ok(lines)
}

/// Opens a volume and writes one block in each of its objects.
async fn fill(node: &Node, name: &str, size: u64) -> Result<Rc<Volume>> {
    let volume = Rc::new(node.open(name).await?);
    let mut writes = JoinSet::new();
    for object in 0..size / OBJECT {
        if writes.len() == FILL_DEPTH
            && let Some(done) = writes.join_next().await
        {
            done??;
        }
        let volume = Rc::clone(&volume);
        writes.spawn_local(async move { write(&volume, object * OBJECT).await });
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    Ok(volume)
}

/// Writes a block that begins with its own offset.
async fn write(volume: &Volume, offset: u64) -> Result<()> {
    let mut block = [0xa5; protocol::BLOCK_SIZE as usize];
    block[..8].copy_from_slice(&offset.to_le_bytes());
    request::write(volume, offset, Bytes::copy_from_slice(&block))
        .await
        .context("write a block")
}

/// The mean latency of reads of written blocks, one at a time: of `places` places, `step` bytes apart.
async fn read(volume: &Volume, places: u64, step: u64) -> Result<Duration> {
    let mut random = SmallRng::seed_from_u64(7);
    let begin = Instant::now();
    for _ in 0..READS {
        let offset = random.random_range(0..places) * step;
        let block = request::read(volume, offset, BLOCK)
            .await
            .context("read a block")?;
        ensure!(
            block[..8] == offset.to_le_bytes(),
            "the block at {offset} reads as another one"
        );
    }
    Ok(begin.elapsed() / u32::try_from(READS)?)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn print(lines: &[Line]) {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "volume",
        "snapshots",
        "snapshot ms",
        "clone ms",
        "read us",
        "deep read us",
    ]);
    for line in lines {
        let milliseconds = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        let microseconds = |time: Option<Duration>| {
            time.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e6))
        };
        table.add_row([
            line.volume.clone(),
            line.depth.to_string(),
            milliseconds(line.snapshot),
            milliseconds(line.clone),
            microseconds(line.read),
            microseconds(line.deep_read),
        ]);
    }
    println!("\n{table}");
}
