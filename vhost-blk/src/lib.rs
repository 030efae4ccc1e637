//! A virtio block device for one guest, spoken over vhost-user: rings in guest memory on one side,
//! a [`client::device::BlockDevice`] on the other.
//!
//! Two threads, and a third for an operator. The *control* thread ([`server`], [`session`]) answers the front end's messages
//! (QEMU's) and owns the configuration. The *data* thread ([`worker`], [`ring`]) owns the device and
//! every ring that runs. A ring is handed over whole: started by a command, stopped by a command
//! that is answered only when nothing of it is under way. What is under way is written down in memory that
//! outlives the process ([`inflight`]), so that the next one can finish it. [`chain`] and [`request`] read what the guest
//! says; they trust nothing and do no I/O.
//!
//! The *operator* thread ([`operator`]) speaks HTTP on the control socket, if there is one, and sends
//! the data thread orders. Before any of them speaks to a stranger the process gives up what it has no use
//! for ([`sandbox`]).
//!
//! This crate knows virtio and vhost-user; it knows nothing of replicas, disks or layers.
#![forbid(unsafe_code)]

pub mod backing;
pub mod chain;
pub mod config_space;
pub mod dirty_log;
pub mod front_end;
pub mod guest_memory;
pub mod inflight;
pub mod operator;
pub mod request;
pub mod ring;
pub mod sandbox;
pub mod server;
pub mod service;
pub mod session;
pub mod tenure;
pub mod worker;
