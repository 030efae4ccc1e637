//! What cinder-api knows of volumes, types, quotas and the rest: typed records in the cluster's coordination store, all of
//! them also in this process's memory.
//!
//! Every process has the whole in memory ([`tables`]), follows the store's changes ([`replica`]), and changes it by
//! transactions that hold or fail as one ([`edit`]). Which states follow which is the business of [`crate::api`] and
//! [`crate::work`]; this module knows no HTTP and no disks. Decision 0069 says why the records are there.

pub mod attachment;
pub mod backup;
pub mod edit;
pub mod group;
pub mod image;
pub mod instant;
pub mod job;
pub mod managed;
pub mod message;
mod names;
pub mod qos;
pub mod quota;
pub mod replica;
pub mod service;
pub mod snapshot;
pub mod table;
pub mod tables;
pub mod transfer;
pub mod volume;
pub mod volume_type;

pub use attachment::Attachment;
pub use backup::Backup;
pub use edit::Edit;
pub use instant::Instant;
pub use job::Job;
pub use replica::{Records, RecordsError};
pub use snapshot::Snapshot;
pub use table::{Dated, Record, Stored, Table};
pub use tables::Tables;
pub use volume::Volume;
pub use volume_type::VolumeType;
