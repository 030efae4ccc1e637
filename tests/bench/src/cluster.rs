//! Three nodes with three copies on this machine's loopback, beside Ceph and `GlusterFS` on the same disk: the same
//! patterns, in turns, with the CPU of all processes of a system and of its client.
//!
//! All nodes share two cores and one disk here: the figures compare systems under equal conditions, and say nothing
//! of what three machines do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use test_node::Cluster;

use crate::local::drive::{self, Until};
use crate::local::guest::{Guest, Notification};
use crate::local::pattern::{FILL, Pattern};
use crate::local::report::{self, Line, Sample};
use crate::local::system::settle;
use crate::peers::{self, Peer, Running};
use crate::process::{Process, cpu_seconds, program};
use crate::{fio, machine};

const NBD: &str = "storaged-nbd";
const VHOST: &str = "storaged-vhost";

/// How `cluster` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where systems keep their files; the file system must take `O_DIRECT`. Emptied by the end.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Size of each volume, in MiB. All of it is written before anything is measured.
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    /// How often each pattern is run on each system.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How long each run takes, in seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only the patterns whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Peers to compare with; their Debian packages must be installed.
    #[arg(long, value_enum, value_delimiter = ',', requires = "scripts")]
    peers: Vec<Peer>,
    /// Where the scripts are that bring peers up: NAME.sh with start, bench and stop. They are not part of this
    /// repository.
    #[arg(long)]
    scripts: Option<PathBuf>,
    /// Nodes show each other certificates and encrypt what they say, as they do by default; the peers do not.
    #[arg(long)]
    tls: bool,
}

/// Our cluster with a volume for each client.
struct Ours {
    cluster: Cluster,
    nbd: fio::Client,
    nbd_process: Process,
    guest: Guest,
    vhost: Process,
    span: u64,
}

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = machine::stage(&options.directory)?;
    let span = options.size_mib << 20;
    let mut running = Vec::new();
    for (peer, scripts) in options.peers.iter().zip(options.scripts.iter().cycle()) {
        let folder = directory.path().join(peer.name());
        running.push(Running::start(*peer, scripts, folder, span)?);
    }
    let mut ours = Ours::start(directory.path(), span, options.tls)?;
    let mut lines = Vec::new();
    for pattern in peers::patterns(&options.only) {
        lines.extend(compare(&mut ours, &running, *pattern, options)?);
    }
    println!("load at the end: {}", machine::load());
    let reference = options.peers.first().map_or(NBD, |peer| peer.name());
    println!("\n{}\n{}", report::tsv(&lines), report::table(&lines, reference));
    println!(
        "{} patterns on {} systems, medians of {} rounds",
        peers::patterns(&options.only).count(),
        running.len() + 2,
        options.rounds
    );
    Ok(())
}

/// Runs one pattern on all systems in turns.
fn compare(ours: &mut Ours, peers: &[Running], pattern: Pattern, options: &Options) -> Result<Vec<Line>> {
    let mut samples: Vec<(String, Vec<Sample>)> = Vec::new();
    let names = peers.iter().map(|running| running.peer.name());
    samples.extend(
        names
            .chain([NBD, VHOST])
            .map(|name| (name.to_owned(), Vec::new())),
    );
    for round in 0..options.rounds {
        for (at, (name, of_system)) in samples.iter_mut().enumerate() {
            let sample = match (peers.get(at), name.as_str()) {
                (Some(peer), _) => peer.measure(pattern, options.seconds)?,
                (None, NBD) => ours.by_nbd(pattern, options.seconds)?,
                (None, _) => ours.by_vhost(pattern, options.seconds, round + 1)?,
            };
            eprintln!(
                "{} round {} {name}: {:.0} IOPS, {:.1} us, {:.1} us CPU",
                pattern.name,
                round + 1,
                sample.iops,
                sample.mean,
                sample.system_cpu
            );
            of_system.push(sample);
        }
    }
    let line = |(system, samples): (String, Vec<Sample>)| Line {
        system,
        pattern,
        median: report::median(&samples),
    };
    Ok(samples.into_iter().map(line).collect())
}

impl Ours {
    fn start(folder: &Path, span: u64, tls: bool) -> Result<Self> {
        let cluster = if tls {
            Cluster::secured(3, 1)?
        } else {
            Cluster::start(3, 1)?
        };
        let first = &cluster.nodes[0];
        first.storagectl(&["pool", "create", "pool", "--copies", "3"])?;
        for name in ["nbd", "vhost"] {
            first.storagectl(&["volume", "create", name, &span.to_string()])?;
        }
        let (nbd_process, socket) = fio::serve(&first.session_socket(), folder)?;
        let (vhost, guest) = attach(&first.session_socket(), folder)?;
        let mut ours = Self {
            nbd: fio::Client::new(&socket, "nbd"),
            nbd_process,
            vhost,
            guest,
            span,
            cluster,
        };
        ours.nbd.fill(span)?;
        drive::prepare(&ours.guest)?;
        let until = Until::Operations(span / FILL.block as u64);
        drive::run(&mut ours.guest, FILL, span, 0, until).context("fill the volume")?;
        settle(&ours.processes(&[]));
        Ok(ours)
    }

    /// The processes of the cluster, and a front end.
    fn processes(&self, front_end: &[&Process]) -> Vec<u32> {
        let nodes = self.cluster.nodes.iter().map(|node| node.storaged().id());
        let etcd = self.cluster.etcd.ids().into_iter();
        let front_ends = front_end.iter().map(|process| process.id());
        nodes.chain(etcd).chain(front_ends).collect()
    }

    fn by_nbd(&self, pattern: Pattern, seconds: u64) -> Result<Sample> {
        let all = self.processes(&[&self.nbd_process]);
        let cpu = || all.iter().map(|id| cpu_seconds(*id)).sum();
        let sample = self
            .nbd
            .measure(pattern, (self.span, seconds), cpu, || settle(&all))?;
        Ok(with_client(sample))
    }

    fn by_vhost(&mut self, pattern: Pattern, seconds: u64, seed: u64) -> Result<Sample> {
        let all = self.processes(&[&self.vhost]);
        let cpu = || all.iter().map(|id| cpu_seconds(*id)).sum::<f64>();
        let (client, server) = (cpu_seconds(std::process::id()), cpu());
        let until = Until::Elapsed(Duration::from_secs(seconds));
        let tally = drive::run(&mut self.guest, pattern, self.span, seed, until)?;
        let client = cpu_seconds(std::process::id()) - client;
        settle(&all);
        Ok(with_client(report::sample(
            &tally,
            pattern,
            cpu() - server,
            client,
        )))
    }
}

/// The client's work counts as the system's, as in the peers' figures.
fn with_client(sample: Sample) -> Sample {
    Sample {
        system_cpu: sample.system_cpu + sample.client_cpu,
        ..sample
    }
}

fn attach(storaged: &Path, folder: &Path) -> Result<(Process, Guest)> {
    let socket = folder.join("vhost.sock");
    let mut command = Command::new(program("vhost-blk")?);
    command
        .arg("--storaged")
        .arg(storaged)
        .args(["--volume", "vhost", "--queues=1", "--socket"]);
    command.arg(&socket);
    let mut process = Process::start("vhost-blk", &mut command, folder.join("vhost-blk.log"))?;
    process.wait_for_file(&socket)?;
    let guest = Guest::connect(&socket, Notification::Events)?;
    Ok((process, guest))
}
