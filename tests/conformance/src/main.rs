//! The program `conformance`: `conformance nbd` runs the checks of one protocol.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use conformance::cinder::{self, Server, Wanted};
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
    /// Tempest's tests of volumes and Cinder's own against cinder-api, with a real Keystone
    Cinder {
        #[command(flatten)]
        server: ServerArguments,
        /// Only tests whose names this regular expression fits
        #[arg(long, value_name = "REGEX")]
        only: Option<String>,
        /// One JSON object for each test, instead of a table
        #[arg(long)]
        json: bool,
        /// Write down what became of each test
        #[arg(long, value_name = "FILE", requires = "reference")]
        record: Option<PathBuf>,
    },
    /// python-cinderclient, openstacksdk and the `openstack` command against cinder-api, with a real Keystone
    CinderClients {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// os-brick in a real guest against cinder-api and storaged-iscsi, with a real Keystone
    OsBrick {
        /// Where the guest's image is kept
        #[arg(long, default_value = "target/guest")]
        folder: PathBuf,
    },
    /// Everything that the document of cinder-api allows, and what it does not: schemathesis, as a member and an administrator
    CinderSchema {
        /// Another cinder-api than the one that was built
        #[arg(long, value_name = "PATH")]
        server: Option<PathBuf>,
        /// Leave configurations and logs in this folder
        #[arg(long, value_name = "FOLDER")]
        keep: Option<PathBuf>,
        /// A few examples for each path in the newest version, and nothing else: a minute
        #[arg(long)]
        brief: bool,
        /// What the examples begin from
        #[arg(long, default_value_t = 1)]
        seed: u32,
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

/// Who serves the Block Storage API.
#[derive(Args)]
struct ServerArguments {
    /// Another cinder-api than the one that was built
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// The real Cinder
    #[arg(long, conflicts_with = "server")]
    reference: bool,
    /// Leave configurations and logs in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

impl ServerArguments {
    fn server(&self) -> Server {
        if self.reference {
            Server::Reference
        } else {
            Server::Ours(self.server.clone())
        }
    }
}

fn main() -> ExitCode {
    let tally = match Arguments::parse().suite {
        Suite::Nbd { only } => conformance::nbd::run(&Selection { only }),
        Suite::Iscsi { only, brief } => conformance::iscsi::run(&Selection { only }, brief),
        Suite::Cinder {
            server,
            only,
            json,
            record,
        } => cinder::run(&Wanted {
            server: server.server(),
            only,
            json,
            record,
            keep: server.keep,
        }),
        Suite::CinderClients { server } => cinder::clients::run(&server.server(), server.keep.as_deref()),
        Suite::OsBrick { folder } => conformance::brick::run(&folder),
        Suite::CinderSchema {
            server,
            keep,
            brief,
            seed,
        } => cinder::schema::run(&cinder::schema::Wanted {
            server: Server::Ours(server),
            keep,
            brief,
            seed,
        }),
        Suite::Libvirt { only, folder } => conformance::libvirt::run(&Selection { only }, &folder),
    };
    println!("{tally}");
    if tally.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
