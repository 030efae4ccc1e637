//! The contract of a coordination store, held against every implementation; and what faults of its own
//! each must survive. etcd is a real one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod embedded;
mod etcd;
mod interruption;
mod law;
mod proxy;
mod restore;
mod secured;
