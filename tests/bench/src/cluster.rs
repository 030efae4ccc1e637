//! Three nodes with three copies on this machine's loopback, beside Ceph and `GlusterFS` on the same disk: the same
//! patterns, in turns, with the CPU of all processes of a system and of its client. Or, with `--erasure`, a guest's disk in
//! a pool of rows beside one in a pool of three copies, on as many nodes as a row has shards, some of which may be down;
//! for 4+2 beside Ceph's, too.
//!
//! All nodes share two cores and one disk here: the figures compare systems under equal conditions, and say nothing
//! of what three machines do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use erasure::Profile;
use test_node::Cluster;

use crate::local::drive::{self, Until};
use crate::local::guest::{Guest, Notification};
use crate::local::pattern::{FILL, Pattern};
use crate::local::report::{self, Line, Sample};
use crate::local::system::settle;
use crate::peers::{self, Kept, Peer, Running};
use crate::process::{Process, cpu_seconds, program};
use crate::{fio, machine};

const NBD: &str = "storaged-nbd";
const VHOST: &str = "storaged-vhost";
const ROWS: &str = "storaged-vhost-rows";
/// The profile that the scripts of peers make.
const PEERS_ROWS: &str = "4+2";

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
    /// Compare a pool with erasure coding, as in 4+2, with one of three copies, a node for each shard; without NBD. Of
    /// the peers only ceph has the like, and its script makes 4+2.
    #[arg(long, value_name = "DATA+PARITY")]
    erasure: Option<Profile>,
    /// Nodes that are killed before anything is measured, the last ones.
    #[arg(long, default_value_t = 0, requires = "erasure")]
    down: usize,
    /// Nodes show each other certificates and encrypt what they say, as they do by default; the peers do not.
    #[arg(long)]
    tls: bool,
}

/// Our cluster with a volume for each client.
struct Ours {
    cluster: Cluster,
    nbd: Option<(fio::Client, Process)>,
    /// Guests' disks, by the name of the system.
    guests: Vec<(&'static str, Guest, Process)>,
    span: u64,
}

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = machine::stage(&options.directory)?;
    let span = options.size_mib << 20;
    let kept = kept_by_peers(options)?;
    let mut running = Vec::new();
    for (peer, scripts) in options.peers.iter().zip(options.scripts.iter().cycle()) {
        let folder = directory.path().join(peer.name());
        running.push(Running::start(*peer, kept, scripts, folder, span)?);
    }
    let mut ours = match &options.erasure {
        Some(profile) => Ours::with_rows(directory.path(), span, *profile, options)?,
        None => Ours::start(directory.path(), span, options.tls)?,
    };
    let mut lines = Vec::new();
    for pattern in peers::patterns(&options.only) {
        lines.extend(compare(&mut ours, &running, *pattern, options)?);
    }
    println!("load at the end: {}", machine::load());
    let ours_first = if options.erasure.is_some() { VHOST } else { NBD };
    let reference = options.peers.first().map_or(ours_first, |peer| peer.name());
    println!("\n{}\n{}", report::tsv(&lines), report::table(&lines, reference));
    println!(
        "{} patterns on {} systems, medians of {} rounds",
        peers::patterns(&options.only).count(),
        running.len() + 2,
        options.rounds
    );
    Ok(())
}

/// What peers are to do for a fair comparison.
fn kept_by_peers(options: &Options) -> Result<Kept> {
    let Some(profile) = &options.erasure else {
        return Ok(Kept::Copies);
    };
    let comparable = options.peers.is_empty()
        || profile.to_string() == PEERS_ROWS
            && options.peers.iter().all(|peer| *peer == Peer::Ceph)
            && options.down == 0;
    ensure!(
        comparable,
        "beside peers --erasure is compared as {PEERS_ROWS}, with ceph alone, and with all nodes up"
    );
    Ok(Kept::Rows)
}

