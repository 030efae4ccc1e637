//! The life of a `storaged`: open the records, start the disks, serve, drain, close.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use admin_api::disks::AddDisk;
use client::transport::{Address, CredentialsWatch, Listener};
use coordination::embedded::OpenError;
use coordination::etcd::ConnectError;
use coordination::map::keeper::KeeperError;
use coordination::{ClusterMap, Coordination, CoordinationError, Embedded, Etcd};
use protocol::NodeId;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{Instrument, Span, error, field, info, warn};

use crate::access::AccessTokens;
use crate::admin::{self, Admin, Context, ListenError, Network};
use crate::cluster::authority::{AuthorityError, Shown};
use crate::cluster::memory::keeper as memory;
use crate::cluster::presence::Presence;
use crate::cluster::tokens::Tokens;
use crate::cluster::{self, EnterError, identity};
use crate::config::{AdminListen, Config};
use crate::disks::{Disks, Place};
use crate::events::Events;
use crate::expiry::Certificates;
use crate::identities::Identities;
use crate::iscsi::Iscsi;
use crate::iscsi::secrets::Secrets;
use crate::membership::Membership;
use crate::peers::Peers;
use crate::peers::gate::Gate;
use crate::peers::survey::Surveyor;
use crate::reclaim::Reclaim;
use crate::relocation::Relocations;
use crate::scrub::Scrubs;
use crate::session::{Sessions, Settings};
use crate::shrink::Shrinks;
use crate::slow::Known;
use crate::tasks::Tasks;
use crate::volumes::rest::Owners;
use crate::volumes::{OperationError, Volumes};

mod believing;
mod nursing;
mod reach;

use believing::{Believed, believed};
use nursing::Nursing;
use reach::{certificates, is_reached, open_door, open_port, serve_nodes};

/// Memory that is not the disks': connections, records, the program itself.
const MEMORY_RESERVED: u64 = 32 << 20;
/// Memory is shared out among at least so many disks, so that some can be added without a restart.
const DISKS_MIN: u64 = 4;
/// How many lease times front ends that share volumes have to come back after a start.
const VIGIL_LEASES: u32 = 2;
/// How long the last word for them may take, when `storaged` stops.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(2);
/// Only the user that runs `storaged` looks into the work directory: it holds the sockets.
const WORK_DIR_MODE: u32 = 0o700;

