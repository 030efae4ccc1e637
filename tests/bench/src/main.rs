//! The benchmarks: `local` and `vhost` (beside qemu-storage-daemon), `cluster` (beside Ceph and `GlusterFS`),
//! `iscsi` (beside tgt),
//! `openstack` (beside Cinder),
//! `pauses`, `retype`, `snapshots`, `space`, `memory`, `erasure`. `cargo xtask bench`
//! builds and runs them; results, with the machine they were taken on, are kept in
//! `docs/benchmarks.md`. Nothing here is a test: a slow run fails nothing, a wrong byte does.
#![allow(clippy::cast_precision_loss)] // Figures for people: 52 bits are plenty.

mod admin;
mod cluster;
mod erasure;
mod fio;
mod iscsi;
mod local;
mod machine;
mod memory;
mod node;
mod openstack;
mod pauses;
mod peers;
mod process;
mod retype;
mod snapshots;
mod space;
mod vhost;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// As in storaged, so that `memory` measures what storaged would take.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures storaged on this machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Three nodes with three copies, by NBD and by vhost-user-blk, beside Ceph and `GlusterFS` if their scripts are there.
    Cluster(cluster::Options),
    /// Side by side on one disk: qemu-storage-daemon, storaged with one copy, storaged with three.
    Local(local::Options),
    /// What the arithmetic of erasure coding costs on one core.
    Erasure(erasure::Options),
    /// Whether a disk keeps to its memory with a terabyte on it, and how fast it starts after a crash.
    Memory(memory::Options),
    /// A guest's disk beside qemu-storage-daemon's and beside NBD.
    Vhost(vhost::Options),
    /// How long a guest waits when a node dies, stands still, or hands a volume over.
    Pauses(pauses::Options),
    /// storaged-iscsi with one copy, three, and rows 4+2, beside tgt on a plain file.
    Iscsi(iscsi::Options),
    /// cinder-api beside the real Cinder, with 100,000 volumes in both.
    Openstack(openstack::Options),
    /// What snapshots and clones cost, by size and by depth.
    Snapshots(snapshots::Options),
    /// What a guest notices while its disk moves to another pool, and how fast that is.
    Retype(retype::Options),
    /// How much room data takes, in copies and in rows, by how it was written.
    Space(space::Options),
}

fn main() -> Result<()> {
    match Arguments::parse().benchmark {
        Benchmark::Cluster(options) => cluster::run(&options),
        Benchmark::Erasure(options) => erasure::run(&options),
        Benchmark::Local(options) => local::run(&options),
        Benchmark::Memory(options) => memory::run(&options),
        Benchmark::Pauses(options) => pauses::run(&options),
        Benchmark::Vhost(options) => vhost::run(&options),
        Benchmark::Iscsi(options) => iscsi::run(&options),
        Benchmark::Openstack(options) => openstack::run(&options),
        Benchmark::Snapshots(options) => snapshots::run(&options),
        Benchmark::Retype(options) => retype::run(&options),
        Benchmark::Space(options) => space::run(&options),
    }
}
