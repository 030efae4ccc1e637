//! The process that writes: opens the volume, reads all of it, then writes at random until it is told
//! to end (its standard input closes) or is killed. Any error is its end, with a bad status: whatever
//! happens to `storaged`, I/O waits and never fails.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use client::request;
use client::transport::Address;
use client::volume::{Options as VolumeOptions, Volume};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use crate::pattern::{self, BLOCK};
use crate::report::Report;

/// The volume's size in blocks: 64 MiB. Small enough to read all of it in each round.
pub(crate) const BLOCKS: u64 = 16_384;
/// The volume.
pub(crate) const VOLUME: &str = "victim";
/// Requests in flight.
const IN_FLIGHT: usize = 16;
/// The most blocks in one request: beyond the size that goes straight to chunks (64 KiB).
const COUNT_MAX: u64 = 64;
/// One request in so many discards.
const DISCARD_EVERY: u32 = 10;
/// Blocks that one read of the verification takes.
const READ_BLOCKS: u64 = 256;
/// How long to wait for a dead owner's lease, and for `storaged`.
const OPEN_TIME_MAX: Duration = Duration::from_mins(1);

/// How a worker is started.
#[derive(Args)]
pub(crate) struct Options {
    /// `storaged`'s socket for front ends.
    #[arg(long)]
    storaged: PathBuf,
    /// The volume.
    #[arg(long)]
    volume: String,
    /// What it draws its requests from.
    #[arg(long)]
    random: u64,
    /// The number of its first request: numbers are never used again.
    #[arg(long)]
    first_number: u64,
}

/// Works until told to end.
pub(crate) fn work(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let volume = Rc::new(open(options).await?);
        tell(Report::Opened)?;
        verify(&volume).await?;
        write(&volume, options).await?;
        // Everything is answered now, so what is read has no excuse.
        verify(&volume).await?;
        volume.close().await;
        Ok(())
    })
}

async fn open(options: &Options) -> Result<Volume> {
    let volume = Volume::open(VolumeOptions {
        program: "kill-tests".into(),
        storaged: vec![Address::Unix(options.storaged.clone())],
        volume: options.volume.clone(),
        snapshot: None,
        read_only: false,
        wait: OPEN_TIME_MAX,
        read_cache: None,
    });
    volume.await.context("open the volume")
}

/// Reads every block and tells what it holds.
async fn verify(volume: &Volume) -> Result<()> {
    let mut first = 0;
    while first < BLOCKS {
        let length = READ_BLOCKS * BLOCK as u64;
        let bytes = request::read(volume, first * BLOCK as u64, length)
            .await
            .context("read")?;
        let mut told = String::new();
        for (block, bytes) in (first..).zip(bytes.chunks(BLOCK)) {
            let value = pattern::read(block, bytes).map_err(|sentence| anyhow!(sentence))?;
            told.push_str(&Report::Read { block, value }.line());
        }
        std::io::stdout().write_all(told.as_bytes())?;
        first += READ_BLOCKS;
    }
    tell(Report::Verified)
}

/// Writes at random, never twice at once to one block, until standard input closes.
async fn write(volume: &Rc<Volume>, options: &Options) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(options.random);
    let busy: Rc<RefCell<HashSet<u64>>> = Rc::default();
    let mut in_flight = JoinSet::new();
    let mut end = told_to_end();
    let mut ended = false;
    let mut number = options.first_number;
    while !ended || !in_flight.is_empty() {
        while !ended && in_flight.len() < IN_FLIGHT {
            let (first, count) = draw(&mut random, &busy);
            let discards = random.random_ratio(1, DISCARD_EVERY);
            tell(Report::Submitted {
                number,
                first,
                count,
                discards,
            })?;
            in_flight.spawn_local(one(volume.clone(), busy.clone(), number, first, count, discards));
            number += 1;
        }
        tokio::select! {
            Some(done) = in_flight.join_next() => done.context("a request's task")??,
            _ = &mut end, if !ended => ended = true,
        }
    }
    Ok(())
}

/// Comes when standard input closes.
fn told_to_end() -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        // An error of a closed pipe means the same as its end.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = tell.send(());
    });
    told
}

/// A run of blocks that no request in flight touches; marks them busy.
fn draw(random: &mut SmallRng, busy: &RefCell<HashSet<u64>>) -> (u64, u64) {
    let mut busy = busy.borrow_mut();
    // At most IN_FLIGHT * COUNT_MAX blocks of BLOCKS are busy, so a free one is found soon.
    loop {
        let first = random.random_range(0..BLOCKS);
        let wanted = if random.random_ratio(1, 2) {
            1
        } else {
            random.random_range(1..=COUNT_MAX)
        };
        let free = (first..BLOCKS.min(first + wanted)).take_while(|block| !busy.contains(block));
        let count = free.count() as u64;
        if count > 0 {
            busy.extend(first..first + count);
            return (first, count);
        }
    }
}

async fn one(
    volume: Rc<Volume>,
    busy: Rc<RefCell<HashSet<u64>>>,
    number: u64,
    first: u64,
    count: u64,
    discards: bool,
) -> Result<()> {
    let (offset, length) = (first * BLOCK as u64, count * BLOCK as u64);
    let done = if discards {
        request::discard(&*volume, offset, length).await
    } else {
        request::write(&*volume, offset, pattern::blocks(first, count, number)).await
    };
    if let Err(error) = done {
        bail!(
            "request {number} of blocks {first}..{} failed: {error}",
            first + count
        );
    }
    tell(Report::Acknowledged { number })?;
    // Only after the parent knows: a later request's report must come after this one's.
    let mut busy = busy.borrow_mut();
    for block in first..first + count {
        busy.remove(&block);
    }
    Ok(())
}

fn tell(report: Report) -> Result<()> {
    std::io::stdout()
        .write_all(report.line().as_bytes())
        .context("tell the parent")
}
