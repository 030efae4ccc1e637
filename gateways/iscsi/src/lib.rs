//! The iSCSI gateway: serves volumes of the cluster to initiators, as logical units of targets.
//!
//! `wire` knows bytes; `login` and `session` know the order in which they are said; `scsi` and `reservation` know
//! commands; all of these are pure. `unit` carries commands out on a volume; `target` is the thread on which a target's
//! sessions and units live; `connection` and `portal` know sockets; `source` knows where volumes come from, and
//! `directory` what the cluster says about targets. Nothing here knows where a block lies: that is the `client` crate's.
#![forbid(unsafe_code)]

pub mod connection;
pub mod directory;
pub mod login;
pub mod portal;
pub mod reservation;
pub mod scsi;
pub mod session;
pub mod source;
pub mod target;
pub mod unit;
pub mod wire;
