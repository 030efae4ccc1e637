//! `storagectl top`.

use std::path::PathBuf;

use clap::Args;

/// The longest time between two looks, in seconds: an hour.
const INTERVAL_MAX_S: u64 = 3600;

/// What volumes and disks do just now.
#[derive(Args)]
pub(crate) struct TopArguments {
    /// Show one table and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Between two looks; all rates and times are of what came in between.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=INTERVAL_MAX_S))]
    pub(crate) interval: u64,
    /// Where front ends have their control sockets: a socket, or a folder whose *.control are meant. May be given
    /// several times. [default: /run/storaged-vhost and /run/storaged-nbd]
    #[arg(long, value_name = "PATH")]
    pub(crate) controls: Vec<PathBuf>,
}
