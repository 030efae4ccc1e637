//! Several `cinder-api` processes over a real Keystone, a real etcd and a real `storaged`: what must hold when they work
//! side by side, when one of them dies, and when somebody asks for nonsense.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod backups;
mod bad_input;
mod cloud;
mod consistency_groups;
mod contract;
mod death;
mod encryption;
mod identity;
mod images;
mod limits;
mod local;
mod metrics;
mod nova;
mod operators;
mod qos;
mod races;
mod remote_backups;
