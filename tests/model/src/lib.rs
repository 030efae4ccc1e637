//! The replication protocol of a pool of copies as a model that `stateright` explores: every order of everything that
//! can happen to one object in a bounded world. It knows rules and not code; `docs/protocol/model.md` says which part
//! of `crates/replication` each rule is kept by, and what is left out here.
#![forbid(unsafe_code)]

pub mod action;
pub mod disk;
pub mod group;
pub mod law;
pub mod owner;
pub mod rows;
pub mod rule;
pub mod scope;
pub mod search;
pub mod space;
pub mod state;
pub mod symmetry;

pub use rule::{Rule, SECOND_LINES, WITNESSES};
pub use scope::{LONG, SHORT, Scope};
pub use search::{Bounds, Report, explore};
