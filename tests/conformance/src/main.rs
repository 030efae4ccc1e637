//! The program `conformance`: `conformance nbd` runs the checks of one protocol.
#![forbid(unsafe_code)]

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
}

fn main() -> ExitCode {
    let Suite::Nbd { only } = Arguments::parse().suite;
    let tally = conformance::nbd::run(&Selection { only });
    println!("{tally}");
    if tally.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
