//! The program `storaged`: reads what it is told, runs until it is told to stop.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use admin_api::sizes::SizeInput;
use anyhow::Context;
use clap::Parser;
use storaged::config::{Config, Settings};
use storaged::daemon::{Daemon, StartError};
use telemetry::log::{self, LogFormat};
use telemetry::service;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Instrument, error, error_span, field, info};

/// Page-sized buffers are most of what a disk holds in memory. The system's allocator takes twice their
/// size for them, and gives large ones back to the kernel after each use (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The storage daemon of a node: runs its disks, serves its virtual machines' volumes, offers the
/// admin API that `storagectl` speaks.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Flags {
    /// A TOML file with the same settings; flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the records, the sockets and the default disks are. [default: /var/lib/storaged]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Disks to make in the work directory if there is none yet.
    #[arg(long, value_name = "N")]
    disks: Option<u32>,
    /// How long a front end owns a volume without renewing, in milliseconds, 1000 to 30000.
    #[arg(long, value_name = "MS")]
    lease_ms: Option<u64>,
    /// What all disks may keep in memory together. [default: 1G]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// The length of the log of disks that are made from now on.
    #[arg(long, value_name = "SIZE")]
    disk_log: Option<String>,
    /// Whether front ends of this node may read the disks' files themselves, which is faster. [default: true]
    #[arg(long, value_name = "BOOL")]
    direct_reads: Option<bool>,
    /// Serve the admin API here too: https://ADDRESS:PORT to the network, for whoever shows an access token;
    /// tcp:127.0.0.1:PORT to everybody on this machine. May be given several times.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Vec<String>,
    /// How log lines look. `RUST_LOG` says which there are.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl Flags {
    fn into_config(self) -> anyhow::Result<Config> {
        let file = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        let flags = Settings {
            work_dir: self.work_dir,
            disks: self.disks,
            lease_ms: self.lease_ms,
            memory: self.memory.map(SizeInput::Text),
            disk_log: self.disk_log.map(SizeInput::Text),
            direct_reads: self.direct_reads,
            admin_listen: self.admin_listen,
            ..Settings::default()
        };
        Ok(file.overridden_by(flags).check()?)
    }
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    log::start(flags.log_format);
    let config = flags.into_config()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    // The node is known when the records are.
    let span = error_span!("storaged", node = field::Empty);
    runtime.block_on(run(&config).instrument(span))
}

async fn run(config: &Config) -> anyhow::Result<()> {
    // Before anything is served: a signal in between must not end the process at once.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut daemon = match Daemon::start_unless(config, stop).await {
        Err(stopped @ StartError::Stopped) => {
            info!("{stopped}");
            return Ok(());
        }
        started => started?,
    };
    service::ready("serves disks and volumes");
    let failure = tokio::select! {
        never = service::heartbeat() => match never {},
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = daemon.failed() => Some(reason),
    };
    if let Some(reason) = &failure {
        error!(reason, "storaged cannot go on");
    }
    service::stopping("disks complete what is in flight");
    daemon.stop().await;
    if let Some(reason) = failure {
        anyhow::bail!("storaged could not go on: {reason}");
    }
    info!("good bye");
    Ok(())
}