/// Runs one pattern on all systems in turns.
fn compare(ours: &mut Ours, peers: &[Running], pattern: Pattern, options: &Options) -> Result<Vec<Line>> {
    let mut samples: Vec<(String, Vec<Sample>)> = Vec::new();
    let names = peers.iter().map(|running| running.peer.name());
    let own = ours
        .nbd
        .iter()
        .map(|_| NBD)
        .chain(ours.guests.iter().map(|(name, ..)| *name));
    samples.extend(names.chain(own).map(|name| (name.to_owned(), Vec::new())));
    for round in 0..options.rounds {
        for (at, (name, of_system)) in samples.iter_mut().enumerate() {
            let sample = match (peers.get(at), name.as_str()) {
                (Some(peer), _) => peer.measure(pattern, options.seconds)?,
                (None, NBD) => ours.by_nbd(pattern, options.seconds)?,
                (None, name) => ours.by_vhost(name, pattern, options.seconds, round + 1)?,
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
        let cluster = start_nodes(3, tls)?;
        let first = &cluster.nodes[0];
        first.storagectl(&["pool", "create", "pool", "--copies", "3"])?;
        for name in ["nbd", "vhost"] {
            first.storagectl(&["volume", "create", name, &span.to_string()])?;
        }
        let (nbd_process, socket) = fio::serve(&first.session_socket(), folder)?;
        let nbd = fio::Client::new(&socket, "nbd");
        let (vhost, guest) = attach(&first.session_socket(), folder, "vhost")?;
        nbd.fill(span)?;
        let mut ours = Self {
            nbd: Some((nbd, nbd_process)),
            guests: vec![(VHOST, guest, vhost)],
            span,
            cluster,
        };
        ours.fill()?;
        Ok(ours)
    }

    /// A node for each shard, and a guest's disk in a pool of each kind.
    fn with_rows(folder: &Path, span: u64, profile: Profile, options: &Options) -> Result<Self> {
        let cluster = start_nodes(usize::from(profile.width()), options.tls)?;
        let first = &cluster.nodes[0];
        let (erasure, least) = (profile.to_string(), profile.data().to_string());
        first.storagectl(&["pool", "create", "copies", "--copies", "3", "--min-in-sync", "1"])?;
        first.storagectl(&[
            "pool",
            "create",
            "rows",
            "--erasure",
            &erasure,
            "--min-in-sync",
            &least,
        ])?;
        let mut guests = Vec::new();
        for (system, pool) in [(VHOST, "copies"), (ROWS, "rows")] {
            first.storagectl(&["volume", "create", pool, &span.to_string(), "--pool", pool])?;
            let (process, guest) = attach(&first.session_socket(), folder, pool)?;
            guests.push((system, guest, process));
        }
        let mut ours = Self {
            cluster,
            nbd: None,
            guests,
            span,
        };
        ours.fill()?;
        println!("{}", ours.cluster.nodes[0].storagectl(&["pool", "list"])?);
        for node in ours.cluster.nodes.iter_mut().rev().take(options.down) {
            node.kill()?;
        }
        Ok(ours)
    }

    /// Writes all of the guests' disks.
    fn fill(&mut self) -> Result<()> {
        let until = Until::Operations(self.span / FILL.block as u64);
        for (_, guest, _) in &mut self.guests {
            drive::prepare(guest)?;
            drive::run(guest, FILL, self.span, 0, until).context("fill the volume")?;
        }
        settle(&self.processes(&[]));
        Ok(())
    }

    /// The processes of the cluster, and a front end.
    fn processes(&self, front_end: &[&Process]) -> Vec<u32> {
        let nodes = self.cluster.nodes.iter().map(|node| node.storaged().id());
        let etcd = self.cluster.etcd.ids().into_iter();
        let front_ends = front_end.iter().map(|process| process.id());
        nodes.chain(etcd).chain(front_ends).collect()
    }

    fn by_nbd(&self, pattern: Pattern, seconds: u64) -> Result<Sample> {
        let (nbd, process) = self.nbd.as_ref().context("there is no NBD server")?;
        let all = self.processes(&[process]);
        let cpu = || all.iter().map(|id| cpu_seconds(*id)).sum();
        let sample = nbd.measure(pattern, (self.span, seconds), cpu, || settle(&all))?;
        Ok(with_client(sample))
    }

    fn by_vhost(&mut self, name: &str, pattern: Pattern, seconds: u64, seed: u64) -> Result<Sample> {
        let place = self.guests.iter().position(|(system, ..)| *system == name);
        let place = place.with_context(|| format!("there is no {name}"))?;
        let all = self.processes(&[&self.guests[place].2]);
        let cpu = || all.iter().map(|id| cpu_seconds(*id)).sum::<f64>();
        let (client, server) = (cpu_seconds(std::process::id()), cpu());
        let until = Until::Elapsed(Duration::from_secs(seconds));
        let tally = drive::run(&mut self.guests[place].1, pattern, self.span, seed, until)?;
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

/// Nodes with a disk each.
fn start_nodes(nodes: usize, tls: bool) -> Result<Cluster> {
    if tls {
        Cluster::secured(nodes, 1)
    } else {
        Cluster::start(nodes, 1)
    }
}

/// A guest's disk.
pub(crate) fn attach(storaged: &Path, folder: &Path, volume: &str) -> Result<(Process, Guest)> {
    let socket = folder.join(format!("{volume}.sock"));
    let mut command = Command::new(program("vhost-blk")?);
    command
        .arg("--storaged")
        .arg(storaged)
        .args(["--volume", volume, "--queues=1", "--socket"]);
    command.arg(&socket);
    let mut process = Process::start("vhost-blk", &mut command, folder.join(format!("{volume}.log")))?;
    process.wait_for_socket(&socket)?;
    let guest = Guest::connect(&socket, Notification::Events)?;
    Ok((process, guest))
}
