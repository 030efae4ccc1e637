//! What a campaign tries, and on how many threads: used by the one that looks for defects and by the
//! one that plants them.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use store::medium::memory::{Image, Random};

use crate::images::{Effort, power_cuts};
use crate::model::Model;
use crate::operation::{KINDS, Kind};
use crate::scenario::{self, Scenario};
use crate::{Tally, failures, flips};

/// Scenarios have nothing in common, so as many run at a time as a small machine has cores.
const THREADS: usize = 2;

/// What a change must pass.
pub const BOUNDED: Effort = Effort {
    subsets_up_to: 3,
    samples: 2,
    further_every: 11,
};
/// What a release must pass.
pub const FULL: Effort = Effort {
    subsets_up_to: 10,
    samples: 16,
    further_every: 7,
};

/// The disk that all scenarios begin with.
#[derive(Clone, Debug)]
pub struct Ground {
    base: Image,
    start: Model,
}

impl Ground {
    /// Prepares it.
    pub fn prepare() -> Result<Self, String> {
        let (base, start) = scenario::prepared()?;
        Ok(Self { base, start })
    }

    /// Power cuts in a sequence of operations: one after the other, and all under way together.
    pub fn cut(&self, kinds: &[Kind], effort: Effort, tally: &mut Tally) {
        let scenario = Scenario::new(kinds, &self.start);
        for together in [false, true] {
            power_cuts(&self.base, &scenario, together, effort, tally);
        }
    }

    /// Every operation of the disk fails in turn, while a sequence of operations runs.
    pub fn fail(&self, kinds: &[Kind], tally: &mut Tally) {
        let scenario = Scenario::new(kinds, &self.start);
        for forever in [false, true] {
            failures::fail_each(&self.base, &scenario, forever, tally);
        }
    }

    /// Bits of what a sequence of operations leaves are flipped, one in every `stride` bytes.
    pub fn flip(&self, kinds: &[Kind], stride: u64, tally: &mut Tally) {
        let scenario = Scenario::new(kinds, &self.start);
        flips::flip_bits(&self.base, &scenario, stride, tally);
    }

    /// Whether the last of these kinds does anything: if not, a shorter sequence says the same.
    pub fn matters(&self, kinds: &[Kind]) -> bool {
        let steps = |kinds: &[Kind]| Scenario::new(kinds, &self.start).steps.len();
        kinds.is_empty() || steps(kinds) > steps(&kinds[..kinds.len() - 1])
    }
}

/// All sequences of so many kinds, in an order that a seed says.
pub fn sequences(length: usize, seed: u64) -> Vec<Vec<Kind>> {
    let mut sequences = vec![Vec::new()];
    for _ in 0..length {
        let longer = |kinds: &Vec<Kind>| KINDS.map(|kind| [kinds.as_slice(), &[kind]].concat());
        sequences = sequences.iter().flat_map(longer).collect();
    }
    let mut random = Random::new(seed);
    sequences.sort_by_cached_key(|_| random.next());
    sequences
}

/// What the campaign of failing I/O tries.
pub fn failing() -> Vec<Vec<Kind>> {
    let last = [Kind::Checkpoint, Kind::Merge, Kind::WriteLarge];
    let pairs = |first| last.map(|second| vec![first, second]);
    KINDS.into_iter().flat_map(pairs).collect()
}

/// Does the work for each item until a time, or until there is nothing more to learn. The sum, and
/// for how many it was done.
pub fn each<T: Sync>(
    items: &[T],
    until: Option<Instant>,
    work: impl Fn(&T, &mut Tally) + Sync,
) -> (Tally, usize) {
    let (next, sum) = (AtomicUsize::new(0), Mutex::new((Tally::default(), 0)));
    let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if lock().0.is_hopeless() || until.is_some_and(|until| Instant::now() > until) {
                break;
            }
            // Counted from nothing, so that what is tried does not depend on who was faster.
            let mut tally = Tally::default();
            work(item, &mut tally);
            let mut sum = lock();
            sum.0.add(tally);
            sum.1 += 1;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(run);
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}
