//! Clients that others wrote, against our servers: each check runs real programs and looks at what
//! they say.
//!
//! `suite` runs checks and counts them, `tool` runs programs, `stage` starts our servers; what is
//! checked is in a module for each protocol. Programs under test are found in the folder that
//! `STORAGED_PROGRAMS` names, or beside this one. A check whose programs are not installed is
//! counted as skipped, by name.
#![forbid(unsafe_code)]

pub mod brick;
pub mod certificates;
pub mod cinder;
pub mod image;
pub mod iscsi;
pub mod libvirt;
pub mod nbd;
pub mod stage;
pub mod suite;
pub mod tool;
