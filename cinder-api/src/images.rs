//! Images: what Glance has and says of them ([`glance`]), whether one may be believed ([`checks`]), files that they become on
//! the way ([`scratch`]), and bytes on their way into and out of volumes ([`flow`]).
//!
//! An image is somebody's file and may be made to do harm. Formats but raw are looked at and converted by `qemu-img`, in a
//! process of its own with limits, which sees files in a directory of ours and no volume (decision 0070).

pub mod checks;
pub mod flow;
pub mod glance;
pub mod scratch;

pub use glance::{Glance, Image};
