//! A whole daemon in this process, spoken to as operators and guests do: HTTP for the former, the
//! client crate for the latter. Real disks, real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod api;
mod disks;
mod etcd;
mod iscsi;
mod kill;
mod life;
mod network;
mod node;
mod space;
