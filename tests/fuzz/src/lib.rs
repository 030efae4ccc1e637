//! Every parser of storaged that reads what others wrote, as a function of arbitrary bytes.
//!
//! A target passes if it returns: no panic, no endless loop, no memory beyond its bounds. Where there
//! is a law beyond that (what was decoded encodes to the same bytes), the target asserts it.
//! `cargo xtask fuzz` drives the targets with libFuzzer; `cargo test -p fuzz` runs the kept corpus.
//!
//! To add a target: a module with a function, a line in [`TARGETS`], a folder under `corpus/`.
#![forbid(unsafe_code)]

mod api;
mod disk;
mod iscsi;
mod joining;
mod nbd;
mod records;
mod virtio;
mod wire;

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the name of its folder under `corpus/`.
    pub name: &'static str,
    /// Feeds it one input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "api",
        run: api::run,
    },
    Target {
        name: "disk",
        run: disk::structures,
    },
    Target {
        name: "iscsi",
        run: iscsi::pdus,
    },
    Target {
        name: "iscsi-commands",
        run: iscsi::commands,
    },
    Target {
        name: "iscsi-login",
        run: iscsi::login,
    },
    Target {
        name: "joining",
        run: joining::run,
    },
    Target {
        name: "nbd",
        run: nbd::messages,
    },
    Target {
        name: "nbd-connection",
        run: nbd::connection,
    },
    Target {
        name: "records",
        run: records::run,
    },
    Target {
        name: "virtio-ring",
        run: virtio::ring,
    },
    Target {
        name: "wire-message",
        run: wire::message,
    },
    Target {
        name: "wire-stream",
        run: wire::stream,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
