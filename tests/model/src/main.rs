//! `model-tests`: explores the model of the replication protocol. Prints how many states there are and which law was
//! broken, if one was; its status says the same.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use model_tests::{Bounds, LONG, Report, Rule, SHORT, Scope, explore};

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

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let bounds = Bounds {
        threads: arguments.threads,
        transitions: Some(arguments.transitions),
    };
    let rule = arguments.without.as_deref().map(named).transpose()?;
    let mut reports = Vec::new();
    for scope in scopes(&arguments)? {
        let scope = rule.map_or(scope, |rule| scope.without(rule));
        let report = explore(scope, bounds);
        println!("{report}");
        if let Some(violation) = &report.violation {
            println!("{violation}");
        }
        for unseen in report.unseen() {
            println!("  never: {unseen}");
        }
        reports.push(report);
    }
    let states: usize = reports.iter().map(|report| report.states).sum();
    println!("{states} states in {} scopes", reports.len());
    let good = |report: &&Report| report.violation.is_none() && report.unseen().is_empty();
    let passed = reports.iter().filter(good).count();
    let failed = reports.len() - passed;
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn scopes(arguments: &Arguments) -> anyhow::Result<Vec<Scope>> {
    if let Some(name) = &arguments.scope {
        let scope = Scope::named(name).ok_or_else(|| anyhow::anyhow!("there is no scope {name}"))?;
        return Ok(vec![scope]);
    }
    let long: &[Scope] = if arguments.long { LONG } else { &[] };
    Ok(SHORT.iter().chain(long).copied().collect())
}

fn named(name: &str) -> anyhow::Result<Rule> {
    let rule = Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == name);
    rule.ok_or_else(|| anyhow::anyhow!("there is no rule {name}"))
}
