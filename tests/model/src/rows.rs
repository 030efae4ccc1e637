//! The rows of an erasure-coded pool as a model (`docs/decisions/0050-erasure-coding.md`): one row of two shards of data and
//! one of parity, and its front on two of the three disks. Whether a torn write can be seen, whether what is
//! acknowledged can be lost, and whether a block can go back, in every order of everything.
//!
//! What the model of copies shows already is taken for granted here: each of a dead owner's writes comes to a disk in
//! order or never, a fence ends them, and a record is known to all at once.

pub mod action;
pub mod law;
pub mod rule;
pub mod space;
pub mod world;

pub use rule::Rule;
pub use world::{LONG, SHORT, Scope};
