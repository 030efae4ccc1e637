//! The store against a model of it, with power cuts, failing I/O and flipped bits at every point.
//!
//! A scenario is a few operations on a prepared disk in memory. It is run once with a recording;
//! then images of what the disk could hold are made from the recording, each is opened, and what it
//! shows must be what the model allows. Beside the scenarios there are long random lives.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod failures;
pub mod flips;
pub mod images;
pub mod lives;
pub mod model;
pub mod operation;
pub mod scenario;

/// What a campaign found.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Disks that were opened and looked at.
    pub images: u64,
    /// What should not have been, one sentence each, with what is needed to see it again.
    pub violations: Vec<String>,
    /// After so many violations there is nothing more to learn.
    enough: usize,
}

/// What a run that looks for all violations stops at.
const VIOLATIONS_MAX: usize = 20;

impl Default for Tally {
    fn default() -> Self {
        Self {
            images: 0,
            violations: Vec::new(),
            enough: VIOLATIONS_MAX,
        }
    }
}

impl Tally {
    /// A tally that is content with one violation.
    pub fn of_first() -> Self {
        Self {
            enough: 1,
            ..Self::default()
        }
    }

    /// Counts an image and what was wrong with it.
    pub fn count(&mut self, outcome: Result<(), String>, scene: impl FnOnce() -> String) {
        self.images += 1;
        if let Err(what) = outcome {
            self.violations.push(format!("{}: {what}", scene()));
        }
    }

    /// Adds what another has.
    pub fn add(&mut self, mut other: Self) {
        self.images += other.images;
        self.violations.append(&mut other.violations);
    }

    /// Whether to stop early.
    pub fn is_hopeless(&self) -> bool {
        self.violations.len() >= self.enough
    }
}
