//! `storagectl node`.

use clap::Subcommand;

/// The machines of the cluster.
#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Lists nodes: where they stand, whether they are up, which disks they have.
    #[command(visible_alias = "ls")]
    List,
    /// Shows all about one node.
    Info {
        /// Its number.
        node: u32,
    },
    /// Empties all disks of a node: their data goes to other nodes, while they still serve, and they take no more.
    #[command(
        after_help = "Volumes that are open on the node stay open: move guests as your platform does. When it is empty, stop its\nstoraged and take it out with `storagectl node remove`.\n\nExample:\n  storagectl node drain 4 --wait"
    )]
    Drain {
        /// Its number.
        node: u32,
        /// Take data again.
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
        /// Wait until it is empty.
        #[arg(long)]
        wait: bool,
    },
    /// Takes a node that is down out of the cluster, for good. Refused while its disks hold data.
    #[command(visible_alias = "rm")]
    Remove {
        /// Its number.
        node: u32,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}
