//! How the copies of a volume stay equal: two pure state machines, the owner of a volume and the
//! replica on a disk. The rules are in `docs/protocol/replication.md`; comments name them by number.
//!
//! Events go in, actions come out. Nothing here performs I/O, reads a clock, starts a thread or
//! knows tokio: the same code runs in production and in the seeded simulator.
#![forbid(unsafe_code)]

pub mod membership;
pub mod moment;
pub mod mutation;
pub mod owner;
pub mod recovery;
pub mod relocation;
pub mod replica;
pub mod rows;
#[cfg(test)]
mod samples;
pub mod scrub;

pub use moment::Moment;
