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
