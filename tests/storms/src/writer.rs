//! The process that writes and reads on node 1 through all storms, as a guest would, and holds every answer against what
//! it knows: an acknowledged write is there, and nothing else is. It obeys words on its standard input, one line each,
//! and answers each with a line of JSON. Any error of the volume is its end.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use client::device::DeviceError;
use client::request;
use client::transport::Address;
use client::volume::{Options as Opening, Volume};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, mpsc};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::pattern::{self, BLOCK};

/// The volume's size in blocks: 64 MiB.
pub(crate) const BLOCKS: u64 = 16_384;
/// Those who write and read at random, each in a part of its own.
const WORKERS: u64 = 4;
/// The probe has a part of its own too.
const PART: u64 = BLOCKS / (WORKERS + 1);
/// Between two writes of the probe: what it waits for is the pause that is told.
const BEAT: Duration = Duration::from_millis(10);
/// A worker rests as long after each request: two cores run a cluster beside it.
const PAUSE_LIMIT: Duration = Duration::from_millis(4);
/// The most blocks in one request: beyond a chunk, which takes another way in the store.
const COUNT_MAX: u64 = 40;
/// Blocks of an object: a request is refused or done as a whole only inside one.
const OBJECT: u64 = 1024;
/// Blocks that one read of the verification takes.
const READ_BLOCKS: u64 = 256;
/// How long `storaged` is waited for.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// A volume that takes up all room, thin; its size, and how much is written to it at once.
pub(crate) const BALLAST: &str = "ballast";
pub(crate) const BALLAST_SIZE: u64 = 2 << 30;
const PIECE: u64 = 4 << 20;
/// Words that wait to be obeyed: one is said at a time.
const WORDS_MAX: usize = 4;

/// How it is started.
#[derive(Args)]
pub(crate) struct Options {
    /// The socket of `storaged` for front ends.
    #[arg(long)]
    storaged: PathBuf,
    /// The volume.
    #[arg(long)]
    volume: String,
    /// What it draws its requests from.
    #[arg(long)]
    seed: u64,
}

/// What it may be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Count anew from here.
    Begin,
    /// Tell the figures since then.
    Tell,
    /// Hold still, read every block, go on; then tell the figures.
    Verify,
    /// Write to the volume that is ballast until it has no more room, then tell the figures.
    Fill,
    /// Close the volume and end.
    End,
}

/// What it has done and seen since it was told to begin.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Writes acknowledged.
    pub(crate) writes: u64,
    /// Reads answered, and right.
    pub(crate) reads: u64,
    /// Writes refused because there was no room.
    pub(crate) refused: u64,
    /// The longest time that a write of the probe took, or takes still, in microseconds.
    pub(crate) longest_us: u64,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The volume is open.
    Open,
    /// Done.
    Done(Figures),
    /// A promise is broken: the end.
    Broken(String),
}

/// Works until it is told to end.
pub(crate) fn work(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = LocalSet::new().block_on(&runtime, live(options));
    if let Err(error) = &result {
        say(&Answer::Broken(format!("{error:#}")))?;
    }
    result
}

async fn live(options: &Options) -> Result<()> {
    let volume = open(&options.storaged, &options.volume).await?;
    let desk = Rc::new(Desk {
        volume,
        gate: RwLock::new(()),
        held: RefCell::new(vec![0; usize::try_from(BLOCKS)?]),
        number: Cell::new(0),
        figures: Cell::default(),
        probing: Cell::new(None),
    });
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let random = SmallRng::seed_from_u64(options.seed.wrapping_add(worker));
        tasks.spawn_local(Rc::clone(&desk).drudge(worker * PART, random));
    }
    tasks.spawn_local(Rc::clone(&desk).probe(WORKERS * PART));
    say(&Answer::Open)?;
    let mut words = words();
    loop {
        tokio::select! {
            Some(ended) = tasks.join_next() => {
                ended.context("a task of the writer")??;
                bail!("a task of the writer ended by itself");
            }
            word = words.recv() => match word {
                Some(Word::Begin) => desk.figures.set(Figures::default()),
                Some(Word::Tell) => {}
                Some(Word::Verify) => desk.verify().await?,
                Some(Word::Fill) => fill(&options.storaged).await?,
                Some(Word::End) | None => break,
            }
        }
        say(&Answer::Done(desk.told()))?;
    }
    tasks.shutdown().await;
    desk.volume.close().await;
    say(&Answer::Done(desk.told()))
}

async fn open(storaged: &Path, name: &str) -> Result<Volume> {
    let opening = Opening {
        program: "storms".into(),
        storaged: vec![Address::Unix(storaged.to_owned())],
        volume: name.to_owned(),
        snapshot: None,
        read_only: false,
        wait: OPEN_WAIT,
        read_cache: None,
    };
    let volume = Volume::open(opening).await.context("open a volume")?;
    volume.opened().await;
    Ok(volume)
}

