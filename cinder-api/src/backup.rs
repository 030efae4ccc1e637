//! Backups: a volume's bytes outside of the storage, whole or as the difference to an older one.
//!
//! What is stored of a backup is a [`manifest`] and objects in a [`store`]; [`copy`] brings bytes from a volume into them and
//! back. Whose a backup is, and what it is called, the records say ([`crate::records::backup`]); nothing of that is needed
//! to read it.

pub mod copy;
pub mod manifest;
mod remote;
pub mod repository;
pub mod s3;
pub mod store;
pub mod swift;

pub use manifest::Manifest;
pub use repository::{Repository, RepositorySettings};
pub use store::{ObjectStore, StoreError};
