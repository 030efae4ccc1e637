//! What a volume costs as an iSCSI disk: one copy, three copies and rows 4+2 behind storaged-iscsi, beside Debian's tgt on
//! a plain file. All on one machine over loopback, with one initiator of our own for all of them.
//!
//! tgt acknowledges a write when it is in the page cache, and reads from there: all of these volumes fits into it, and into what
//! our gateway keeps. Only patterns with a flush compare like with like, and writes with the tgt that opens its file past
//! the cache.

mod initiator;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::local::drive::{self, Until};
use crate::local::pattern::{PATTERNS, Pattern};
use crate::local::report::{self, Line, Sample};
use crate::local::system::{ids, settle};
use crate::machine;
use crate::node::{Node, runtime};
use crate::process::{self, Process, program};
use initiator::Initiator;

const TARGET: &str = "iqn.2026-11.org.example:bench";
const HOST: &str = "iqn.2026-11.org.example:host";
const TGT: &str = "tgt-file";
/// Bytes of one write while volumes are filled.
const FILL: &str = "seqwrite-1M";
/// What all of them is read with before anything is measured.
const WARM: &str = "seqread-512K";

/// How `iscsi` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the systems keep their files. Emptied by the end.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Size of each volume, in MiB. All of it is written before anything is measured.
    #[arg(long, default_value_t = 512)]
    size_mib: u64,
    /// How often each pattern is run on each system.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How long each run takes, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only patterns whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
}

/// How a volume of ours is kept.
#[derive(Clone, Copy)]
enum Kept {
    Copies(u32),
    Rows(&'static str),
}

/// A target with an initiator that has logged in.
struct San {
    name: &'static str,
    initiator: Initiator,
    processes: Vec<Process>,
}

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = machine::stage(&options.directory)?;
    let span = options.size_mib << 20;
    let ours = [
        ("storaged-1-copy", 1, Kept::Copies(1)),
        ("storaged-3-copies", 3, Kept::Copies(3)),
        ("storaged-4+2", 6, Kept::Rows("4+2")),
    ];
    let mut sans = Vec::new();
    for (name, flags) in [(TGT, None), ("tgt-direct", Some("direct"))] {
        sans.push(San::tgt(name, &directory.path().join(name), flags, span)?);
    }
    for (name, disks, kept) in ours {
        sans.push(San::ours(name, &directory.path().join(name), disks, kept, span)?);
    }
    for san in &mut sans {
        san.fill(span)?;
    }
    let mut lines = Vec::new();
    for pattern in PATTERNS
        .iter()
        .filter(|pattern| pattern.name.contains(&options.only))
    {
        lines.extend(compare(&mut sans, *pattern, options)?);
    }
    println!("load at the end: {}", machine::load());
    println!("\n{}\n{}", report::tsv(&lines), report::table(&lines, TGT));
    println!(
        "{} patterns on {} systems, medians of {} rounds",
        lines.len() / sans.len(),
        sans.len(),
        options.rounds
    );
    Ok(())
}

/// Runs one pattern on all systems in turns.
fn compare(sans: &mut [San], pattern: Pattern, options: &Options) -> Result<Vec<Line>> {
    let mut samples = vec![Vec::new(); sans.len()];
    for round in 0..options.rounds {
        for (san, samples) in sans.iter_mut().zip(&mut samples) {
            let sample = san
                .measure(pattern, options, round + 1)
                .with_context(|| format!("{} on {}", pattern.name, san.name))?;
            eprintln!(
                "{} round {} {}: {:.0} IOPS, {:.1} us, {:.1} us CPU",
                pattern.name,
                round + 1,
                san.name,
                sample.iops,
                sample.mean,
                sample.system_cpu
            );
            samples.push(sample);
        }
    }
    let lines = sans.iter().zip(&samples);
    Ok(lines
        .map(|(san, samples)| Line {
            system: san.name.to_owned(),
            pattern,
            median: report::median(samples),
        })
        .collect())
}

