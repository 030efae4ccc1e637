//! What the cluster agrees upon: a small store of records with compare-and-swap, watches and leases,
//! the records that storaged keeps in it, and the map that is built from them.
//!
//! Never on the data path: volumes that are open go on without it until something must change. This
//! crate knows nothing of disks' contents, of sockets, or of what the records are used for.
#![forbid(unsafe_code)]

pub mod attach;
pub mod embedded;
pub mod engine;
pub mod etcd;
pub mod keys;
pub mod layout;
pub mod map;
pub mod placement;
pub mod records;
pub mod store;

pub use embedded::Embedded;
pub use etcd::Etcd;
pub use map::ClusterMap;
pub use store::{
    Change, Compare, Coordination, CoordinationError, Entry, Event, LeaseId, Outcome, Range, Revision,
    Transaction, Watch, WatchEnded,
};
