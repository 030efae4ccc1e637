//! Direct reads: a front end reads the file of a disk on its own machine, without waking the disk's
//! thread. `docs/decisions/0031-direct-reads.md` says why, and why it is safe.
//!
//! [`witness`] is the memory that a disk shares with its readers: counters that say whether what a
//! reader was told is still so. [`places`] is what a reader was told, [`reader`] asks the kernel. This
//! crate knows nothing of sockets, owners or requests; a reader that fails in any way asks the disk.

pub mod buffers;
pub mod places;
pub mod reader;
pub mod witness;
