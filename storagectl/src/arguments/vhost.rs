//! `storagectl vhost`.

use std::time::Duration;

use clap::Subcommand;

use super::time::parse_time;
use crate::api::Place;

/// One attached volume, through the control socket of its vhost-blk (`vhost-blk --control`).
#[derive(Subcommand)]
pub(crate) enum VhostCommand {
    /// Shows what its guest asks for, how long that takes, and what waits.
    Stats {
        /// The control socket.
        control: Place,
    },
    /// Lets its guest's requests rest: takes none, and answers when none is under way.
    #[command(after_help = "Example:
  hold=$(storagectl --json vhost drain /run/storaged/vhost/db.control --limit 10s | jq .hold)
  take-a-picture-of-something-else &&
  storagectl vhost resume /run/storaged/vhost/db.control --hold $hold || echo it came too late

Snapshots of storaged need none of this: they are of one instant by themselves.")]
    Drain {
        /// The control socket.
        control: Place,
        /// How long the guest may wait: 500ms, 10s, 5m. Then its requests go on by themselves.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        limit: Duration,
    },
    /// Ends a rest. Fails if it has ended by itself before.
    Resume {
        /// The control socket.
        control: Place,
        /// Which; all if left out.
        #[arg(long, value_name = "NUMBER")]
        hold: Option<u64>,
    },
    /// Reads the volume's size anew and tells the guest. Growing is `storagectl volume grow`.
    Resize {
        /// The control socket.
        control: Place,
    },
}
