//! Writes and reads an export without a pause, and holds every answer against what it knows: an acknowledged write is
//! there, and nothing else is. A connection that ends is opened again, and what was not answered is asked again; an error
//! of the volume is the end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::nbd::{Client, Failure};
use crate::pattern::{self, BLOCK};

/// The volume's size in blocks: 64 MiB, 16 objects.
pub(crate) const BLOCKS: u64 = 16_384;
/// The most blocks in one write: beyond a chunk, which takes another way in the store.
const COUNT_MAX: u64 = 24;
/// The pause after each request: two cores run a cluster beside it.
const RATE_LIMIT: Duration = Duration::from_millis(2);
/// How long an export may be away while its front end is replaced.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries to reach it.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// Blocks that one read of the verification takes.
const READ_BLOCKS: u64 = 256;

/// What it did since it was asked last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Writes acknowledged.
    pub(crate) writes: u64,
    /// Reads answered, and right.
    pub(crate) reads: u64,
    /// The longest that one request took until it was answered, connections that ended included.
    pub(crate) longest: Duration,
}

/// A writer in a thread of its own.
pub(crate) struct Writer {
    thread: Option<JoinHandle<Result<Desk>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// Whether its front end is being replaced: only then may a connection end.
    replaced: AtomicBool,
    figures: Mutex<Figures>,
}

impl Shared {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Begins to write.
    pub(crate) fn start(socket: &Path, export: &str, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut desk = Desk {
            socket: socket.to_owned(),
            export: export.to_owned(),
            client: Client::connect(socket, export).context("open an export")?,
            held: vec![0; usize::try_from(BLOCKS)?],
            number: 0,
            random: SmallRng::seed_from_u64(seed),
            shared: Arc::clone(&shared),
        };
        let work = move || {
            while !desk.shared.over.load(Ordering::Relaxed) {
                desk.step()?;
                std::thread::sleep(RATE_LIMIT);
            }
            Ok(desk)
        };
        Ok(Self {
            thread: Some(std::thread::spawn(work)),
            shared,
        })
    }

    /// What it did since this was asked last.
    pub(crate) fn figures(&mut self) -> Result<Figures> {
        if self.has_ended() {
            self.join()?;
            bail!("the writer ended by itself");
        }
        Ok(std::mem::take(&mut *self.shared.figures()))
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Says that its front end is being replaced, or is there again.
    pub(crate) fn set_replaced(&self, replaced: bool) {
        self.shared.replaced.store(replaced, Ordering::Relaxed);
    }

    /// Ends it; what it knows.
    pub(crate) fn end(mut self) -> Result<Desk> {
        self.shared.over.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> Result<Desk> {
        let thread = self.thread.take().context("the writer has ended")?;
        thread
            .join()
            .unwrap_or_else(|_| bail!("the writer panicked"))
            .context("the writer")
    }
}

/// What a writer knows.
pub(crate) struct Desk {
    socket: PathBuf,
    export: String,
    client: Client,
    /// By block: the number of the write that it must hold.
    held: Vec<u64>,
    number: u64,
    random: SmallRng,
    shared: Arc<Shared>,
}

impl Desk {
    /// Reads every block.
    pub(crate) fn verify(&mut self) -> Result<()> {
        for first in (0..BLOCKS).step_by(usize::try_from(READ_BLOCKS)?) {
            self.read(first, READ_BLOCKS)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let first = self.random.random_range(0..BLOCKS);
        let wanted = if self.random.random_ratio(3, 4) {
            1
        } else {
            self.random.random_range(1..=COUNT_MAX)
        };
        let count = wanted.min(BLOCKS - first);
        let begun = Instant::now();
        let writes = self.random.random_ratio(2, 3);
        if writes {
            self.write(first, count)?;
        } else {
            self.read(first, count)?;
        }
        let mut figures = self.shared.figures();
        figures.writes += u64::from(writes);
        figures.reads += u64::from(!writes);
        figures.longest = figures.longest.max(begun.elapsed());
        Ok(())
    }

    fn write(&mut self, first: u64, count: u64) -> Result<()> {
        self.number += 1;
        let (number, bytes) = (self.number, pattern::blocks(first, count, self.number));
        self.until_answered(|client| client.write(first * BLOCK, &bytes))
            .with_context(|| format!("write {number} of blocks {first}..{}", first + count))?;
        let range = usize::try_from(first)?..usize::try_from(first + count)?;
        self.held
            .get_mut(range)
            .context("a write outside the volume")?
            .fill(number);
        Ok(())
    }

    fn read(&mut self, first: u64, count: u64) -> Result<()> {
        let length = usize::try_from(count * BLOCK)?;
        let bytes = self
            .until_answered(|client| client.read(first * BLOCK, length))
            .with_context(|| format!("a read of blocks {first}..{}", first + count))?;
        for (block, bytes) in (first..).zip(bytes.chunks(usize::try_from(BLOCK)?)) {
            let found = pattern::read(block, bytes).map_err(anyhow::Error::msg)?;
            let expected = self.held.get(usize::try_from(block)?).copied().unwrap_or(0);
            ensure!(
                found == expected,
                "block {block} holds write {found}, and write {expected} was acknowledged last"
            );
        }
        Ok(())
    }

    /// Asks until it is answered, on another connection if its front end is being replaced. A write that is done twice
    /// is the same write.
    fn until_answered<T>(&mut self, mut ask: impl FnMut(&mut Client) -> Result<T, Failure>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask(&mut self.client) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Refused(error)) => bail!("the volume failed: error {error}"),
                Err(Failure::Gone(error)) if !self.shared.replaced.load(Ordering::Relaxed) => {
                    return Err(error).context("the front end hung up");
                }
                Err(Failure::Gone(_)) => self.reach(deadline)?,
            }
        }
    }

    fn reach(&mut self, deadline: Instant) -> Result<()> {
        loop {
            match Client::connect(&self.socket, &self.export) {
                Ok(client) => {
                    self.client = client;
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("the front end does not come back");
                }
                Err(_) => std::thread::sleep(TRY_AGAIN),
            }
        }
    }
}