impl San {
    /// storaged and a gateway.
    fn ours(name: &'static str, folder: &Path, disks: u32, kept: Kept, size: u64) -> Result<Self> {
        let node = Node::start(&folder.join("node"), disks)?;
        runtime()?.block_on(async {
            match kept {
                Kept::Copies(copies) => node.admin.create_pool("pool", copies).await?,
                Kept::Rows(erasure) => node.admin.create_rows("pool", erasure).await?,
            }
            node.admin.create_volume("volume", size).await?;
            node.admin.offer_iscsi(TARGET, "volume", HOST).await
        })?;
        let log = folder.join("gateway.log");
        let mut command = Command::new(program("storaged-iscsi")?);
        command.arg("--storaged").arg(&node.socket);
        command.arg("--admin-socket").arg(&node.admin_socket);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut gateway = Process::start("storaged-iscsi", &mut command, log.clone())?;
        let address = || -> Option<SocketAddr> {
            let said = fs::read_to_string(&log).ok()?;
            let line = said.lines().find_map(|line| line.strip_prefix("listening on "))?;
            line.parse().ok()
        };
        gateway.wait_until("it listens", || address().is_some())?;
        let address = address().context("the gateway names no address")?;
        Ok(Self {
            name,
            initiator: Initiator::log_in(address, TARGET, HOST, 0)?,
            processes: vec![gateway, node.process],
        })
    }

    /// tgt with a plain file, which it opens with these flags.
    fn tgt(name: &'static str, folder: &Path, flags: Option<&str>, size: u64) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let image = folder.join("image.raw");
        File::create(&image)?.set_len(size)?;
        // Whoever takes the port in between makes tgtd end, and so this benchmark.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        // It names a socket, and is no port of the network; tgtd takes 15 bits of it.
        let control = (address.port() >> 1).to_string();
        let mut command = Command::new("tgtd");
        command.args(["--foreground", "--control-port", &control]);
        command.args(["--iscsi", &format!("portal={address}")]);
        let mut tgtd = Process::start("tgtd", &mut command, folder.join("tgtd.log"))
            .context("tgt is compared with: install Debian's package tgt")?;
        let admin = |words: &[&str]| {
            let all = [&["--control-port", &control, "--lld", "iscsi"], words].concat();
            Command::new("tgtadm").args(all).output()
        };
        let is_there =
            || admin(&["--mode", "target", "--op", "show"]).is_ok_and(|output| output.status.success());
        tgtd.wait_until("it takes orders", is_there)?;
        let image = image.display().to_string();
        let flags = flags.map(|flags| ["--bsoflags", flags]);
        let mut unit = vec![
            "--mode",
            "logicalunit",
            "--op",
            "new",
            "--tid",
            "1",
            "--lun",
            "1",
            "--backing-store",
            &image,
        ];
        unit.extend(flags.iter().flatten());
        for words in [
            &[
                "--mode",
                "target",
                "--op",
                "new",
                "--tid",
                "1",
                "--targetname",
                TARGET,
            ][..],
            &unit,
            &[
                "--mode",
                "target",
                "--op",
                "bind",
                "--tid",
                "1",
                "--initiator-address",
                "ALL",
            ],
        ] {
            let output = admin(words)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "tgtadm {}: {said}", words.join(" "));
        }
        Ok(Self {
            name,
            initiator: Initiator::log_in(address, TARGET, HOST, 1)?,
            processes: vec![tgtd],
        })
    }

    /// Writes all of the volume, and reads it, so that whoever keeps it in memory has it there. Twice: the first time a
    /// gateway learns where on the disk it is.
    fn fill(&mut self, span: u64) -> Result<()> {
        drive::prepare(&mut self.initiator)?;
        self.pass(FILL, span)?;
        self.settle();
        self.pass(WARM, span)?;
        self.pass(WARM, span)
    }

    /// Runs a pattern over all of the volume once.
    fn pass(&mut self, name: &str, span: u64) -> Result<()> {
        let pattern = PATTERNS.iter().find(|pattern| pattern.name == name);
        let pattern = *pattern.with_context(|| format!("there is no pattern {name}"))?;
        let until = Until::Operations(span / pattern.block as u64);
        drive::run(&mut self.initiator, pattern, span, 0, until)
            .with_context(|| format!("{name} over all of {}", self.name))?;
        Ok(())
    }

    fn settle(&self) {
        settle(&ids(&self.processes));
    }

    fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    /// Runs one pattern. CPU is counted until the system is at rest again.
    fn measure(&mut self, pattern: Pattern, options: &Options, seed: u64) -> Result<Sample> {
        let client = process::cpu_seconds(std::process::id());
        let server = self.cpu_seconds();
        let busy = machine::busy_seconds();
        let until = Until::Elapsed(Duration::from_secs(options.seconds));
        let tally = drive::run(&mut self.initiator, pattern, options.size_mib << 20, seed, until)?;
        let client = process::cpu_seconds(std::process::id()) - client;
        let other = machine::busy_seconds() - busy - client - (self.cpu_seconds() - server);
        self.settle();
        let server = self.cpu_seconds() - server;
        Ok(Sample {
            other_cpu: (other / tally.elapsed.as_secs_f64() * 100.0).max(0.0),
            ..report::sample(&tally, pattern, server, client)
        })
    }
}
