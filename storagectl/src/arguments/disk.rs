//! `storagectl disk`.

use std::path::PathBuf;

use clap::Subcommand;

/// The units of storage.
#[derive(Subcommand)]
pub(crate) enum DiskCommand {
    /// Adds a directory of storaged's host as a disk.
    #[command(after_help = "Example:\n  storagectl disk add /srv/nvme0/storaged")]
    Add {
        /// An absolute path; made if it is not there.
        path: String,
        /// The most that it may use: 500G, 1TB or bytes; all of its file system, less a reserve, if left out.
        #[arg(long)]
        capacity: Option<String>,
        /// Its share of the data against other disks'; by its capacity if left out.
        #[arg(long)]
        weight: Option<u32>,
    },
    /// Lists disks.
    #[command(visible_alias = "ls")]
    List,
    /// Shows all about one disk.
    Info {
        /// Its number.
        disk: u32,
    },
    /// Gives a disk another share of the data. 0 puts nothing new on it.
    Weight {
        /// Its number.
        disk: u32,
        /// The new share.
        weight: u32,
    },
    /// Begins to look after a disk's copies: compares their stamps with all other copies in sync.
    #[command(
        after_help = "storaged does this by itself, once a day, and --deep once a week (docs/configuration.md).\nEnds with status 5 if something is not well, once it has waited for the end."
    )]
    Scrub {
        /// Its number.
        disk: u32,
        /// Also read all blocks, and store damaged ones again from other copies.
        #[arg(long)]
        deep: bool,
        /// Wait for the end, and show what was found.
        #[arg(long)]
        wait: bool,
    },
    /// Offline: shows what is in a disk's directory. No storaged may run it.
    Inspect {
        /// The directory.
        directory: PathBuf,
    },
    /// Offline: verifies every checksum and all bookkeeping in a disk's directory. Changes nothing.
    #[command(after_help = "Ends with status 5 if something is damaged.")]
    Check {
        /// The directory.
        directory: PathBuf,
    },
}
