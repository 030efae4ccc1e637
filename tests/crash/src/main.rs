//! `crash-tests`: power cuts, failing I/O and flipped bits against the store. Prints how many images
//! were looked at and what was wrong; its status says the same.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use clap::Parser;
use crash_tests::images::{Effort, power_cuts};
use crash_tests::operation::{KINDS, Kind};
use crash_tests::scenario::{self, Scenario};
use crash_tests::{Tally, failures, flips};
use store::medium::memory::Random;

/// Crash images of the store.
#[derive(Parser)]
struct Arguments {
    /// All sequences of three operations, all subsets up to ten writes under way, every byte flipped.
    #[arg(long)]
    full: bool,
    /// Bounded mode: how long to try sequences of three operations, in seconds.
    #[arg(long, default_value_t = 45)]
    seconds: u64,
    /// Bounded mode: which sequences of three are tried.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (base, start) = scenario::prepared().map_err(anyhow::Error::msg)?;
    let mut sum = Tally::default();
    let mut parts = 0;
    let mut part = |name: &str, work: &mut dyn FnMut(&mut Tally)| {
        let begun = Instant::now();
        let mut tally = Tally::default();
        work(&mut tally);
        let (images, wrong) = (tally.images, tally.violations.len());
        println!(
            "{name}: {images} images, {wrong} violations, {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        for violation in &tally.violations {
            println!("  {violation}");
        }
        sum.images += images;
        sum.violations.append(&mut tally.violations);
        parts += u32::from(wrong == 0);
    };

    let (few, all) = (
        Effort {
            subsets_up_to: 3,
            samples: 2,
            further_every: 11,
        },
        Effort {
            subsets_up_to: 10,
            samples: 16,
            further_every: 7,
        },
    );
    let effort = if arguments.full { all } else { few };
    let cuts = |kinds: &[Kind], tally: &mut Tally| {
        let scenario = Scenario::new(kinds, &start);
        for together in [false, true] {
            power_cuts(&base, &scenario, together, 0, effort, tally);
        }
    };
    part("power cuts, one operation", &mut |tally| {
        for kind in KINDS {
            cuts(&[kind], tally);
        }
    });
    part("power cuts, two operations", &mut |tally| {
        for kind in KINDS
            .iter()
            .flat_map(|first| KINDS.map(|second| [*first, second]))
        {
            if !tally.is_hopeless() {
                cuts(&kind, tally);
            }
        }
    });
    part("power cuts, three operations", &mut |tally| {
        let until = Instant::now() + Duration::from_secs(arguments.seconds);
        for kinds in triples(arguments.seed) {
            if tally.is_hopeless() || (!arguments.full && Instant::now() > until) {
                break;
            }
            cuts(&kinds, tally);
        }
    });
    part("failing I/O", &mut |tally| {
        for first in KINDS {
            for second in [Kind::Checkpoint, Kind::Merge, Kind::WriteLarge] {
                let scenario = Scenario::new(&[first, second], &start);
                for forever in [false, true] {
                    failures::fail_each(&base, &scenario, forever, tally);
                }
            }
        }
    });
    part("flipped bits", &mut |tally| {
        flips::flip_bits(&base, &start, if arguments.full { 1 } else { 64 }, tally);
    });
    println!("{} images, {} violations", sum.images, sum.violations.len());
    println!("{parts} passed, {} failed, 0 skipped", 5 - parts);
    anyhow::ensure!(sum.violations.is_empty(), "the store broke a promise");
    Ok(())
}

/// All sequences of three kinds, in an order that a seed says.
fn triples(seed: u64) -> Vec<[Kind; 3]> {
    let mut random = Random::new(seed);
    let mut triples: Vec<(u64, [Kind; 3])> = Vec::new();
    for first in KINDS {
        for second in KINDS {
            triples.extend(KINDS.map(|third| (random.next(), [first, second, third])));
        }
    }
    triples.sort_by_key(|(order, _)| *order);
    triples.into_iter().map(|(_, triple)| triple).collect()
}
