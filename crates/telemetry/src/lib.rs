//! What a process of the data path tells of itself: how many requests, how large, how long they took; the same as
//! Prometheus text; how its log lines look; what its service manager is told; and what it says of a configuration that it
//! cannot read.
//!
//! Counting happens in plain memory of the thread that does the work, without locks and without allocation; whatever
//! costs more is done by the thread that asks. This crate knows no socket, no volume and no disk.
#![forbid(unsafe_code)]

pub mod figures;
pub mod latency;
pub mod log;
mod mistake;
pub mod prometheus;
pub mod service;
pub mod traffic;

pub use figures::Figures;
pub use latency::Latencies;
pub use mistake::mistake;
