//! The NBD gateway: serves volumes and snapshots of the cluster to clients of the Network Block
//! Device protocol, over unix sockets and over TCP with TLS.
//!
//! `wire` knows bytes; `negotiation` and `connection` know the order in which they are said;
//! `registry` and `volume` know which volumes are open and on which thread; `server` knows
//! sockets; `control` tells an operator what is counted. Nothing here knows where a block lies: that is the `client` crate's.
#![forbid(unsafe_code)]

pub mod address;
pub mod connection;
pub mod control;
pub mod export;
pub mod negotiation;
pub mod registry;
pub mod server;
pub mod socket;
pub mod source;
pub mod tls;
pub mod volume;
pub mod wire;
pub mod zeros;
