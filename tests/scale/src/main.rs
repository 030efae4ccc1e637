//! `scale`: makes the records of a cluster of a thousand nodes up, and measures what they cost: bytes, memory, time,
//! and what happens when a node dies or a disk is added. `cargo xtask bench scale` builds and runs it; what it printed,
//! and what follows from that, is in `docs/scale.md`. Nothing here is a test: a slow run fails nothing.
#![allow(clippy::cast_precision_loss)] // Figures for people: 52 bits are plenty.
#![forbid(unsafe_code)]

mod cluster;
mod distribution;
mod layout;
mod store;

use clap::Parser;

use cluster::Plan;

/// As in storaged, so that memory is what storaged would take.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures a large cluster that is not there.
#[derive(Parser)]
struct Arguments {
    /// Nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// Disks of each.
    #[arg(long, default_value_t = 3)]
    disks: u32,
    /// Volumes, all of them open, each with one snapshot.
    #[arg(long, default_value_t = 100_000)]
    volumes: u32,
    /// Pools, which share the nodes out among themselves.
    #[arg(long, default_value_t = 125)]
    pools: u32,
    /// Placement groups of each pool.
    #[arg(long, default_value_t = 512)]
    groups: u32,
    /// Measure a real etcd of so many members too, on this machine's disk.
    #[arg(long, value_name = "MEMBERS")]
    etcd: Option<usize>,
    /// Only the layout of groups over disks: no records.
    #[arg(long)]
    layout_only: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let plan = Plan {
        nodes: arguments.nodes,
        disks: arguments.disks,
        volumes: arguments.volumes,
        pools: arguments.pools.max(1),
        groups: arguments.groups,
    };
    println!(
        "{} nodes, {} disks, {} volumes, {} pools of {} groups",
        plan.nodes,
        plan.nodes * plan.disks,
        plan.volumes,
        plan.pools,
        plan.groups
    );
    layout::measure(&plan);
    if !arguments.layout_only {
        distribution::measure(&plan)?;
    }
    if let Some(members) = arguments.etcd {
        store::measure(members)?;
    }
    Ok(())
}
