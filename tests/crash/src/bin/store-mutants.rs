//! Tests the tests of the store: leaves out one rule of the disk at a time, and looks whether the
//! oracle that should does notice. A rule whose absence nobody notices is either not needed or not tested.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use crash_tests::campaign::{self, BOUNDED, Ground};
use crash_tests::operation::Kind;
use crash_tests::{Tally, flips, lives};
use store::mutation::{self, Mutation};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Mutants under test at a time: each has its thread, to which its switch belongs.
const THREADS: usize = 2;
/// Random lives that a mutant may survive.
const LIVES: u64 = 8;
/// One bit is flipped in so many bytes.
const FLIP_STRIDE: u64 = 256;

/// What may notice. It counts what it finds; it may panic, too, if it finds something.
#[derive(Clone, Copy, Debug)]
enum Oracle {
    /// Power cuts in all sequences of so many operations.
    PowerCuts(usize),
    FailingIo,
    FlippedBits,
    RandomLives,
}

const ORACLES: [Oracle; 5] = [
    Oracle::PowerCuts(1),
    Oracle::PowerCuts(2),
    Oracle::FailingIo,
    Oracle::FlippedBits,
    Oracle::RandomLives,
];

impl Oracle {
    /// The cheapest one that notices a mutant.
    fn of(mutant: Mutation) -> Self {
        match mutant {
            Mutation::LogNotDurable
            | Mutation::DirectNotDurable
            | Mutation::TornBatchTaken
            | Mutation::NoFlushAtStart
            | Mutation::DoubtNotKept
            | Mutation::DoubtLeftByMerge
            | Mutation::FloorIgnored => Self::PowerCuts(1),
            Mutation::NoDataFlush
            | Mutation::SealNotAwaited
            | Mutation::ReuseBeforeCommit
            | Mutation::TornSlotsTaken
            | Mutation::ZeroForgotten
            | Mutation::ZeroKeepsSlot
            | Mutation::MergeLosesBlock
            | Mutation::MergeTakesOlder
            | Mutation::LevelKeepsZeros
            | Mutation::SettleNotKept
            | Mutation::MergeForgetsRows
            | Mutation::UsageNotKept => Self::PowerCuts(2),
            Mutation::FailedLogIgnored
            | Mutation::FailedDirectIgnored
            | Mutation::FailedCheckpointIgnored
            | Mutation::FailedFlushIgnored => Self::FailingIo,
            Mutation::UnverifiedRead | Mutation::LaterBatchesIgnored => Self::FlippedBits,
            Mutation::DirtyEvicted | Mutation::ReadBeforeDurable => Self::RandomLives,
        }
    }

    fn look(self, ground: &Ground, tally: &mut Tally) {
        match self {
            Self::PowerCuts(length) => {
                let mut sequences = campaign::sequences(length, 1);
                sequences.retain(|kinds| ground.matters(kinds));
                for_each(&sequences, tally, |kinds, tally| {
                    ground.cut(kinds, BOUNDED, tally);
                });
            }
            Self::FailingIo => for_each(&campaign::failing(), tally, |kinds, tally| {
                ground.fail(kinds, tally);
            }),
            Self::FlippedBits => for_each(&flips::STATES, tally, |kinds, tally| {
                ground.flip(kinds, FLIP_STRIDE, tally);
            }),
            Self::RandomLives => {
                for seed in 1..=LIVES {
                    lives::live(seed);
                    tally.count(Ok(()), String::new);
                }
            }
        }
    }
}

/// Leaves out one rule at a time and counts how many absences are noticed.
#[derive(Parser)]
struct Arguments {
    /// Only mutants whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ground = match Ground::prepare() {
        Ok(ground) => ground,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Panics are among the ways in which a mutant is caught; their text would only be noise.
    std::panic::set_hook(Box::new(|_| {}));
    // None of them at first: an oracle that always cries catches nothing. Each oracle by itself, so that threads share them.
    let mut all: VecDeque<(Option<Mutation>, Oracle)> = ORACLES.map(|oracle| (None, oracle)).into();
    let wanted = |mutant: &Mutation| format!("{mutant:?}").contains(&arguments.only);
    let mutants = Mutation::ALL.into_iter().filter(wanted);
    // The last ones take longest: taken last, one thread would work on them alone.
    all.extend(mutants.rev().map(|mutant| (Some(mutant), Oracle::of(mutant))));
    let (queue, counts) = (Mutex::new(all), Mutex::new((0u64, 0u64)));
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((mutant, oracle)) = take() {
                    let good = try_one(&ground, mutant, oracle);
                    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    counts.0 += u64::from(good);
                    counts.1 += u64::from(!good);
                }
            });
        }
    });
    let (good, bad) = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("mutants of the store, and the store itself: {good} as they should, {bad} not");
    println!("{good} passed, {bad} failed, 0 skipped");
    if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether an oracle notices a mutant, or does not notice the sound store.
fn try_one(ground: &Ground, mutant: Option<Mutation>, oracle: Oracle) -> bool {
    let begun = Instant::now();
    mutation::set(mutant);
    let found = violation(ground, oracle);
    mutation::set(None);
    let seconds = begun.elapsed().as_secs_f64();
    let name = mutant.map_or("the sound store".to_owned(), |mutant| format!("{mutant:?}"));
    let good = found.is_some() == mutant.is_some();
    match (found, good) {
        (Some(how), true) => {
            let how: String = how.chars().take(160).collect();
            println!("caught  {name} by {oracle:?} after {seconds:.1} s: {how}");
        }
        (Some(how), false) => println!("WRONG   {name} by {oracle:?}: {how}"),
        (None, true) => println!("sound   {name} by {oracle:?} after {seconds:.1} s"),
        (None, false) => println!("MISSED  {name} by {oracle:?} after {seconds:.1} s"),
    }
    good
}

/// What an oracle finds wrong now, if anything.
fn violation(ground: &Ground, oracle: Oracle) -> Option<String> {
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let mut tally = Tally::of_first();
        oracle.look(ground, &mut tally);
        tally
    }));
    match looked {
        Ok(tally) => tally.violations.into_iter().next(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(text.unwrap_or_else(|| "a panic".to_owned()))
        }
    }
}

/// Tries sequence after sequence until something is found.
fn for_each<K: AsRef<[Kind]>>(sequences: &[K], tally: &mut Tally, work: impl Fn(&[Kind], &mut Tally)) {
    for kinds in sequences {
        if tally.is_hopeless() {
            return;
        }
        work(kinds.as_ref(), tally);
    }
}
