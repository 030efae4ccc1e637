//! The program `storaged-iscsi`: arguments, logging, signals.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use admin_api::iscsi::{Access, Configuration, Credentials, Lun, Target};
use admin_client::IscsiDirectory;
use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use client::transport::Address;
use client::volume::Cache;
use storaged_iscsi::directory::{Announcement, first, follow};
use storaged_iscsi::portal::{Portals, Settings};
use storaged_iscsi::source::{Cluster, Source};
use telemetry::log::{self, LogFormat};
use telemetry::service;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

/// Page-sized buffers are most of what a disk holds in memory. The system's allocator takes twice their
/// size for them, and gives large ones back to the kernel after each use (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serve volumes of the cluster over iSCSI.
///
/// Which targets there are, and who may log in, is the cluster's: see `storagectl iscsi --help`. Every gateway serves all
/// of them. It must run as the user that storaged runs as.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Where this node's storaged is: a socket's path or tcp:HOST:PORT (several: the best first)
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["memory", "redirect"])]
    storaged: Vec<Address>,
    /// The admin socket of this node's storaged
    #[arg(long, value_name = "PATH", default_value = ADMIN_SOCKET)]
    admin_socket: PathBuf,
    /// Where initiators come in: ADDRESS:PORT or [ADDRESS]:PORT (may be given several times)
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// Where initiators are told that this gateway is, if that is not where it listens (may be given several times)
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "memory")]
    announce: Vec<SocketAddr>,
    /// The tag of the portal group that these addresses are: no other gateway of the cluster may have it. The node's
    /// number if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    portal_group: Option<u16>,
    /// Serve nothing, but send every login on to another gateway of the cluster: hosts need to know this address only. It
    /// is not announced
    #[arg(long, conflicts_with_all = ["announce", "portal_group", "memory"])]
    redirect: bool,
    /// How many seconds a login waits for a volume that somebody else has open alone
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    wait: u16,
    /// How much of what is read from this node's disks is kept in memory, in MiB; 0 for nothing. A twentieth of the machine's
    /// memory if left out, and at most 4096
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    read_cache: Option<u32>,
    /// Connections at once; each may hold 128 MiB
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How log lines look. `RUST_LOG` says which there are
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Serve volumes in memory instead of the cluster's, for trials: NAME=BYTES, or NAME=BYTES/4096 for long blocks. They
    /// are the units of one target, in order
    #[arg(long, value_name = "NAME=BYTES", hide = true, conflicts_with = "storaged")]
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

/// The part of the machine's memory in which what was read is kept, and how much that may be at most.
const READ_CACHE_PART: usize = 20;
const READ_CACHE_MAX: usize = 4096 << 20;

/// Where `storaged` has its admin socket unless it is configured otherwise.
const ADMIN_SOCKET: &str = "/var/lib/storaged/admin.sock";

const EXAMPLES: &str = "\
Examples:
  storagectl iscsi target create iqn.2026-11.org.example:disks
  storagectl iscsi lun add iqn.2026-11.org.example:disks my-disk
  storagectl iscsi acl add iqn.2026-11.org.example:disks iqn.1993-08.org.debian:01:host --chap-generate
  storaged-iscsi --storaged /run/storaged/storaged.sock --listen 192.0.2.1:3260
  storaged-iscsi --storaged /run/storaged/storaged.sock --listen '[::]:3260' --announce 192.0.2.1:3260
  storaged-iscsi --redirect --listen 192.0.2.100:3260";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start(arguments.log_format);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storaged-iscsi: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Memory for what was read, of so many MiB, or as many as suit the machine.
fn read_cache(mib: Option<u32>) -> Option<Cache> {
    let bytes = match mib {
        Some(mib) => usize::try_from(mib).unwrap_or(0) << 20,
        None => (memory_of_machine() / READ_CACHE_PART).min(READ_CACHE_MAX),
    };
    (bytes > 0).then(|| Cache::new(bytes))
}

