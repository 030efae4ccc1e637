//! The agent over a gateway that is there, and a kernel in memory: this machine's has no NBD client. The real one is
//! asked in guests (`tests/vm`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod agent;
mod devices;
mod gateway;
