//! The program `storaged-nbd`: arguments, logging, signals.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use client::transport::{Address, AddressError};
use storaged_nbd::address::ListenAddress;
use storaged_nbd::server::{Server, Settings};
use storaged_nbd::source::{Cluster, MemoryExport, Source};
use storaged_nbd::tls::{CertificateFiles, acceptor};
use telemetry::log::{self, LogFormat};
use telemetry::service;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// Page-sized buffers are most of what a disk holds in memory. The system's allocator takes twice their
/// size for them, and gives large ones back to the kernel after each use (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serve volumes and snapshots over NBD (Network Block Device).
///
/// An export is named VOLUME, or VOLUME@SNAPSHOT for a snapshot, which is read only.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Where this node's storaged is: a socket's path or tcp:HOST:PORT (several: the best first)
    #[arg(long, value_name = "ADDRESS", required_unless_present = "memory", value_parser = storaged_address)]
    storaged: Vec<Address>,
    /// Where clients come in: unix:PATH or tcp:ADDRESS:PORT (may be given several times)
    #[arg(long, value_name = "ADDRESS", required = true)]
    listen: Vec<ListenAddress>,
    /// This server's certificate (PEM, with those between it and its authority)
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_client_authority"])]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// The authorities (PEM) that sign the certificates of clients; others are turned away
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_client_authority: Option<PathBuf>,
    /// Let TCP clients do without TLS; on the loopback interface only
    #[arg(long, conflicts_with = "tls_certificate")]
    plaintext: bool,
    /// Which export the empty name stands for
    #[arg(long, value_name = "EXPORT")]
    default_export: Option<String>,
    /// Serve volumes for reading only
    #[arg(long, conflicts_with = "memory")]
    read_only: bool,
    /// Let others have the same volumes open at the same time, all of them with --shared. What guests owe each other
    /// (locks, a file system that is made for it) is theirs
    #[arg(long, conflicts_with = "memory")]
    shared: bool,
    /// How many seconds a client waits for a volume that somebody else has open
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u16,
    /// Connections at once; each may hold 64 MiB
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Answer an operator's questions on this socket: unix:PATH, for this user only
    #[arg(long, value_name = "unix:PATH", value_parser = control_socket)]
    control: Option<PathBuf>,
    /// How log lines look. `RUST_LOG` says which there are
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Serve a volume in memory instead of the cluster, for trials: NAME=BYTES
    #[arg(long, value_name = "NAME=BYTES", hide = true, conflicts_with = "storaged", value_parser = memory_export)]
    memory: Vec<MemoryExport>,
}

const EXAMPLES: &str = "\
Examples:
  storaged-nbd --storaged /run/storaged/storaged.sock --listen unix:/run/storaged/nbd.sock
  qemu-img convert -n -O raw image.qcow2 'nbd+unix:///my-disk?socket=/run/storaged/nbd.sock'
  nbdinfo --list 'nbd+unix://?socket=/run/storaged/nbd.sock'";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start(arguments.log_format);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storaged-nbd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = settings(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        let (leave, leaving) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let server = Server::bind(settings).await?;
        for address in server.addresses() {
            // For whoever started this process: from here on a client can connect.
            println!("listening on {address}");
        }
        service::ready("serves clients");
        tokio::task::spawn_local(service::heartbeat());
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            service::stopping("answers what was taken");
            leave.send_replace(true);
        });
        server.run(leaving).await;
        Ok(())
    })
}

fn settings(arguments: Arguments) -> anyhow::Result<Settings> {
    let files = arguments
        .tls_certificate
        .zip(arguments.tls_key)
        .zip(arguments.tls_client_authority);
    let files = files.map(|((certificate, key), client_authority)| CertificateFiles {
        certificate,
        key,
        client_authority,
    });
    let tls = files.as_ref().map(acceptor).transpose()?;
    let source = if arguments.storaged.is_empty() {
        Source::Memory(arguments.memory)
    } else {
        Source::Cluster(Cluster {
            storaged: arguments.storaged,
            read_only: arguments.read_only,
            shared: arguments.shared,
            wait: Duration::from_secs(arguments.wait.into()),
        })
    };
    Ok(Settings {
        source,
        listen: arguments.listen,
        control: arguments.control,
        tls,
        plaintext: arguments.plaintext,
        default_export: arguments.default_export,
        connections: usize::from(arguments.connections),
    })
}

/// What is not marked as something else is a path.
fn storaged_address(text: &str) -> Result<Address, AddressError> {
    if text.starts_with("tcp:") || text.starts_with("unix:") {
        text.parse()
    } else {
        Ok(Address::Unix(PathBuf::from(text)))
    }
}

fn control_socket(text: &str) -> Result<PathBuf, String> {
    match text.parse::<ListenAddress>() {
        Ok(ListenAddress::Unix(path)) => Ok(path),
        Ok(ListenAddress::Tcp(_)) => Err("the control socket is a unix socket: unix:PATH".to_owned()),
        Err(error) => Err(error),
    }
}

fn memory_export(text: &str) -> anyhow::Result<MemoryExport> {
    let (name, size) = text.split_once('=').ok_or_else(|| anyhow!("write NAME=BYTES"))?;
    Ok(MemoryExport {
        name: name.to_owned(),
        size: size.parse().context("the size is a number of bytes")?,
    })
}
