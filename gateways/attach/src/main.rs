//! The program `storaged-attach`: arguments, what is printed, signals.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use coordination::attach::Host;
use coordination::etcd::{ClientIdentity, ConnectError, Credentials, Options};
use coordination::{Coordination, Etcd};
use serde_json::json;
use storaged_attach::agent::Agent;
use storaged_attach::care::{self, Pace};
use storaged_attach::kernel::Owner;
use storaged_attach::mapping::{Mapped, Mapper};
use storaged_attach::nbd::Nbd;
use storaged_attach::sockets::Sockets;
use storaged_nbd::address::ListenAddress;
use telemetry::log::{self, LogFormat};
use telemetry::service;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Where the kernel tells which start of which machine this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Between attempts to reach an etcd that is away.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Make volumes block devices of this host: /dev/storaged/VOLUME.
///
/// The kernel's NBD client has the data's way, over a storaged-nbd on this host: devices outlive this program and its
/// restarts. `storaged-attach serve` must run all the same: it gives devices another link when storaged-nbd was
/// restarted (I/O waits meanwhile, and nothing fails), makes them larger when their volumes grow, and maps what OpenStack
/// wants this host to have, after a reboot too.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where this host's storaged-nbd is: unix:PATH or tcp:ADDRESS:PORT. `map` and `serve` of a host have the same one. Start it with --shared if guests move between hosts
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        default_value = "unix:/run/storaged-attach/nbd.sock"
    )]
    gateway: ListenAddress,
    /// How log lines look. `RUST_LOG` says which there are
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a volume (or VOLUME@SNAPSHOT) a block device, and print its path. Nothing is done if it is one already
    Map {
        /// The volume
        volume: String,
        /// Take no writes
        #[arg(long)]
        read_only: bool,
    },
    /// End the block device of a volume, unless it is in use. What was written is safe already
    Unmap {
        /// The volume
        volume: String,
        /// End it even if it is in use (what is under way fails), or OpenStack's
        #[arg(long)]
        force: bool,
    },
    /// Show the block devices that there are
    List {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Care for all block devices, and map what OpenStack wants: a daemon
    Serve(Serve),
}

#[derive(Args, Debug)]
struct Serve {
    /// What this host is called: the same as nova-compute's host. The system's name, if left out
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Where cinder-api writes what hosts shall have (several: any of them). Without it, only what is there is cared for
    #[arg(long, value_name = "URL")]
    etcd: Vec<String>,
    /// What is put before every key: as cinder-api's local.prefix says
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "/openstack-attach",
        requires = "etcd"
    )]
    etcd_prefix: String,
    /// The authority that signed etcd's certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// This program's certificate for etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_key: Option<PathBuf>,
    /// Make sockets for guests, too, where OpenStack wants them: a vhost-blk each, run by systemd
    /// (storaged-vhost-blk@.service). For compute hosts with nova-compute-storaged
    #[arg(long, requires = "etcd")]
    vhost_user: bool,
    /// This program's user of etcd
    #[arg(long, value_name = "NAME", requires = "etcd")]
    etcd_user: Option<String>,
    /// A file with the user's password
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_password_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  storaged-nbd --storaged /var/lib/storaged/storaged.sock --listen unix:/run/storaged-attach/nbd.sock --shared
  storaged-attach map db                 # prints /dev/storaged/db
  storaged-attach unmap db
  storaged-attach serve                  # on a host of its own
  storaged-attach serve --etcd http://10.0.0.1:2379 --etcd http://10.0.0.2:2379   # on a compute host

The kernel needs its module nbd (modprobe nbd) and Linux 5.14 or newer; this program needs root.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start(arguments.log_format);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storaged-attach: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let kernel = Arc::new(Nbd::open()?);
    let mapper = Mapper::new(kernel.clone(), arguments.gateway);
    match arguments.command {
        Command::Map { volume, read_only } => {
            let mapped = mapper.map(&volume, Owner::Host, read_only)?;
            println!("{}", mapped.path.display());
        }
        Command::Unmap { volume, force } => mapper.unmap(&volume, Owner::Host, force)?,
        Command::List { json } => print(&mapper.list()?, json),
        Command::Serve(options) => serve(&kernel, mapper, options)?,
    }
    Ok(())
}

fn print(mapped: &[Mapped], as_json: bool) {
    if as_json {
        let rows: Vec<_> = mapped.iter().map(row).collect();
        println!("{}", json!(rows));
        return;
    }
    for mapped in mapped {
        let device = &mapped.device;
        println!(
            "{}  /dev/{}  {} bytes{}",
            mapped.path.display(),
            device.node(),
            device.size,
            if device.read_only { "  read only" } else { "" }
        );
    }
}

fn row(mapped: &Mapped) -> serde_json::Value {
    let device = &mapped.device;
    json!({
        "volume": device.tag.export.to_string(),
        "path": mapped.path,
        "device": format!("/dev/{}", device.node()),
        "size": device.size,
        "read_only": device.read_only,
        "owner": device.tag.owner,
    })
}

fn serve(kernel: &Nbd, mapper: Mapper, options: Serve) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let dead_links = care::listen(kernel).context("listen for dead links")?;
        let caring = care::run(mapper.clone(), dead_links, Pace::default());
        let following = follow(mapper, options);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            never = service::heartbeat() => match never {},
            () = caring => bail!("the kernel does not tell of dead links any more"),
            followed = following => return followed,
        }
        service::stopping("the block devices stay");
        info!("leaving: the block devices stay");
        Ok(())
    });
    // Somebody may wait for a gateway that is away, and would go on waiting.
    runtime.shutdown_background();
    ended
}

/// Follows the store, if there is one; for ever.
async fn follow(mapper: Mapper, options: Serve) -> Result<()> {
    if options.etcd.is_empty() {
        mapper.settle_names()?;
        ready();
        std::future::pending::<()>().await;
    }
    let name = options
        .host
        .clone()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let host = Host::new(&name)
        .with_context(|| format!("no host is called {name:?}: letters, digits, dots, dashes"))?;
    let sockets = options.vhost_user.then(Sockets::default);
    let store: Arc<dyn Coordination> = Arc::new(connect(options).await?);
    let boot = std::fs::read_to_string(BOOT).with_context(|| format!("read {BOOT}"))?;
    let agent = Agent {
        host,
        boot: boot.trim().to_owned(),
        mapper,
        sockets,
        store,
    };
    agent.run(ready).await.map_err(Into::into)
}

async fn connect(options: Serve) -> Result<Etcd> {
    let options = Options {
        prefix: options.etcd_prefix,
        ca: options.etcd_ca,
        identity: ClientIdentity::of(options.etcd_certificate, options.etcd_key)?,
        credentials: Credentials::of(options.etcd_user, options.etcd_password_file)?,
        ..Options::plain(options.etcd)
    };
    options.check()?;
    loop {
        match Etcd::connect(&options).await {
            Ok(etcd) => return Ok(etcd),
            // At a host's start it may be somewhat later than this program.
            Err(error @ ConnectError::Store { .. }) => {
                warn!(%error, "what this host shall have is not known yet");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
    }
}

/// For whoever started this process: what needs the devices can start.
fn ready() {
    info!("ready");
    service::ready("block devices are cared for");
}
