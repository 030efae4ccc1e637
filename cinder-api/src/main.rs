//! The program `cinder-api`: arguments, logging, the listening sockets, signals.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use cinder_api::backup::Repository;
use cinder_api::config::{Place, Settings};
use cinder_api::connections::{ByAgent, Connections, Iscsi, Kind};
use cinder_api::identity::Keystone;
use cinder_api::keys::Keys;
use cinder_api::limits::Limits;
use cinder_api::policy::Policy;
use cinder_api::records::Records;
use cinder_api::service::Service;
use cinder_api::serving::Serving;
use cinder_api::storage::Storage;
use cinder_api::{api, door, metrics, work};
use clap::Parser;
use coordination::attach::Way;
use coordination::{Coordination, Embedded, Etcd};
use telemetry::log::{self, LogFormat};
use telemetry::service as manager;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections at once of whoever reads the metrics: few do.
const METRICS_CONNECTIONS_MAX: usize = 16;

/// OpenStack's Block Storage API over volumes of storaged.
///
/// Register it in Keystone's catalogue as block-storage and volumev3, in place of Cinder. Any number of these processes may
/// run side by side on one etcd.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "PATH", default_value = "/etc/storaged/cinder-api.toml")]
    config: PathBuf,
    /// How log lines look. `RUST_LOG` says which there are
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    metrics::begin();
    log::start(arguments.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cinder-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let settings = Settings::read(&arguments.config)?;
    let policy = Policy::load(settings.policy_file.as_deref())?;
    let store: Arc<dyn Coordination> = match &settings.records {
        Place::File(path) => Arc::new(Embedded::open(path)?),
        Place::Etcd(options) => Arc::new(Etcd::connect(options).await?),
    };
    let records = Records::start(store).await.context("read the records")?;
    api::types::settle_default(&records)
        .await
        .context("make the default type")?;
    api::group_types::settle_reserved(&records)
        .await
        .context("make the type of consistency groups")?;
    let service = Arc::new(Service {
        keystone: Keystone::new(settings.keystone.clone()).context("make a client for Keystone")?,
        storage: Storage::new(&settings.admin_socket)?,
        connections: connections(&settings).await?,
        backups: settings
            .backups
            .as_ref()
            .map(Repository::new)
            .transpose()
            .context("make a client for where backups are kept")?,
        keys: settings
            .keys
            .as_ref()
            .map(Keys::new)
            .transpose()
            .context("make a client for the key manager")?,
        policy,
        records,
        settings,
    });
    let working = tokio::spawn(work::run(service.clone()));
    let serving = serve(service);
    tokio::select! {
        served = serving => served,
        ended = working => {
            ended.context("the work ended in a panic")?.context("the work cannot go on")?;
            anyhow::bail!("the records cannot be followed any more")
        }
    }
}

/// The kinds of connections that are configured, that for everybody last.
async fn connections(settings: &Settings) -> Result<Connections> {
    let mut kinds: Vec<Box<dyn Kind>> = Vec::new();
    if let Some(local) = &settings.local {
        let store = Arc::new(Etcd::connect(&local.etcd).await?);
        for way in [Way::Block, Way::VhostUser] {
            kinds.push(Box::new(ByAgent::new(store.clone(), way)));
        }
    }
    kinds.push(Box::new(Iscsi::new(settings.target_prefix.clone())));
    Ok(Connections::new(kinds))
}

async fn serve(service: Arc<Service>) -> Result<()> {
    let limits = service.settings.limits;
    let door = door::Door::new(service.clone(), api::router(service.clone()));
    let serving = Serving::new(door.router(), limits);
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    for address in &service.settings.listen {
        let listener = listen(*address).await?;
        info!(address = %listener.local_addr()?, "the Block Storage API listens");
        servers.spawn(serving.clone().run(listener, stopping.clone()));
    }
    if let Some(address) = service.settings.metrics_listen {
        let listener = listen(address).await?;
        info!(address = %listener.local_addr()?, "metrics are served");
        let few = Limits {
            connections: METRICS_CONNECTIONS_MAX,
            ..limits
        };
        let metrics = Serving::new(metrics::text::router(service.clone()), few);
        servers.spawn(metrics.run(listener, stopping));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    manager::ready("serves the Block Storage API");
    tokio::select! {
        never = manager::heartbeat() => match never {},
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(ended) = servers.join_next() => ended.context("a server ended in a panic")?,
    }
    manager::stopping("requests that run may finish");
    info!("stopping: requests that run may finish");
    stop.send_replace(true);
    while let Some(ended) = servers.join_next().await {
        ended.context("a server ended in a panic")?;
    }
    door.rest(limits.shutdown).await;
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("listen at {address}"))
}
