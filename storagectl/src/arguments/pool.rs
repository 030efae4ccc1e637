//! `storagectl pool`.

use admin_api::pools::FailureDomain;
use clap::{Subcommand, ValueEnum};

/// How far apart the copies of a block are.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Apart {
    /// On distinct disks.
    Disk,
    /// On distinct nodes.
    Node,
    /// In distinct zones.
    Zone,
}

impl From<Apart> for FailureDomain {
    fn from(apart: Apart) -> Self {
        match apart {
            Apart::Disk => Self::Disk,
            Apart::Node => Self::Node,
            Apart::Zone => Self::Zone,
        }
    }
}

/// Redundancy policies over disks.
#[derive(Subcommand)]
pub(crate) enum PoolCommand {
    /// Makes a pool.
    #[command(
        after_help = "Examples:\n  storagectl pool create main\n  storagectl pool create scratch --copies 1 --disks 2,3\n  \
            storagectl pool create archive --erasure 4+2\n\n\
            4+2 takes half as much room as 3 copies and bears as many failures, and wants 6 disks on distinct nodes. Large \
            writes are faster than with copies, small ones cost as much as 3 copies do until they are encoded."
    )]
    Create {
        /// Its name.
        name: String,
        /// Copies of each block, on as many disks. 3 if left out.
        #[arg(long)]
        copies: Option<u32>,
        /// Erasure coding in place of copies: shards of data and of parity, as in 4+2; as many disks may fail as there
        /// are shards of parity.
        #[arg(long, value_name = "DATA+PARITY", conflicts_with = "copies")]
        erasure: Option<String>,
        /// With fewer copies in sync than this, writes wait: 2 if left out, or 1 with one copy. With erasure coding of
        /// shards: one more than those of data if left out.
        #[arg(long)]
        min_in_sync: Option<u32>,
        /// Into how many groups to split it; chosen by the number of disks if left out.
        #[arg(long)]
        groups: Option<u32>,
        /// The disks to use, by number; all if left out.
        #[arg(long, value_delimiter = ',')]
        disks: Option<Vec<u32>>,
        /// How far apart copies are; on distinct nodes if left out, once more than one node has disks.
        #[arg(long, value_enum)]
        failure_domain: Option<Apart>,
    },
    /// Lists pools.
    #[command(visible_alias = "ls")]
    List,
    /// Shows all about one pool.
    Info {
        /// Its name.
        name: String,
    },
    /// Begins to look after the copies on the pool's disks of storaged's node, one disk beside the other.
    #[command(after_help = "Ends with status 5 if something is not well, once it has waited for the end.")]
    Scrub {
        /// Its name.
        name: String,
        /// Also read all blocks, and store damaged ones again from other copies.
        #[arg(long)]
        deep: bool,
        /// Wait for the end, and show what was found.
        #[arg(long)]
        wait: bool,
    },
    /// Deletes a pool that has no volumes.
    Delete {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}
