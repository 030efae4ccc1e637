//! The store against a model of it, with power cuts, failing I/O and flipped bits at every point.
//!
//! A scenario is a few operations on a prepared disk in memory. It is run once with a recording;
//! then images of what the disk could hold are made from the recording, each is opened, and what it
//! shows must be what the model allows.
#![forbid(unsafe_code)]

pub mod failures;
pub mod flips;
pub mod images;
pub mod model;
pub mod operation;
pub mod scenario;

/// What a campaign found.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Disks that were opened and looked at.
    pub images: u64,
    /// What should not have been, one sentence each, with what is needed to see it again.
    pub violations: Vec<String>,
}

/// After so many violations there is nothing more to learn from a run.
pub const VIOLATIONS_MAX: usize = 20;

impl Tally {
    /// Counts an image and what was wrong with it.
    pub fn count(&mut self, outcome: Result<(), String>, scene: impl FnOnce() -> String) {
        self.images += 1;
        if let Err(what) = outcome {
            self.violations.push(format!("{}: {what}", scene()));
        }
    }

    /// Whether to stop early.
    pub fn is_hopeless(&self) -> bool {
        self.violations.len() >= VIOLATIONS_MAX
    }
}
