//! `crash-tests`: power cuts, failing I/O and flipped bits against the store. Prints how many images
//! were looked at and what was wrong; its status says the same.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use clap::Parser;
use crash_tests::Tally;
use crash_tests::campaign::{self, BOUNDED, FULL, Ground};

/// Each image that is opened takes and gives back megabytes: the system's allocator would go to the
/// kernel for all of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bounded: one bit is flipped in so many bytes.
const FLIP_STRIDE: u64 = 64;
/// Full: one bit is flipped in so many bytes.
const FLIP_STRIDE_FULL: u64 = 4;

/// Crash images of the store.
#[derive(Parser)]
struct Arguments {
    /// All sequences of three operations, all subsets up to ten writes under way, sixteen times the bits.
    #[arg(long)]
    full: bool,
    /// How long to try sequences of three operations, in seconds. Bounded mode: 45; full: until all were tried.
    #[arg(long)]
    seconds: Option<u64>,
    /// In which order sequences of three are tried.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the parts of a campaign come to.
#[derive(Default)]
struct Sum {
    images: u64,
    violations: usize,
    passed: u64,
    failed: u64,
}

impl Sum {
    fn part(&mut self, name: &str, work: impl FnOnce() -> (Tally, usize)) {
        let begun = Instant::now();
        let (tally, items) = work();
        let (images, wrong) = (tally.images, tally.violations.len());
        println!(
            "{name}: {items} sequences, {images} images, {wrong} violations, {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        for violation in &tally.violations {
            println!("  {violation}");
        }
        self.images += images;
        self.violations += wrong;
        if wrong == 0 && images > 0 {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let ground = Ground::prepare().map_err(anyhow::Error::msg)?;
    let (effort, stride) = if arguments.full {
        (FULL, FLIP_STRIDE_FULL)
    } else {
        (BOUNDED, FLIP_STRIDE)
    };
    let seconds = arguments.seconds.or((!arguments.full).then_some(45));
    let mut sum = Sum::default();
    let names = ["one operation", "two operations", "three operations"];
    for (length, name) in (1..).zip(names) {
        sum.part(&format!("power cuts, {name}"), || {
            let mut sequences = campaign::sequences(length, arguments.seed);
            sequences.retain(|kinds| length == 1 || ground.matters(kinds));
            let until = seconds
                .filter(|_| length == 3)
                .map(|seconds| Instant::now() + Duration::from_secs(seconds));
            let (tally, tried) =
                campaign::each(&sequences, until, |kinds, tally| ground.cut(kinds, effort, tally));
            if tried < sequences.len() {
                println!("{tried} of {} sequences of {name} were tried", sequences.len());
            }
            (tally, tried)
        });
    }
    sum.part("failing I/O", || {
        campaign::each(&campaign::failing(), None, |kinds, tally| {
            ground.fail(kinds, tally);
        })
    });
    sum.part("flipped bits", || {
        campaign::each(&crash_tests::flips::STATES, None, |kinds, tally| {
            ground.flip(kinds, stride, tally);
        })
    });
    println!("{} images, {} violations", sum.images, sum.violations);
    println!("{} passed, {} failed, 0 skipped", sum.passed, sum.failed);
    anyhow::ensure!(sum.failed == 0, "the store broke a promise");
    Ok(())
}
