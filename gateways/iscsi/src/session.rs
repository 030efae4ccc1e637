//! The rules of a session's numbers and of data that initiators send, as pure state machines (RFC 7143 sections 4.2
//! and 11.7). Refuses to know sockets, tasks and what commands do.

pub mod assembly;
pub mod numbers;
