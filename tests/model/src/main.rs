//! `model-tests`: explores the model of the replication protocol. Prints how many states there are and which law was
//! broken, if one was; its status says the same.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use model_tests::search::Space;
use model_tests::{Bounds, LONG, Rule, SHORT, Scope, explore, rows};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Explores the model of the replication protocol.
#[derive(Parser)]
struct Arguments {
    /// The large scopes too.
    #[arg(long)]
    long: bool,
    /// Only this scope.
    #[arg(long)]
    scope: Option<String>,
    /// Leave this rule out: a law is to be broken, and the shortest way to it is printed.
    #[arg(long)]
    without: Option<String>,
    /// Stop each scope after so many transitions. The default is what fits into 10 GiB.
    #[arg(long, default_value_t = 400_000_000)]
    transitions: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// What all scopes came to.
#[derive(Default)]
struct Sum {
    states: usize,
    passed: usize,
    failed: usize,
}

impl Sum {
    /// Explores a scope, and prints what it came to.
    fn add<S: Space>(&mut self, scope: S, bounds: Bounds) {
        let report = explore(scope, bounds);
        let unseen = report.unseen();
        println!("{report}");
        if let Some(violation) = &report.violation {
            println!("{violation}");
        }
        for unseen in &unseen {
            println!("  never: {unseen}");
        }
        self.states += report.states;
        if report.violation.is_none() && unseen.is_empty() {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let bounds = Bounds {
        threads: arguments.threads,
        transitions: Some(arguments.transitions),
    };
    let (copies, rows) = scopes(&arguments)?;
    let mut sum = Sum::default();
    for scope in copies {
        sum.add(scope, bounds);
    }
    for scope in rows {
        sum.add(scope, bounds);
    }
    let Sum {
        states,
        passed,
        failed,
    } = sum;
    println!("{states} states in {} scopes", passed + failed);
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The scopes that are wanted, of copies and of rows, without the rule that is to be left out.
fn scopes(arguments: &Arguments) -> anyhow::Result<(Vec<Scope>, Vec<rows::Scope>)> {
    let (mut copies, mut rows) = (SHORT.to_vec(), rows::SHORT.to_vec());
    if arguments.long {
        copies.extend(LONG);
        rows.extend(rows::LONG);
    }
    if let Some(name) = &arguments.scope {
        copies = Scope::named(name).into_iter().collect();
        rows = rows::Scope::named(name).into_iter().collect();
        ensure!(copies.len() + rows.len() > 0, "there is no scope {name}");
    }
    let Some(name) = &arguments.without else {
        return Ok((copies, rows));
    };
    let of_copies = Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == *name);
    let of_rows = rows::Rule::ALL
        .into_iter()
        .find(|rule| format!("{rule:?}") == *name);
    ensure!(
        of_copies.is_some() || of_rows.is_some(),
        "there is no rule {name}"
    );
    let copies = copies.iter().filter_map(|scope| Some(scope.without(of_copies?)));
    let rows = rows.iter().filter_map(|scope| Some(scope.without(of_rows?)));
    Ok((copies.collect(), rows.collect()))
}
