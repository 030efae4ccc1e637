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
    /// Empties a disk: its data goes to other disks, while it still serves, and it takes no more.
    #[command(
        after_help = "Nothing is lost if it is broken off: what was moved stays there. Refused where the other disks are\ntoo few for the copies that pools keep. When it is empty, `storagectl disk remove` takes it out.\n\nExample:\n  storagectl disk drain 3 --wait"
    )]
    Drain {
        /// Its number.
        disk: u32,
        /// Take data again: what is still there stays, and what belongs there comes back.
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
        /// Wait until it is empty.
        #[arg(long)]
        wait: bool,
    },
    /// Gives a disk up that is lost for good: its placement groups go on without it. Dangerous where it had the last copy.
    #[command(
        name = "give-up",
        after_help = "Only for a disk that does not come back. Where other copies are in sync nothing is lost: I/O goes on at once, below\nmin_in_sync too. Where it had the only one, --keep names the disk whose older copy is taken instead: what was written\nsince that one left is lost, and guests must be checked as after a restore from a backup.\n\nExample:\n  storagectl disk give-up 3"
    )]
    GiveUp {
        /// Its number.
        disk: u32,
        /// The disk that goes on where this one had the last copy in sync.
        #[arg(long)]
        keep: Option<u32>,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Takes an empty disk out of the cluster, for good. Refused while it holds data: `drain` it first.
    #[command(visible_alias = "rm")]
    Remove {
        /// Its number.
        disk: u32,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Lets a disk that was taken out because it is slow come back at once: its cause is mended.
    Trust {
        /// Its number.
        disk: u32,
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
