//! Runs one pattern on one device, checks what it reads, and counts.
//!
//! Every 4 KiB block that is written begins with its own offset and a number that is never used
//! twice, so a read that returns another block's bytes ends the benchmark.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::pattern::{Direction, Order, Pattern};

const BLOCK: usize = 4096;

/// A client of a disk, with memory of its own: what is read comes to a place in it, what is written is taken from there.
pub(crate) trait Device {
    /// The disk's size, in bytes.
    fn capacity(&self) -> u64;
    /// Puts bytes into the memory.
    fn store(&mut self, at: usize, bytes: &[u8]) -> Result<()>;
    /// Takes bytes from the memory.
    fn load(&self, at: usize, bytes: &mut [u8]) -> Result<()>;
    /// Begins to read `length` bytes at `offset` to the place `at`, as the request `tag`.
    fn read(&mut self, offset: u64, at: usize, length: usize, tag: usize) -> Result<()>;
    /// Begins to write.
    fn write(&mut self, offset: u64, at: usize, length: usize, tag: usize) -> Result<()>;
    /// Begins a flush.
    fn flush(&mut self, tag: usize) -> Result<()>;
    /// Sends what was begun.
    fn kick(&mut self) -> Result<()>;
    /// Waits for the end of one request at least; `done` gets the tags of all that have ended.
    fn wait(&mut self, done: &mut Vec<usize>) -> Result<()>;
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After this many operations.
    Operations(u64),
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Operations that were completed.
    pub(crate) operations: u64,
    /// From the first submission to the last completion.
    pub(crate) elapsed: Duration,
    /// Of each operation, in nanoseconds, ascending.
    pub(crate) latencies: Vec<u64>,
}

/// An operation in flight.
struct Slot {
    offset: u64,
    begin: Instant,
    flushing: bool,
}

/// The state of one run.
struct Run<'a, D> {
    guest: &'a mut D,
    pattern: Pattern,
    random: SmallRng,
    /// Where a sequential pattern goes on.
    next: u64,
    /// Distinguishes each written block from every other.
    serial: u64,
}

/// Fills the guest's memory with bytes that do not compress.
pub(crate) fn prepare(guest: &mut impl Device) -> Result<()> {
    let mut bytes = vec![0; super::pattern::IN_FLIGHT_MAX];
    SmallRng::seed_from_u64(1).fill(&mut bytes[..]);
    guest.store(0, &bytes)
}

/// Runs `pattern` over the first `span` bytes of the device.
pub(crate) fn run(
    guest: &mut impl Device,
    pattern: Pattern,
    span: u64,
    seed: u64,
    until: Until,
) -> Result<Tally> {
    ensure!(
        span <= guest.capacity(),
        "the device has only {} bytes",
        guest.capacity()
    );
    let mut run = Run {
        guest,
        pattern,
        random: SmallRng::seed_from_u64(seed),
        next: 0,
        serial: seed << 32,
    };
    let begin = Instant::now();
    let mut slots: Vec<Slot> = Vec::with_capacity(pattern.depth);
    for at in 0..pattern.depth {
        let slot = run.start(at, span)?;
        slots.push(slot);
    }
    run.guest.kick()?;
    let mut tally = Tally {
        operations: 0,
        elapsed: Duration::ZERO,
        latencies: Vec::new(),
    };
    let mut in_flight = pattern.depth;
    let mut done = Vec::with_capacity(pattern.depth);
    while in_flight > 0 {
        run.guest.wait(&mut done)?;
        let now = Instant::now();
        for at in done.drain(..) {
            if run.continues(at, &mut slots[at])? {
                continue;
            }
            tally.operations += 1;
            tally
                .latencies
                .push(u64::try_from((now - slots[at].begin).as_nanos())?);
            let over = match until {
                Until::Elapsed(limit) => now - begin >= limit,
                Until::Operations(limit) => tally.operations + in_flight as u64 > limit,
            };
            if over {
                in_flight -= 1;
            } else {
                slots[at] = run.start(at, span)?;
            }
        }
        run.guest.kick()?;
    }
    tally.elapsed = begin.elapsed();
    tally.latencies.sort_unstable();
    Ok(tally)
}

impl<D: Device> Run<'_, D> {
    /// Starts the next operation in slot `at`.
    fn start(&mut self, at: usize, span: u64) -> Result<Slot> {
        let block = self.pattern.block as u64;
        let offset = match self.pattern.order {
            Order::Random => self.random.random_range(0..span / block) * block,
            Order::Sequential => {
                let offset = self.next;
                self.next = if offset + 2 * block > span {
                    0
                } else {
                    offset + block
                };
                offset
            }
        };
        let place = at * self.pattern.block;
        let begin = Instant::now();
        if self.pattern.direction == Direction::Read {
            self.guest.read(offset, place, self.pattern.block, at)?;
        } else {
            self.mark(offset, place)?;
            self.guest.write(offset, place, self.pattern.block, at)?;
        }
        Ok(Slot {
            offset,
            begin,
            flushing: false,
        })
    }

    /// Whether the operation in slot `at` goes on with a flush; checks what was read.
    fn continues(&mut self, at: usize, slot: &mut Slot) -> Result<bool> {
        match self.pattern.direction {
            Direction::WriteFlush if !slot.flushing => {
                slot.flushing = true;
                self.guest.flush(at)?;
                Ok(true)
            }
            Direction::Read => {
                self.check(slot.offset, at * self.pattern.block)?;
                Ok(false)
            }
            Direction::Write | Direction::WriteFlush => Ok(false),
        }
    }

    fn mark(&mut self, offset: u64, place: usize) -> Result<()> {
        for block in (0..self.pattern.block).step_by(BLOCK) {
            self.serial += 1;
            let mut head = [0; 16];
            head[..8].copy_from_slice(&(offset + block as u64).to_le_bytes());
            head[8..].copy_from_slice(&self.serial.to_le_bytes());
            self.guest.store(place + block, &head)?;
        }
        Ok(())
    }

    fn check(&self, offset: u64, place: usize) -> Result<()> {
        for block in (0..self.pattern.block).step_by(BLOCK) {
            let mut head = [0; 8];
            self.guest.load(place + block, &mut head)?;
            let says = u64::from_le_bytes(head);
            let expected = offset + block as u64;
            ensure!(
                says == expected,
                "the block at {expected} reads as that of {says}"
            );
        }
        Ok(())
    }
}
