//! `storagectl upgrade`.

use clap::Subcommand;

/// Bringing all nodes to a newer version.
#[derive(Subcommand)]
pub(crate) enum UpgradeCommand {
    /// Shows which versions run and what they speak, and says which node to restart next.
    #[command(after_help = "How to upgrade node by node: docs/operations/upgrade.md.")]
    Status {
        /// End with status 5 unless a node may be restarted now: for scripts.
        #[arg(long)]
        check: bool,
    },
}
