//! The Block Storage API: what OpenStack's own tests and clients find when they use `cinder-api`, or the real Cinder in its
//! place.

pub mod clients;
pub(crate) mod cloud;
mod outcome;
mod reference;
pub mod schema;
mod tempest;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::suite::Tally;
use cloud::Cloud;
pub use cloud::Server;
use outcome::{Fate, Outcome};

/// What to run, and against whom.
pub struct Wanted {
    /// Who serves the API.
    pub server: Server,
    /// A regular expression for the names of tests; nothing for all.
    pub only: Option<String>,
    /// One JSON object for each test, instead of a table.
    pub json: bool,
    /// Where to write down what became of each test, as what the real Cinder does.
    pub record: Option<PathBuf>,
    /// Where configurations and logs are left.
    pub keep: Option<PathBuf>,
}

/// Runs Tempest's tests of volumes, and Cinder's own.
pub fn run(wanted: &Wanted) -> Tally {
    perform(wanted).unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.fail("Tempest", &error);
        tally
    })
}

fn perform(wanted: &Wanted) -> Result<Tally> {
    let temporary = tempfile::tempdir()?;
    let folder = wanted.keep.as_deref().unwrap_or(temporary.path());
    let cloud = Cloud::start(folder, &wanted.server)?;
    let mut outcomes = tempest::run(&cloud, wanted.only.as_deref(), !wanted.json)?;
    outcomes.sort();
    if let Some(path) = &wanted.record {
        std::fs::write(path, reference::written(&outcomes))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if !matches!(wanted.server, Server::Reference) {
        outcomes.iter_mut().for_each(reference::judge);
    }
    if wanted.json {
        for outcome in &outcomes {
            println!("{}", outcome.json());
        }
    } else {
        outcome::print_table(&outcomes);
    }
    Ok(count(&outcomes))
}

fn count(outcomes: &[Outcome]) -> Tally {
    let mut tally = Tally::default();
    for outcome in outcomes {
        match outcome.fate {
            Fate::Passed => tally.passed += 1,
            Fate::Failed => tally.failed += 1,
            Fate::Skipped => tally.skipped += 1,
        }
    }
    tally
}
