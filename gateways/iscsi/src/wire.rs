//! The bytes of iSCSI (RFC 7143 section 11): headers, digests and text keys, laid out by hand.
//!
//! Refuses to know sockets, sessions and SCSI: what a header says is read here, what follows from it is not.

pub mod digest;
pub mod header;
pub mod request;
pub mod response;
pub mod text;
