//! What a process of the data path tells of itself: how many requests, how large, how long they took; the same as
//! Prometheus text; how its log lines look; and what its service manager is told.
//!
//! Counting happens in plain memory of the thread that does the work, without locks and without allocation; whatever
//! costs more is done by the thread that asks. This crate knows no socket, no volume and no disk.
#![forbid(unsafe_code)]

pub mod figures;
pub mod latency;
pub mod log;
pub mod prometheus;
pub mod service;
pub mod traffic;

pub use figures::Figures;
pub use latency::Latencies;
