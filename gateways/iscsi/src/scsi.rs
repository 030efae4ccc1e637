//! SCSI for a thin disk, as pure functions from bytes to bytes (SPC-4, SBC-3): commands, pages and sense data.
//!
//! Refuses to know iSCSI and how blocks are read: `unit` does what is decoded here.

pub mod command;
pub mod copy_results;
pub mod extended_copy;
pub mod fields;
pub mod identification;
pub mod inquiry;
pub mod mode;
pub mod operations;
pub mod port_groups;
pub mod provisioning;
pub mod sense;
