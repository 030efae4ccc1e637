//! Stamps: which write an object, or a chunk, had last.

use std::fmt;

use crate::id::Generation;

/// (generation, count): names one write of one volume for ever. Ordered by generation, then count.
///
/// The count comes from one counter per volume and generation and is never used twice, not even by
/// a retry with other bytes. [`Stamp::ZERO`] is the stamp of an object that was never written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The owner's generation.
    pub generation: Generation,
    /// The owner's write counter, from 1.
    pub count: u64,
}

impl Stamp {
    /// The stamp of an object that was never written.
    pub const ZERO: Self = Self {
        generation: Generation(0),
        count: 0,
    };
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation.0, self.count)
    }
}
