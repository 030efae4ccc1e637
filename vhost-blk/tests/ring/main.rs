//! The laws of a ring, on a real virtqueue in guest memory: what the guest asked for is done, once,
//! answered after it is done; and nothing that a guest writes into its memory hurts anybody else.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that it did not expect"
)]

mod flow;
mod guest;
mod handover;
mod hostility;
mod inflight;
mod requests;
