//! One disk: a log, chunks, and metadata, behind `protocol::storage::StorageRequest`.
//!
//! The store keeps objects, stamps and bytes. It knows nothing of owners, placement groups' members
//! or sockets, opens no connection and reads no clock; all its I/O goes through [`medium::Medium`].
//! `docs/formats/disk.md` draws every structure that it writes.

mod allocator;
mod cache;
pub mod check;
pub mod error;
mod format;
mod log;
pub mod medium;
pub mod mutation;
mod object;
pub mod options;
pub mod parse;
mod recovery;
mod slab;
pub mod statistics;
pub mod store;
mod table;
mod tables;
mod usage;

pub use error::OpenError;
pub use options::{Engine, Format, MemoryBudget, Options};
pub use statistics::Statistics;
pub use store::{Answer, Store};
