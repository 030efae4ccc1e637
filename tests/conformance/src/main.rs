//! The program `conformance`: `conformance nbd` runs the checks of one protocol.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use conformance::suite::Selection;

/// Run clients that others wrote against storaged's servers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// qemu-io, qemu-img, nbdinfo, nbdcopy, fio and raw bytes against storaged-nbd
    Nbd {
        /// Only checks whose names contain this
        #[arg(default_value = "")]
        only: String,
    },
    /// libiscsi's tools, its conformance suite and QEMU's initiator against storaged-iscsi
    Iscsi {
        /// Only checks whose names contain this
        #[arg(default_value = "")]
        only: String,
        /// Leave out what takes minutes: the suite over a cluster, and over long blocks
        #[arg(long)]
        brief: bool,
    },
    /// Debian's libvirt with a disk of vhost-blk, and a real guest that uses it
    Libvirt {
        /// Only checks whose names contain this
        #[arg(default_value = "")]
        only: String,
        /// Where the guest's image is kept
        #[arg(long, default_value = "target/guest")]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let tally = match Arguments::parse().suite {
        Suite::Nbd { only } => conformance::nbd::run(&Selection { only }),
        Suite::Iscsi { only, brief } => conformance::iscsi::run(&Selection { only }, brief),
        Suite::Libvirt { only, folder } => conformance::libvirt::run(&Selection { only }, &folder),
    };
    println!("{tally}");
    if tally.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
