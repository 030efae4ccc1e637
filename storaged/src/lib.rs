//! The node daemon: runs the node's disks, serves the front ends of the node, keeps the cluster's
//! records, and offers the admin API.
//!
//! A library so that its parts can be tested without a process; the program is `main.rs`. Only here
//! do `store`, `replication`, `coordination` and sockets meet.

pub mod disk;
pub mod events;
pub mod identities;
pub mod moment;
pub mod pools;
pub mod session;
pub mod tasks;
pub mod volumes;
