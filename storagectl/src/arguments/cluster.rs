//! `storagectl cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::time::parse_time;

/// Where `storaged` is told what to do, unless somebody says otherwise.
const CONFIG: &str = "/etc/storaged/storaged.toml";
/// Where `storaged` keeps everything, unless somebody says otherwise.
const WORK_DIR: &str = "/var/lib/storaged";

const EXAMPLE: &str = "Example, three nodes:
  host-1# storagectl cluster init --etcd http://10.0.0.9:2379 --address 10.0.0.1
  host-1# systemctl enable --now storaged
  host-1# storagectl cluster token
  host-2# storagectl cluster join TOKEN && systemctl enable --now storaged
  host-1# storagectl cluster token
  host-3# storagectl cluster join TOKEN && systemctl enable --now storaged";

/// Makes a cluster, and lets machines join it.
#[derive(Subcommand)]
#[command(after_help = EXAMPLE)]
pub(crate) enum ClusterCommand {
    /// On the first machine: writes the configuration with which storaged starts as node 1.
    Init(InitArguments),
    /// On a node: makes a token with which one machine may join. It is shown once.
    Token {
        /// How long it is good: 10m, 1h, 24h; at most a week.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
        limit: Duration,
    },
    /// On a node: lists the tokens that were made, and who used them.
    Tokens,
    /// On a node: makes a token worthless.
    Revoke {
        /// Its number, as `storagectl cluster tokens` shows it.
        token: String,
    },
    /// On a new machine: fetches what it needs to be a node, with a token, and writes the configuration.
    Join(JoinArguments),
}

/// How the machine is to be set up.
#[derive(Args)]
pub(crate) struct MachineArguments {
    /// What the node is called. [default: the host's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The failure zone that it stands in: a rack, a room, a site.
    #[arg(long)]
    pub(crate) zone: Option<String>,
    /// Disks to make in the work directory at the first start.
    #[arg(long, value_name = "N")]
    pub(crate) disks: Option<u32>,
    /// The configuration file to write.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub(crate) config: PathBuf,
    /// Where storaged keeps records, sockets, certificates and the disks that it makes.
    #[arg(long, value_name = "DIR", default_value = WORK_DIR)]
    pub(crate) work_dir: PathBuf,
}

/// What the first machine is told.
#[derive(Args)]
pub(crate) struct InitArguments {
    /// A client address of etcd, `http://HOST:PORT` or https; once for each member. Without it there is one node only.
    #[arg(long, value_name = "URL")]
    pub(crate) etcd: Vec<String>,
    /// What is put before every key in etcd, for several clusters in one: /site-a
    #[arg(long, value_name = "PREFIX", requires = "etcd")]
    pub(crate) etcd_prefix: Option<String>,
    /// Who signed the certificates of etcd's members: a PEM file.
    #[arg(long, value_name = "FILE", requires = "etcd")]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// A certificate to show to etcd: a PEM file.
    #[arg(long, value_name = "FILE", requires = "etcd", requires = "etcd_key")]
    pub(crate) etcd_certificate: Option<PathBuf>,
    /// The private key of that.
    #[arg(long, value_name = "FILE", requires = "etcd", requires = "etcd_certificate")]
    pub(crate) etcd_key: Option<PathBuf>,
    /// A user of etcd.
    #[arg(long, value_name = "NAME", requires = "etcd", requires = "etcd_password_file")]
    pub(crate) etcd_user: Option<String>,
    /// The file with that user's password.
    #[arg(long, value_name = "FILE", requires = "etcd", requires = "etcd_user")]
    pub(crate) etcd_password_file: Option<PathBuf>,
    /// Where other nodes reach this one, HOST or HOST:PORT; machines join there, disks take the ports after it.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArguments,
}

/// What a machine that joins is told.
#[derive(Args)]
pub(crate) struct JoinArguments {
    /// The token; `-` reads it from standard input, where no list of processes shows it.
    pub(crate) token: String,
    /// Where other nodes reach this one, HOST or HOST:PORT. [default: its address on the way to the other node]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArguments,
}
