//! Volumes as block devices of this host's kernel: `/dev/storaged/VOLUME`, over the kernel's NBD client and a
//! `storaged-nbd` on this host.
//!
//! [`netlink`] knows the kernel's messages, [`kernel`] what can be asked of it, [`nbd`] asks; [`handshake`] speaks to the
//! gateway; [`mapping`] makes and ends devices by both; [`care`] keeps those that are there alive; [`agent`] follows what
//! others want the host to have, as devices or, by [`sockets`], for guests with vhost-user-blk. No byte of a volume passes through here: the kernel has the socket.
#![forbid(unsafe_code)]

pub mod agent;
pub mod care;
pub mod handshake;
pub mod kernel;
pub mod mapping;
pub mod memory;
pub mod nbd;
pub mod netlink;
pub mod sockets;
mod wish;
