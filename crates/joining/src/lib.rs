//! How a machine that is not yet a node becomes one: the token that it is given, and what it and a node that is
//! one already say to each other, over TLS that trusts the token and nothing else.
//!
//! This crate does not know where tokens are kept, who may make one, nor which files a node has: `storaged` keeps
//! them and hands over ([`door`]), `storagectl` asks and writes down ([`knock`]). The bytes are described in
//! `docs/protocol/joining.md`.
#![forbid(unsafe_code)]

mod bytes;
pub mod door;
pub mod knock;
pub mod message;
pub mod token;

pub use door::Door;
pub use knock::{Admitted, KnockError, knock};
pub use message::{Bundle, EtcdAccess, Refusal};
pub use token::{Fingerprint, Secret, Token, TokenError, TokenId};

/// What the certificate of whoever hands over the authority must name. No other certificate of a cluster has this
/// name, and this one is good for nothing else.
pub const NAME: &str = "join.storaged";
