//! `cargo xtask`: the one entry to everything that is done with this repository besides editing it.
#![forbid(unsafe_code)]

mod beside;
mod campaigns;
mod crates;
mod debian;
mod deny;
mod fuzz;
mod package;
mod process;
mod programs;
mod sbom;
mod second_lines;
mod tally;
mod test;
mod tidy;
mod unit_tests;
mod upgrade;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use programs::Profile;
use tally::Tally;

/// Builds, tests, shows and measures storaged. Every command that tests ends with a line
/// "N passed, N failed, N skipped" and a status that means it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Shows storaged at work: disks, a volume, a guest, a live snapshot, a clone. Installs what it needs.
    Demo {
        /// Given to the demo as they are: --keep leaves the disks.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs every kind of test. Installs the Debian packages that it needs.
    Test {
        /// As much as a release needs: takes hours.
        #[arg(long)]
        long: bool,
    },
    /// Checks the rules of the code base: format, lints, directions, sizes, documents.
    Tidy {
        /// Leave out rustfmt and clippy, which build.
        #[arg(long)]
        sources_only: bool,
    },
    /// Runs simulated worlds: virtual time, faulty disks and connections, dying owners.
    Sim {
        /// How many worlds.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// Opens a disk from every image that a power cut could leave.
    Crash {
        /// All images instead of a sample.
        #[arg(long)]
        full: bool,
    },
    /// Explores the replication protocol as a model: every order of everything that can happen in bounded worlds.
    Model {
        /// Larger worlds too: takes half an hour and up to 10 GiB of memory.
        #[arg(long)]
        long: bool,
    },
    /// Kills real processes under load, restarts them, and verifies every byte: first with a program that
    /// writes to a volume, then with a guest that has it as a disk.
    Kill {
        /// How many kills without a guest.
        #[arg(long, default_value_t = 100)]
        rounds: u32,
        /// How many kills of `vhost-blk` under a guest.
        #[arg(long, default_value_t = 300)]
        guest_kills: u32,
        /// What the moments of the kills under a guest are drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// As many as a release needs, whatever the other options say: takes hours.
        #[arg(long)]
        long: bool,
    },
    /// Runs three real nodes in network namespaces, with an etcd of three members, through all that networks, stores
    /// and disks can do to them, and verifies every byte. Needs root.
    Storms {
        /// Given to it as they are: names of scenarios, --rounds N, --seed S, --short, --json, --guest.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Makes hosts with Debian, systemd and ssh, and rolls storaged out on them with the Ansible collection: from nothing,
    /// again, a node more, an upgrade under verified I/O, a node less. Needs root, and a quarter of an hour.
    Hosts {
        /// Upgrade from this revision, which is built for it, instead of from the same programs under another version.
        #[arg(long, value_name = "REVISION")]
        from: Option<String>,
        /// Only what needs no hosts: lints, specifications, alerts and the dashboard.
        #[arg(long, conflicts_with = "from")]
        rules: bool,
    },
    /// Builds an older revision, and upgrades a cluster of three nodes from it to this one while it is written to, node by
    /// node; then back. Every block is verified.
    Upgrade {
        /// The older revision, as git names it.
        #[arg(long, default_value = OLDEST, value_name = "REVISION")]
        from: String,
    },
    /// Feeds arbitrary bytes to every parser.
    Fuzz {
        /// For how long, over all targets together.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Keep what was found in tests/fuzz/corpus.
        #[arg(long)]
        keep: bool,
        /// Only these targets.
        targets: Vec<String>,
    },
    /// Has `cargo deny` judge the crates of others: licences, sources, known holes. Installs it into target/tools, which takes
    /// a minute, and fetches the list of holes.
    Deny,
    /// Writes which crates are in each program, and which it is built with, as `CycloneDX`, into target/sbom.
    Sbom,
    /// Plants known bugs and reports which of them the tests catch.
    Mutants,
    /// Runs clients that others wrote against our servers.
    Conformance {
        /// Which server.
        #[arg(value_parser = ["nbd", "iscsi", "libvirt", "cinder", "cinder-clients", "cinder-schema", "os-brick", "proxmox", "packages"])]
        name: String,
        /// Given to the checks as they are: `--help` tells.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Boots real guests under QEMU.
    Vm {
        /// Instead, move one guest between two QEMUs so often, with moves that fail in between.
        #[arg(long, value_name = "NUMBER")]
        moves: Option<u32>,
    },
    /// Measures: `local` and `vhost` (beside qemu-storage-daemon), `snapshots`, `memory`; `scale` (a
    /// thousand nodes that are not there); `NAME --help` tells more.
    /// Ends with what was measured; nothing passes or fails.
    #[command(disable_help_flag = true)]
    Bench {
        /// Which benchmark.
        name: String,
        /// Given to it as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds Debian packages into target/debian: storaged, storaged-cinder-api, storaged-pve.
    Package {
        #[command(flatten)]
        options: package::Options,
    },
}

/// The oldest revision whose records, messages and disks must be understood.
const OLDEST: &str = "4139d49";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments.command) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(tally)) => {
            println!("{tally}");
            if tally.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; the answer is a count, unless nothing is counted.
fn perform(task: &Task) -> Result<Option<Tally>> {
    let tally = match task {
        Task::Demo { arguments } => {
            campaigns::demo(arguments)?;
            return Ok(None);
        }
        Task::Bench { name, arguments } => {
            campaigns::bench(name, arguments)?;
            return Ok(None);
        }
        Task::Test { long } => test::test(*long),
        Task::Tidy { sources_only } => tidy::tidy(*sources_only),
        Task::Sim { seeds, from } => campaigns::sim(Profile::Release, *seeds, *from),
        Task::Crash { full } => campaigns::crash(Profile::Release, *full),
        Task::Model { long } => campaigns::model(Profile::Release, *long),
        Task::Kill {
            rounds,
            guest_kills,
            seed,
            long,
        } => {
            let (rounds, kills) = if *long {
                test::KILLS_OF_A_RELEASE
            } else {
                (*rounds, *guest_kills)
            };
            kill(rounds, kills, *seed)
        }
        Task::Storms { arguments } => campaigns::storms(Profile::Release, arguments),
        Task::Hosts { rules: true, .. } => campaigns::rules_of_hosts(Profile::Checked),
        Task::Hosts { from, .. } => upgrade::hosts(from.as_deref()),
        Task::Upgrade { from } => upgrade::upgrade(from),
        Task::Fuzz {
            seconds,
            keep,
            targets,
        } => fuzz::fuzz(*seconds, targets, *keep, None),
        Task::Deny => deny::deny(),
        Task::Sbom => {
            sbom::write_all()?;
            return Ok(None);
        }
        Task::Mutants => campaigns::mutants(Profile::Release),
        Task::Conformance { name, .. } if name == "packages" => package::trial(Profile::Checked),
        Task::Conformance { name, .. } if name == "proxmox" => campaigns::proxmox(Profile::Release),
        Task::Conformance { name, arguments } => campaigns::conformance(Profile::Release, name, arguments),
        Task::Vm { moves: Some(moves) } => campaigns::guest_moves(Profile::Release, *moves),
        Task::Vm { moves: None } => campaigns::guests(Profile::Release, true),
        Task::Package { options } => {
            package::package(options)?;
            return Ok(None);
        }
    }?;
    Ok(Some(tally))
}

/// Both campaigns of kills, each unless none of it is wanted.
fn kill(rounds: u32, guest_kills: u32, seed: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    if rounds > 0 {
        tally.add(campaigns::kill(Profile::Release, rounds)?);
    }
    if guest_kills > 0 {
        tally.add(campaigns::guest_kills(Profile::Release, guest_kills, seed)?);
    }
    Ok(tally)
}
