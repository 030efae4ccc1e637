//! Real guests under QEMU, as tests and the demo use them.
//!
//! A guest is Debian's cloud kernel with an initramfs that is built here, from programs of this
//! machine. It obeys commands on a serial line. Nothing of it is installed on the host, and nothing of
//! the host's disks is given to it.
#![forbid(unsafe_code)]

pub mod accelerator;
pub mod archive;
pub mod backend;
mod background;
pub mod console;
pub mod guest;
pub mod image;
pub mod kernel;
pub mod packages;
pub mod patience;
mod qmp;
pub mod scenarios;
mod silence;
pub mod staging;
