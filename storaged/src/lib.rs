//! The node daemon: runs the node's disks, serves the front ends of the node, keeps the cluster's
//! records, and offers the admin API.
//!
//! A library so that its parts can be tested without a process; the program is `main.rs`. Only here
//! do `store`, `replication`, `coordination` and sockets meet.
#![forbid(unsafe_code)]

pub mod absence;
pub mod access;
pub mod admin;
pub mod caretaker;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod departures;
pub mod disk;
pub mod disks;
pub mod events;
pub mod expiry;
pub mod give_up;
pub mod health;
pub mod identities;
pub mod iscsi;
pub mod membership;
pub mod metrics;
pub mod moment;
pub mod near_full;
pub mod peers;
pub mod pools;
pub mod process;
pub mod progress;
pub mod reclaim;
pub mod relocation;
pub mod scrub;
pub mod session;
pub mod shrink;
pub mod slow;
pub mod tasks;
pub mod upgrade;
pub mod volumes;
pub mod watchman;
