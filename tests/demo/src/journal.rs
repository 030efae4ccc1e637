//! What was done, what came of it, and how long it took: printed while it happens, and as a table.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps so far.
pub(crate) struct Journal {
    steps: Vec<Step>,
}

struct Step {
    what: String,
    result: String,
    took: Duration,
}

impl Journal {
    /// An empty journal.
    pub(crate) fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// Does a step, which gives a value and a few words on what came of it.
    pub(crate) fn step<T>(&mut self, what: &str, perform: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        println!("{what} ...");
        let started = Instant::now();
        let (value, result) = perform().with_context(|| what.to_owned())?;
        let took = started.elapsed();
        println!("    {result} ({:.1} s)", took.as_secs_f64());
        self.steps.push(Step {
            what: what.into(),
            result,
            took,
        });
        Ok(value)
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.steps.iter().map(|step| step.what.len()).max().unwrap_or(0);
        for Step { what, result, took } in &self.steps {
            writeln!(f, "{:>6.1} s  {what:<width$}  {result}", took.as_secs_f64())?;
        }
        let total: Duration = self.steps.iter().map(|step| step.took).sum();
        write!(f, "{:>6.1} s  in all", total.as_secs_f64())
    }
}
