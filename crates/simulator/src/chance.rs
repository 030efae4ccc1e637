//! The one source of randomness of a world, and the log that tells two runs apart.

use std::fmt::Arguments;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Randomness from a seed.
#[derive(Debug)]
pub(crate) struct Chance(SmallRng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of a list, or nothing of an empty one.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let last = u64::try_from(from.len()).ok()?.checked_sub(1)?;
        from.get(usize::try_from(self.between(0, last)).ok()?).copied()
    }
}

/// What happened, as a hash, and as lines if somebody wants to read them.
#[derive(Debug)]
pub(crate) struct Log {
    hash: u64,
    lines: u64,
    verbose: bool,
    hashed: bool,
}

impl Log {
    /// One that is compared with another is `hashed`; otherwise its lines are only counted.
    pub(crate) fn new(verbose: bool, hashed: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            verbose,
            hashed,
        }
    }

    /// Adds a line. The hash is FNV-1a: it must be the same everywhere and for ever, nothing more.
    pub(crate) fn line(&mut self, microseconds: u64, text: Arguments<'_>) {
        struct Hasher(u64);
        impl std::fmt::Write for Hasher {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                for byte in text.bytes() {
                    self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                Ok(())
            }
        }
        if self.verbose {
            println!(
                "{:>12.3} ms  {text}",
                std::time::Duration::from_micros(microseconds).as_secs_f64() * 1e3
            );
        }
        self.lines += 1;
        if self.hashed {
            let mut hasher = Hasher(self.hash ^ microseconds);
            // Writing to the hasher cannot fail.
            let _ = std::fmt::Write::write_fmt(&mut hasher, text);
            self.hash = hasher.0;
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }
}
