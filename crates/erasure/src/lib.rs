//! Erasure coding: which chunks of an object are encoded together, and the arithmetic that gives back what is lost.
//!
//! A pool `k+m` keeps each row of k chunks as k shards of data and m of parity; any k of them give the row back
//! (`docs/decisions/0050-erasure-coding.md`). Nothing here knows of disks, versions or who asks.
#![forbid(unsafe_code)]

mod code;
mod codes;

pub use code::{Code, CodeError};
pub use codes::Codes;
pub use protocol::profile::{DATA_MAX, DATA_MIN, PARITY_MAX, PARITY_MIN, Profile, ProfileError};
pub use protocol::rows::{Row, Rows, Split};