/// Why a `storaged` does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The work directory cannot be made.
    #[error("cannot make the work directory {path}: {source}")]
    WorkDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The records cannot be opened.
    #[error(transparent)]
    Records(#[from] OpenError),
    /// The records cannot be reached.
    #[error(transparent)]
    Etcd(#[from] ConnectError),
    /// It is told to use etcd, and has records of its own.
    #[error(
        "{path} holds records of the embedded coordination store, and the configuration says etcd, which \
             does not know them: leave out the section [etcd], or remove the file if its volumes are not needed"
    )]
    TwoStores {
        /// The file of the embedded store.
        path: PathBuf,
    },
    /// A record cannot be read.
    #[error(transparent)]
    Map(#[from] KeeperError),
    /// It does not become a node of the cluster.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// It has no certificates to show.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The records cannot be changed.
    #[error(transparent)]
    Store(#[from] CoordinationError),
    /// The disks that were asked for cannot be made.
    #[error("cannot make a disk: {0}")]
    Disk(#[from] OperationError),
    /// The admin API does not listen.
    #[error(transparent)]
    Admin(#[from] ListenError),
    /// It was told to stop.
    #[error("stopped before anything was served, while lost records were waited for")]
    Stopped,
    /// Front ends cannot connect.
    #[error("cannot listen for front ends at {address}: {source}")]
    Session {
        /// Where.
        address: Address,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running `storaged`.
pub struct Daemon {
    context: Arc<Context>,
    admin: Admin,
    /// What runs until the end.
    background: JoinSet<()>,
    sessions: Arc<Sessions>,
    keeper: JoinHandle<KeeperError>,
    /// What keeps the node up; it ends when another process is the node.
    up: JoinHandle<String>,
    presence: Presence,
    /// What the node remembers when it has stopped.
    memory: Option<memory::Keeper>,
    store: Arc<dyn Coordination>,
    /// The work directory is ours as long as this lives.
    _work_dir: OwnedFd,
}

impl Daemon {
    /// Starts everything; when it returns, front ends and operators are served.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_unless(config, std::future::pending()).await
    }

    /// As [`Daemon::start`]. Waiting for what other nodes remember, which may last for ever, ends when it is told to stop.
    pub async fn start_unless(config: &Config, stop: impl Future<Output = ()>) -> Result<Self, StartError> {
        let started = Instant::now();
        prepare(&config.work_dir)?;
        prepare(&config.disks_dir())?;
        let work_dir = identity::take(&config.work_dir).map_err(EnterError::from)?;
        let store = records(config).await?;
        // Before anything is believed of the records, or written into them.
        let Believed {
            keeper,
            map,
            identities,
            beginning,
        } = believed(config, &store, stop).await?;
        let (up, current) = cluster::enter(&store, &map, &identities, &config.node).await?;
        let presence = up.presence();
        let up = tokio::spawn(up.run().in_current_span());
        let node = presence.node();
        Span::current().record("node", field::display(node));
        let mut background = JoinSet::new();

        let certificates = certificates(config, &store, &current, node, &mut background).await?;
        let access = Arc::new(AccessTokens::new(store.clone(), identities.clone(), node));
        let network = certificates.as_ref().map(|shown| Network::new(shown, &access));
        let authority = certificates.as_ref().map(|shown| shown.authority.clone());
        let shown = certificates.filter(|_| is_reached(config));
        let tokens = Tokens::new(store.clone(), identities.clone(), node);
        let secrets = Secrets::new(shown.as_ref().map(|shown| shown.seal.clone()));
        let peers = Peers::new(map.clone(), shown.as_ref().map(|shown| shown.node.clone()));
        let gate = Gate::new(shown.as_ref().map(|shown| shown.node.clone()));
        let port = open_port(config).await;
        let reached = port.as_ref().ok().map(|port| port.address().to_owned());
        let door = open_door(config, shown.as_ref(), current.cluster(), tokens, &port);
        cluster::announce(&store, &map, node, &config.node, reached).await?;
        serve_nodes(port, door.as_ref().ok(), &gate, &mut background);
        let events = keep_events(&store, &identities, &mut background).await?;
        let address = Address::Unix(config.session_socket());
        let settings = settings(config, &presence, &address, shown.as_ref());
        let sessions = Sessions::new(settings, store.clone(), map.clone());
        speak_for_front_ends(&sessions, config.lease, &mut background);
        let owners: Arc<dyn Owners> = Arc::new(sessions.clone());
        let volumes = Arc::new(Volumes::new(store.clone(), map.clone(), identities, owners));

        let (wishes, membership) = Membership::new(volumes.clone(), config.lease);
        let slow = Arc::<Known>::default();
        let membership = membership.with_slow(slow.clone(), nursing::evicts_slow(config));
        background.spawn(membership.run().in_current_span());
        let memory = beginning.go_on(config, &volumes, node, &mut background)?;
        let place = Place {
            wishes: Some(wishes.clone()),
            slow,
            ..place(config, &current, node, shown.map(|shown| shown.node))
        };
        // Before the disks, which may take long: leases run since the store was opened, and an owner that finds
        // nobody to renew its lease with loses its volume, and its guest its disk.
        sessions.release_the_dead().await;
        if config.evict_failed_disks {
            sessions.complain_to(wishes.clone());
        }
        serve_front_ends(Arc::clone(&sessions), &address, &mut background).await?;

        let disks = Arc::new(Disks::new(place, volumes.clone(), map.clone()));
        disks.start_all().await;
        // Until somebody makes a pool of them, what was asked for at the first start is completed: it may
        // have been cut short.
        make_disks(config, &current, &disks).await?;
        let relocations = Relocations::new(volumes.clone(), node, config.rebalance);
        background.spawn(relocations.clone().run().in_current_span());
        let nursing = Nursing {
            disks: disks.clone(),
            volumes: volumes.clone(),
            map: map.clone(),
            wishes,
            presence: presence.clone(),
            relocations: relocations.clone(),
            events: events.clone(),
        };
        let progress = nursing.start(config, &mut background);
        let tasks = Tasks::default();
        let reclaim = give_back_space(&volumes, &disks, &tasks, &mut background);
        let shrinks = go_on_shrinking(&volumes, &tasks);
        let scrubs = Scrubs::new(config.scrub, &volumes, &disks, &tasks, &events, peers.clone());
        background.spawn(scrubs.clone().run().in_current_span());

        let context = Arc::new(Context {
            node,
            lease: config.lease,
            started,
            iscsi: Iscsi::new(volumes.clone(), store.clone(), node, secrets),
            volumes,
            surveyor: Surveyor::new(peers, disks.clone()),
            disks,
            events,
            progress,
            tasks,
            reclaim,
            shrinks,
            door,
            access,
            certificates: Certificates::of(config),
            authority,
            network_addresses: OnceLock::new(),
            scrubs,
            relocations,
        });
        gate.open(admin::peer_router(context.clone()));
        let admin = serve_operators(config, &context, network).await?;
        info!(work_dir = %config.work_dir.display(), %node, "storaged serves");
        Ok(Self {
            context,
            admin,
            background,
            sessions,
            keeper,
            up,
            presence,
            memory,
            store,
            _work_dir: work_dir,
        })
    }

    /// What the parts work with, for tests.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Where the admin API listens, with the ports that the system chose.
    pub fn admin_addresses(&self) -> &[AdminListen] {
        self.admin.addresses()
    }

    /// Waits for something that makes it senseless to go on, which is told.
    pub async fn failed(&mut self) -> String {
        let ended = tokio::select! {
            ended = &mut self.keeper => ended.map(|error| error.to_string()),
            ended = &mut self.up => ended,
        };
        ended.unwrap_or_else(|error| error.to_string())
    }

    /// Stops: operators' requests may finish, disks complete what is in flight. Front ends keep
    /// their volumes and wait: they go on when a `storaged` serves again.
    pub async fn stop(self) {
        let Self {
            context,
            admin,
            mut background,
            sessions,
            keeper,
            up,
            presence,
            memory,
            store,
            _work_dir,
        } = self;
        info!("stopping");
        context.iscsi.stop_waiting();
        admin.stop().await;
        background.shutdown().await;
        let closing = async {
            if let Some(memory) = memory {
                memory.write().await;
            }
            context.disks.stop_all().await;
        };
        // Front ends stay, and have nobody now who keeps their leases. Disks may take long to stop.
        tokio::select! {
            () = closing => {}
            () = sessions.keep_vigil() => {}
        }
        // From here on the next `storaged` has a whole lease's time.
        if timeout(LAST_WORD_LIMIT, sessions.keep_attachments())
            .await
            .is_err()
        {
            warn!("the records do not answer: front ends that share volumes may lose them");
        }
        drop(sessions);
        up.abort();
        if let Err(error) = store.revoke_lease(presence.lease()).await {
            warn!(%error, "the node counts as up until its lease lapses");
        }
        drop(store);
        keeper.abort();
        // The last of those who hold the records closes them.
        drop(context);
        if let Err(error) = keeper.await
            && error.is_panic()
        {
            error!(%error, "the keeper of the map ended in a panic");
        }
        info!("stopped");
    }
}

/// Answers operators, here and over the network.
async fn serve_operators(
    config: &Config,
    context: &Arc<Context>,
    network: Option<Network>,
) -> Result<Admin, ListenError> {
    let mut listen = vec![AdminListen::Here(Address::Unix(config.admin_socket()))];
    listen.extend(config.admin_listen.iter().cloned());
    let admin = Admin::start(&admin::router(context.clone()), &listen, network).await?;
    // Nobody else sets them.
    let _ = context.network_addresses.set(admin.network_addresses());
    Ok(admin)
}

/// What sessions are told.
fn settings(config: &Config, presence: &Presence, address: &Address, shown: Option<&Shown>) -> Settings {
    Settings {
        node: presence.node(),
        presence: presence.clone(),
        lease: config.lease,
        address: address.clone(),
        host: config.listen.as_ref().map(|listen| listen.host.clone()),
        credentials: shown.map(|shown| shown.front_ends.clone()),
    }
}

/// How the node's disks are run.
fn place(config: &Config, map: &ClusterMap, node: NodeId, credentials: Option<CredentialsWatch>) -> Place {
    let disk_count = u64::try_from(map.disks_on(node).count())
        .unwrap_or(u64::MAX)
        .max(DISKS_MIN);
    Place {
        node,
        cluster: map.cluster(),
        sockets: config.disks_dir(),
        memory_per_disk: config.memory.saturating_sub(MEMORY_RESERVED) / disk_count,
        log_bytes: config.disk_log,
        direct_reads: config.direct_reads,
        listen: config.listen.clone(),
        credentials,
        wishes: None,
        recovery_rate: config.recovery_rate,
        scrub_rate: config.scrub.rate,
        slow: Arc::default(),
    }
}

/// The coordination store: an etcd, or a file.
async fn records(config: &Config) -> Result<Arc<dyn Coordination>, StartError> {
    let file = config.coordination_file();
    let Some(options) = &config.etcd else {
        return Ok(Arc::new(Embedded::open(&file)?));
    };
    if file.exists() {
        return Err(StartError::TwoStores { path: file });
    }
    let store = Etcd::connect(options).await?;
    info!(
        endpoints = options.endpoints.join(", "),
        "the records are in etcd"
    );
    Ok(Arc::new(store))
}

/// Starts the event log.
async fn keep_events(
    store: &Arc<dyn Coordination>,
    identities: &Arc<Identities>,
    background: &mut JoinSet<()>,
) -> Result<Events, StartError> {
    let (events, keeper) = Events::start(store.clone(), identities.clone()).await?;
    background.spawn(keeper.run().in_current_span());
    Ok(events)
}

/// Gives back space, what was begun before included.
fn give_back_space(
    volumes: &Arc<Volumes>,
    disks: &Arc<Disks>,
    tasks: &Tasks,
    background: &mut JoinSet<()>,
) -> Reclaim {
    let reclaim = Reclaim::new(volumes.clone(), disks.clone(), tasks.clone());
    background.spawn(reclaim.clone().run().in_current_span());
    background.spawn(reclaim.clone().follow().in_current_span());
    reclaim
}

/// Shrinks volumes, those that were not done when the last process ended included.
fn go_on_shrinking(volumes: &Arc<Volumes>, tasks: &Tasks) -> Shrinks {
    let shrinks = Shrinks::new(volumes.clone(), tasks.clone());
    shrinks.resume();
    shrinks
}

/// Keeps attachments until front ends have spoken for themselves: they try again at once, and once a second at the latest.
fn speak_for_front_ends(sessions: &Arc<Sessions>, lease: Duration, background: &mut JoinSet<()>) {
    let vigil = Arc::clone(sessions);
    let vigil = async move { drop(timeout(lease * VIGIL_LEASES, vigil.keep_vigil()).await) };
    background.spawn(vigil.in_current_span());
}

async fn serve_front_ends(
    sessions: Arc<Sessions>,
    address: &Address,
    background: &mut JoinSet<()>,
) -> Result<(), StartError> {
    let bound = Listener::bind(address).await;
    let listener = bound.map_err(|source| StartError::Session {
        address: address.clone(),
        source,
    })?;
    background.spawn(sessions.clone().follow_wishes().in_current_span());
    background.spawn(sessions.serve(listener).in_current_span());
    Ok(())
}

async fn make_disks(config: &Config, map: &ClusterMap, disks: &Disks) -> Result<(), StartError> {
    let mut ours = map.disks_on(disks.node());
    if ours.any(|(id, _)| map.groups_on(id).next().is_some()) {
        return Ok(());
    }
    for number in 1..=config.new_disks {
        let path = config.disks_dir().join(number.to_string()).display().to_string();
        if map
            .disks_on(disks.node())
            .any(|(_, disk)| disk.record.path == path)
        {
            continue;
        }
        disks
            .add(&AddDisk {
                path,
                capacity: None,
                weight: None,
            })
            .await?;
    }
    Ok(())
}

fn prepare(path: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::WorkDir {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, WORK_DIR_MODE);
    builder.recursive(true).create(path).map_err(failed)
}