/// How much memory the machine has, in bytes; 0 if it does not say.
fn memory_of_machine() -> usize {
    let info = rustix::system::sysinfo();
    let bytes = info.totalram.saturating_mul(info.mem_unit.into());
    usize::try_from(bytes).unwrap_or(0)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        let (leave, leaving) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let portals = Portals::bind(&arguments.listen)
            .await
            .context("listen for initiators")?;
        let signalled = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let serving = async {
            if arguments.redirect {
                redirect(arguments, portals, leaving).await
            } else if arguments.memory.is_empty() {
                serve_cluster(arguments, portals, leaving).await
            } else {
                serve_memory(arguments, portals, leaving).await
            }
        };
        spawn_local(service::heartbeat());
        tokio::pin!(serving);
        tokio::select! {
            done = &mut serving => return done,
            () = signalled => {}
        }
        service::stopping("asks initiators to log out, and answers what was taken");
        leave.send_replace(true);
        serving.await
    })
}

/// Sends those who log in on to where the cluster's portals are.
async fn redirect(
    arguments: &Arguments,
    portals: Portals,
    mut leaving: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let directory = IscsiDirectory::new(&arguments.admin_socket)?;
    let configuration = tokio::select! {
        configuration = first(&directory) => configuration.context("learn where to send initiators")?,
        _ = leaving.wait_for(|raised| *raised) => return Ok(()),
    };
    let (configure, configured) = watch::channel(Arc::new(configuration));
    let settings = Settings {
        source: Source::Memory(Vec::new()),
        configured,
        portal_group: 0,
        redirects: true,
        connections: usize::from(arguments.connections),
    };
    report(&portals)?;
    let following = spawn_local(follow(directory, configure));
    portals.run(settings, leaving).await;
    following.abort();
    Ok(())
}

/// Serves what the cluster says, and tells it where.
async fn serve_cluster(
    arguments: &Arguments,
    portals: Portals,
    mut leaving: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let directory = IscsiDirectory::new(&arguments.admin_socket)?;
    let addresses = announced(arguments, &portals)?;
    let prepared = async {
        let configuration = first(&directory).await?;
        let announcement = Announcement::begin(directory.clone(), &addresses, arguments.portal_group).await?;
        anyhow::Ok((configuration, announcement))
    };
    let (configuration, announcement) = tokio::select! {
        prepared = prepared => prepared.context("learn what to serve")?,
        _ = leaving.wait_for(|raised| *raised) => return Ok(()),
    };
    let (configure, configured) = watch::channel(Arc::new(configuration));
    let settings = Settings {
        source: Source::Cluster(Cluster {
            storaged: arguments.storaged.clone(),
            admin_socket: arguments.admin_socket.clone(),
            wait: Duration::from_secs(arguments.wait.into()),
            read_cache: read_cache(arguments.read_cache),
        }),
        configured,
        portal_group: announcement
            .group()
            .context("storaged has not kept the announcement: name a portal group")?,
        redirects: false,
        connections: usize::from(arguments.connections),
    };
    report(&portals)?;
    let following = spawn_local(follow(directory, configure));
    tokio::select! {
        () = announcement.keep() => {}
        () = portals.run(settings, leaving) => {}
    }
    following.abort();
    announcement.withdraw().await;
    Ok(())
}

/// Where initiators are told to come: who listens on all addresses must say which of them.
fn announced(arguments: &Arguments, portals: &Portals) -> anyhow::Result<Vec<SocketAddr>> {
    if !arguments.announce.is_empty() {
        return Ok(arguments.announce.clone());
    }
    let addresses = portals.addresses()?;
    for address in &addresses {
        ensure!(
            !address.ip().is_unspecified(),
            "initiators cannot be told to come to {address}: say with --announce which address they reach"
        );
    }
    Ok(addresses)
}

/// For whoever started this process: from here on an initiator can connect.
fn report(portals: &Portals) -> anyhow::Result<()> {
    for address in portals.addresses()? {
        println!("listening on {address}");
    }
    service::ready("serves initiators");
    Ok(())
}

async fn serve_memory(
    arguments: &Arguments,
    portals: Portals,
    leaving: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (volumes, target) = in_memory(arguments)?;
    let configuration = Configuration {
        revision: 1,
        targets: vec![target],
        portals: Vec::new(),
    };
    let (_configure, configured) = watch::channel(Arc::new(configuration));
    let settings = Settings {
        source: Source::Memory(volumes),
        configured,
        portal_group: arguments.portal_group.unwrap_or(1),
        redirects: false,
        connections: usize::from(arguments.connections),
    };
    report(&portals)?;
    portals.run(settings, leaving).await;
    Ok(())
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
