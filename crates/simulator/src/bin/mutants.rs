//! Tests the tests: leaves out one rule of the protocol at a time, and looks whether simulated worlds
//! notice. A rule whose absence nobody notices is either not needed or not tested.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use replication::mutation::{self, Mutation};
use simulator::campaign::on_all_cores;
use simulator::{Options, row_world, run};

/// Leaves out one rule at a time and counts how many absences are noticed.
#[derive(Parser)]
struct Arguments {
    /// Worlds that a mutant may survive before it counts as missed. Most fall in the first; a fence that
    /// is not durable needs a power cut at just the right moment.
    #[arg(long, default_value_t = 1500)]
    seeds: u64,
    /// Only mutants whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Of rules of rows, look in the large worlds that encode rows, in place of the small ones of rows alone.
    #[arg(long)]
    encoded: bool,
    /// List the mutants that worlds notice too rarely, each with the unit test that must notice it.
    #[arg(long)]
    second_lines: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.second_lines {
        for (mutant, test) in Mutation::SECOND_LINES {
            println!("{mutant:?} {test}");
        }
        return ExitCode::SUCCESS;
    }
    // Panics are among the ways in which a mutant is caught; their text would only be noise.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut caught, mut missed) = (0u64, 0u64);
    let wanted = |mutant: &Mutation| format!("{mutant:?}").contains(&arguments.only);
    let all = Mutation::ALL.into_iter().chain(Mutation::ROWS);
    let mutants: Vec<Mutation> = all.filter(wanted).collect();
    let search = |mutant: &Mutation| {
        // Of this thread only.
        mutation::set(Some(*mutant));
        let worlds = match (Mutation::ROWS.contains(mutant), arguments.encoded) {
            (true, false) => Worlds::OfRows,
            (_, encoded) => Worlds::Large { encoded },
        };
        let found = (1..=arguments.seeds).find_map(|seed| Some((seed, violation(seed, worlds)?)));
        mutation::set(None);
        found
    };
    on_all_cores(&mutants, search, |mutant, found| {
        let name = format!("{mutant:?}");
        if let Some((seed, how)) = found {
            caught += 1;
            println!(
                "caught  {name} by seed {seed}: {}",
                how.chars().take(150).collect::<String>()
            );
        } else {
            missed += 1;
            println!("MISSED  {name} after {} seeds", arguments.seeds);
        }
    });
    println!("mutants: {caught} caught, {missed} missed");
    println!("{caught} passed, {missed} failed, 0 skipped");
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Which worlds are to notice.
#[derive(Clone, Copy)]
enum Worlds {
    /// Small ones, of owners and replicas of one volume of rows.
    OfRows,
    /// Whole clusters, with a pool of copies or of rows.
    Large { encoded: bool },
}

/// What is wrong in the world of a seed, if anything.
fn violation(seed: u64, worlds: Worlds) -> Option<String> {
    let world = || match worlds {
        Worlds::OfRows => row_world(seed, false).err(),
        Worlds::Large { encoded } => {
            let options = Options {
                encoded,
                hashed: false,
                ..Options::default()
            };
            run(seed, options).violations.into_iter().next()
        }
    };
    match catch_unwind(AssertUnwindSafe(world)) {
        Ok(violation) => violation,
        Err(_) => Some("a panic".to_owned()),
    }
}
