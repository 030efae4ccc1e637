//! `storagectl access`.

use clap::{Subcommand, ValueEnum};

const EXAMPLE: &str = "Example, for Proxmox VE:
  storagectl access create proxmox --role operator
  storagectl access authority > storaged-ca.pem
  curl --cacert storaged-ca.pem -H \"Authorization: Bearer $TOKEN\" https://10.0.0.1:7480/v1/status

storaged listens for the network where its configuration says so: admin_listen = [\"https://10.0.0.1:7480\"]";

/// Tokens with which programs ask the admin API over the network.
#[derive(Subcommand)]
#[command(after_help = EXAMPLE)]
pub(crate) enum AccessCommand {
    /// Makes a token. It is shown once.
    Create {
        /// What it is for: the program, or the host, that gets it.
        name: String,
        /// What its bearer may do.
        #[arg(long)]
        role: RoleArgument,
        /// For how many days it is good.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
    },
    /// Lists the tokens, without what makes them one.
    #[command(visible_alias = "ls")]
    List,
    /// Makes a token worthless, on all nodes within ten seconds.
    Revoke {
        /// Its number, as `storagectl access list` shows it.
        token: String,
    },
    /// Prints the certificate that programs know the cluster's nodes by (PEM).
    Authority,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RoleArgument {
    /// Look at everything that is no secret.
    Viewer,
    /// Make, change and delete volumes and snapshots.
    Operator,
    /// Change disks, pools, nodes and iSCSI targets too.
    Administrator,
}
