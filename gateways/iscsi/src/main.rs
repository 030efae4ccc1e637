//! The program `storaged-iscsi`: arguments, logging, signals.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use storaged_iscsi::configuration::{Access, Configuration, Credentials, Lun, Target};
use storaged_iscsi::portal::{Portals, Settings};
use storaged_iscsi::source::Source;
use telemetry::log::{self, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// Page-sized buffers are most of what a disk holds in memory. The system's allocator takes twice their
/// size for them, and gives large ones back to the kernel after each use (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serve volumes over iSCSI.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// Where initiators come in: ADDRESS:PORT or [ADDRESS]:PORT (may be given several times)
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// The tag of the portal group that these addresses are
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    portal_group: u16,
    /// Connections at once; each may hold 128 MiB
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How log lines look. `RUST_LOG` says which there are
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Serve volumes in memory, for trials: NAME=BYTES, or NAME=BYTES/4096 for long blocks. They are the units of one
    /// target, in order
    #[arg(long, value_name = "NAME=BYTES", hide = true, required = true)]
    memory: Vec<String>,
    /// The name of the target in memory
    #[arg(
        long,
        value_name = "NAME",
        hide = true,
        default_value = "iqn.2026-01.storaged:memory"
    )]
    memory_target: String,
    /// An initiator that may use the target in memory: NAME, or NAME/USER/SECRET (may be given several times)
    #[arg(long, value_name = "NAME", hide = true)]
    memory_access: Vec<String>,
    /// What the target in memory proves to initiators that ask: USER/SECRET
    #[arg(long, value_name = "USER/SECRET", hide = true)]
    memory_mutual: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start(arguments.log_format);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storaged-iscsi: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        let (leave, leaving) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let (volumes, target) = in_memory(&arguments)?;
        let configuration = Configuration {
            revision: 1,
            targets: vec![target],
            portals: Vec::new(),
        };
        let (_configure, configured) = watch::channel(Arc::new(configuration));
        let portals = Portals::bind(Settings {
            source: Source::Memory(volumes),
            configured,
            listen: arguments.listen,
            portal_group: arguments.portal_group,
            connections: usize::from(arguments.connections),
        })
        .await
        .context("listen for initiators")?;
        for address in portals.addresses()? {
            // For whoever started this process: from here on an initiator can connect.
            println!("listening on {address}");
        }
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            leave.send_replace(true);
        });
        portals.run(leaving).await;
        Ok(())
    })
}

/// The target in memory, and the volumes behind it.
fn in_memory(arguments: &Arguments) -> anyhow::Result<(Vec<(String, u64)>, Target)> {
    let mut volumes = Vec::new();
    let mut luns = Vec::new();
    for (number, text) in (0u16..).zip(&arguments.memory) {
        let (name, size) = text.split_once('=').ok_or_else(|| anyhow!("write NAME=BYTES"))?;
        let (size, block_size) = size.split_once('/').unwrap_or((size, "512"));
        let block_size = block_size.parse().context("the block size is 512 or 4096")?;
        ensure!(matches!(block_size, 512 | 4096), "the block size is 512 or 4096");
        volumes.push((
            name.to_owned(),
            size.parse().context("the size is a number of bytes")?,
        ));
        luns.push(Lun {
            number,
            volume: name.to_owned(),
            volume_id: u64::from(number) + 1,
            read_only: false,
            block_size,
        });
    }
    let access = arguments
        .memory_access
        .iter()
        .map(|text| access(text))
        .collect::<Result<_, _>>()?;
    let mutual = arguments.memory_mutual.as_deref().map(credentials).transpose()?;
    let target = Target {
        name: arguments.memory_target.to_lowercase(),
        luns,
        access,
        mutual,
        ..Target::default()
    };
    Ok((volumes, target))
}

fn access(text: &str) -> anyhow::Result<Access> {
    let (initiator, chap) = match text.split_once('/') {
        Some((initiator, chap)) => (initiator, Some(credentials(chap)?)),
        None => (text, None),
    };
    Ok(Access {
        initiator: initiator.to_lowercase(),
        chap,
    })
}

fn credentials(text: &str) -> anyhow::Result<Credentials> {
    let (user, secret) = text.split_once('/').ok_or_else(|| anyhow!("write USER/SECRET"))?;
    Ok(Credentials {
        user: user.to_owned(),
        secret: secret.to_owned(),
    })
}
