//! The one way into the cluster for front ends: opens a volume, drives its owner state machine over
//! sockets, and gives reads, writes and the rest as calls that end once.
//!
//! A front end knows one thing, the address of its local `storaged`. This crate knows sockets and
//! tokio; it knows nothing of virtio, of NBD, or of how a disk stores a byte. Front ends link this
//! crate and never `storaged`.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod clock;
pub mod device;
mod exclusion;
pub mod greeting;
pub mod memory;
mod pieces;
pub mod request;
pub mod sectors;
pub mod shared;
pub mod throttle;
pub mod transport;
pub mod volume;
