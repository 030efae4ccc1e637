//! What a front end and a disk of one machine share besides a socket. Direct reads: the front end reads the
//! disk's file itself (`docs/decisions/0031-direct-reads.md` says why, and why it is safe). Shared writes: the
//! disk finds the data of large writes in the front end's memory (`0032-shared-writes.md`).
//!
//! [`witness`] is the memory that a disk shares with its readers: counters that say whether what a
//! reader was told is still so. [`places`] is what a reader was told, [`reader`] asks the kernel, [`cache`]
//! keeps what came, [`area`] is the memory of writes. This
//! crate knows nothing of sockets, owners or requests; a reader that fails in any way asks the disk.

pub mod area;
pub mod buffers;
pub mod cache;
mod mapping;
pub mod places;
pub mod reader;
pub mod witness;
