//! Several nodes as one cluster: real `storaged` processes over one real etcd, disks over TCP, front ends as
//! guests' are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod comparing;
mod encoded;
mod figures;
mod gateway;
mod guest;
mod health;
mod iscsi;
mod joining;
mod members;
mod moves;
mod ownership;
mod recovery;
mod relocation;
mod restored;
mod retype;
mod secrets;
mod shared;
mod volumes;