/// Fills the ballast until there is no room for more.
async fn fill(storaged: &Path) -> Result<()> {
    let ballast = open(storaged, BALLAST).await?;
    let piece = Bytes::from(vec![0xb5; usize::try_from(PIECE)?]);
    let mut place = 0;
    let refused = loop {
        ensure!(
            place < BALLAST_SIZE,
            "there is room for more than {BALLAST_SIZE} bytes"
        );
        match request::write(&ballast, place, piece.clone()).await {
            Ok(()) => place += PIECE,
            Err(error) => break error,
        }
    };
    ballast.close().await;
    ensure!(
        refused == DeviceError::Full,
        "the ballast's volume failed: {refused}"
    );
    Ok(())
}

/// What all tasks share.
struct Desk {
    volume: Volume,
    /// Held for reading during each request, and for writing while all is verified.
    gate: RwLock<()>,
    /// By block: the number of the write that it must hold.
    held: RefCell<Vec<u64>>,
    number: Cell<u64>,
    figures: Cell<Figures>,
    /// When the probe began the write that it waits for.
    probing: Cell<Option<Instant>>,
}

impl Desk {
    /// Writes and reads at random in the part that begins at `from`.
    async fn drudge(self: Rc<Self>, from: u64, mut random: SmallRng) -> Result<()> {
        loop {
            let first = from + random.random_range(0..PART);
            let wanted = if random.random_ratio(3, 4) {
                1
            } else {
                random.random_range(1..=COUNT_MAX)
            };
            let end = (first + wanted)
                .min(from + PART)
                .min((first / OBJECT + 1) * OBJECT);
            if random.random_ratio(2, 3) {
                self.write(first, end - first).await?;
            } else {
                let _pass = self.gate.read().await;
                self.read(first, end - first).await?;
            }
            sleep(PAUSE_LIMIT).await;
        }
    }

    /// Writes one block each beat, and notes how long that took.
    async fn probe(self: Rc<Self>, from: u64) -> Result<()> {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut place = 0;
        loop {
            ticks.tick().await;
            // A prime number of blocks, so that it goes over all objects.
            place = (place + 1031) % PART;
            self.write(from + place, 1).await?;
        }
    }

    async fn write(&self, first: u64, count: u64) -> Result<()> {
        let _pass = self.gate.read().await;
        let number = self.number.get() + 1;
        self.number.set(number);
        let probes = first >= WORKERS * PART;
        let begun = Instant::now();
        if probes {
            self.probing.set(Some(begun));
        }
        let done = request::write(&self.volume, first * BLOCK, pattern::blocks(first, count, number)).await;
        let mut figures = self.figures.get();
        if probes {
            self.probing.set(None);
            figures.longest_us = figures.longest_us.max(microseconds(begun));
        }
        match done {
            Ok(()) => {
                figures.writes += 1;
                let mut held = self.held.borrow_mut();
                let range = usize::try_from(first)?..usize::try_from(first + count)?;
                held.get_mut(range)
                    .context("a write outside the volume")?
                    .fill(number);
            }
            // It promises that nothing was written.
            Err(DeviceError::Full) => figures.refused += 1,
            Err(error) => bail!(
                "write {number} of blocks {first}..{} failed: {error}",
                first + count
            ),
        }
        self.figures.set(figures);
        Ok(())
    }

    async fn read(&self, first: u64, count: u64) -> Result<()> {
        let read = request::read(&self.volume, first * BLOCK, count * BLOCK).await;
        let bytes = read.with_context(|| format!("a read of blocks {first}..{} failed", first + count))?;
        let block_length = usize::try_from(BLOCK)?;
        for (block, bytes) in (first..).zip(bytes.chunks(block_length)) {
            let found = pattern::read(block, bytes).map_err(anyhow::Error::msg)?;
            let held = self.held.borrow();
            let expected = held.get(usize::try_from(block)?).copied().unwrap_or(0);
            ensure!(
                found == expected,
                "block {block} holds write {found}, and write {expected} was acknowledged last"
            );
        }
        let mut figures = self.figures.get();
        figures.reads += 1;
        self.figures.set(figures);
        Ok(())
    }

    async fn verify(&self) -> Result<()> {
        let _alone = self.gate.write().await;
        let mut first = 0;
        while first < BLOCKS {
            self.read(first, READ_BLOCKS).await?;
            first += READ_BLOCKS;
        }
        Ok(())
    }

    fn told(&self) -> Figures {
        let mut figures = self.figures.get();
        let under_way = self.probing.get().map_or(0, microseconds);
        figures.longest_us = figures.longest_us.max(under_way);
        figures
    }
}

fn microseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The words that come in; their end when whoever says them is gone.
fn words() -> mpsc::Receiver<Word> {
    let (sender, receiver) = mpsc::channel(WORDS_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(Ok(word)) = line.map(|line| serde_json::from_str(&line)) else {
                return;
            };
            if sender.blocking_send(word).is_err() {
                return;
            }
        }
    });
    receiver
}

fn say(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    std::io::stdout().write_all(line.as_bytes()).context("answer")
}
