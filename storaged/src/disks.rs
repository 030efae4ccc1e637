//! The disks of this node: adds them, starts them, knows how they are.
//!
//! What a disk does lies in [`crate::disk`]; what the cluster knows of it stands in its record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use admin_api::disks::{AddDisk, ChangeDisk, DiskState};
use admin_api::sizes::SizeInput;
use client::transport::CredentialsWatch;
use coordination::keys::{Counter, Key};
use coordination::map::Versioned;
use coordination::records::{DiskRecord, NewerFields, encode};
use coordination::{ClusterMap, Compare, Transaction, map::MapWatch};
use protocol::{DiskId, NodeId};
use rand::Rng;
use store::{Format, MemoryBudget};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tracing::{Instrument, error, error_span, info};

use crate::config::Listen;
use crate::disk::{self, Disk, Figures, Remote, Times};
use crate::membership::Wishes;
use crate::membership::leaving::plan_trust;
use crate::moment::wall_clock_ms;
use crate::slow::Known;
use crate::volumes::{Decision, OperationError, Plan, Volumes, event};

mod addresses;
mod directory;
mod report;
mod weight;

use directory::{Found, create, inspect};
pub use weight::capacity_of;
use weight::{check_weight, weight_by_capacity};

/// Left free on a disk's file system, for metadata and for others.
const RESERVE_BYTES: u64 = 256 << 20;
/// A disk that does not tell its figures in this time is stuck in its medium.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How the disks of this node are run.
#[derive(Clone, Debug)]
pub struct Place {
    /// This node.
    pub node: NodeId,
    /// The cluster's identity.
    pub cluster: [u8; 16],
    /// Where disks' sockets are.
    pub sockets: PathBuf,
    /// What each disk may keep in memory, in bytes.
    pub memory_per_disk: u64,
    /// The length of new disks' logs, in bytes.
    pub log_bytes: u64,
    /// Whether front ends of this node may read the disks' files themselves.
    pub direct_reads: bool,
    /// Where disks are reached from other nodes; nothing if they are not.
    pub listen: Option<Listen>,
    /// What they show there; nothing where nodes speak in plaintext.
    pub credentials: Option<CredentialsWatch>,
    /// Who changes their slots' states when they come back; if nobody, they do not.
    pub wishes: Option<Wishes>,
    /// How much is copied to each that comes back, in bytes a second at most.
    pub recovery_rate: u64,
    /// How much of each is read by its scrubs, in bytes a second at most.
    pub scrub_rate: u64,
    /// What is known of slow disks.
    pub slow: Arc<Known>,
}

/// The disks of this node.
pub struct Disks {
    place: Place,
    volumes: Arc<Volumes>,
    map: MapWatch,
    running: Mutex<BTreeMap<DiskId, Running>>,
    /// Counts starts and ends, for those who wait for a disk.
    changes: watch::Sender<u64>,
}

enum Running {
    Up(Disk),
    Down(String),
}

/// How a disk is, at this moment.
#[derive(Clone, Debug)]
pub struct Condition {
    /// How it is.
    pub state: DiskState,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Why it is thought to be much slower than its peers.
    pub slow: Option<String>,
    /// Its figures, if it is up and on this node.
    pub figures: Figures,
    /// Whether it is on this node: of other nodes' disks only this node's map tells.
    pub here: bool,
}

impl Disks {
    /// No disk runs yet.
    pub fn new(place: Place, volumes: Arc<Volumes>, map: MapWatch) -> Self {
        let (changes, _) = watch::channel(0);
        Self {
            place,
            volumes,
            map,
            running: Mutex::default(),
            changes,
        }
    }

    /// Starts all disks that the map has on this node. One that does not start is told of and left.
    pub async fn start_all(&self) {
        let map = self.map.current();
        for (id, disk) in map.disks_on(self.place.node) {
            if let Err(reason) = self.start(id, &disk.record).await {
                error!(disk = %id, reason, "the disk does not start");
            }
        }
    }

    /// Finishes what the disks have in flight, and stops them.
    pub async fn stop_all(&self) {
        let all = std::mem::take(&mut *self.running.lock().await);
        for running in all.into_values() {
            if let Running::Up(disk) = running {
                disk.stop().await;
            }
        }
        self.changed();
    }

    /// The disks of this node.
    pub async fn ids(&self) -> Vec<DiskId> {
        self.running.lock().await.keys().copied().collect()
    }

    /// The newest map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.map.current()
    }

    /// A way to command a disk, if it runs.
    pub async fn remote(&self, id: DiskId) -> Option<Remote> {
        match self.running.lock().await.get(&id) {
            Some(Running::Up(disk)) => Some(disk.remote()),
            Some(Running::Down(_)) | None => None,
        }
    }

    /// Tells of disks that start or end.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How long things took on a disk; nothing if it does not answer.
    pub async fn times(&self, id: DiskId) -> Option<Times> {
        let remote = self.remote(id).await?;
        timeout(ANSWER_LIMIT, remote.times()).await.ok()?.ok()
    }

    /// A disk is thought to be slow from now on, or not any more.
    pub fn mark_slow(&self, id: DiskId, why: Option<String>) {
        self.place.slow.mark(id, why);
    }

    fn why_slow(&self, id: DiskId) -> Option<String> {
        self.place.slow.why(id, Instant::now())
    }

    /// How a disk is.
    pub async fn condition(&self, id: DiskId) -> Condition {
        let down = |reason: String| Condition {
            state: DiskState::Down,
            reason: Some(reason),
            slow: None,
            figures: Figures::default(),
            here: true,
        };
        let remote = match self.running.lock().await.get(&id) {
            Some(Running::Up(disk)) => disk.remote(),
            Some(Running::Down(reason)) => return down(reason.clone()),
            None => {
                let elsewhere = elsewhere(&self.map.current(), id, self.place.node);
                let elsewhere = elsewhere.map(|condition| Condition {
                    slow: self.why_slow(id),
                    ..condition
                });
                return elsewhere.unwrap_or_else(|| down("storaged is stopping".to_owned()));
            }
        };
        match timeout(ANSWER_LIMIT, remote.figures()).await {
            Ok(Ok(figures)) => {
                let reason = figures.poisoned.clone().map(|cause| {
                    format!(
                        "a write or a flush failed ({cause}): add the disk again when its cause is mended"
                    )
                });
                let state = if reason.is_some() {
                    DiskState::Poisoned
                } else {
                    DiskState::Up
                };
                Condition {
                    state,
                    reason,
                    slow: self.why_slow(id),
                    figures,
                    here: true,
                }
            }
            Ok(Err(stopped)) => down(stopped.to_string()),
            Err(_) => down(format!("it did not answer for {} s", ANSWER_LIMIT.as_secs())),
        }
    }

    /// Runs one more disk on this node.
    pub async fn add(&self, request: &AddDisk) -> Result<DiskId, OperationError> {
        let path = absolute(&request.path)?;
        let capacity = request
            .capacity
            .as_ref()
            .map(SizeInput::volume_size)
            .transpose()?
            .map(|s| s.bytes);
        check_weight(request.weight)?;
        if let Some((id, disk)) = self.at(&self.map.current(), &path) {
            return self.start_again(id, &disk.record).await;
        }
        let found = inspect(path.clone()).await?;
        let id = match &found {
            Found::Nothing => DiskId(self.volumes.identities().next_short(Counter::Disk).await?),
            Found::Disk(format) => self.claim(format)?,
        };
        if matches!(found, Found::Nothing) {
            let cluster = self.place.cluster;
            let serial = rand::rng().random();
            let format = Format {
                cluster,
                disk: id,
                serial,
                log_bytes: self.place.log_bytes,
            };
            create(path.clone(), format).await?;
        }
        let weight = match request.weight {
            Some(weight) => weight,
            None => weight_by_capacity(&path, capacity)?,
        };
        let record = DiskRecord {
            node: self.place.node,
            path: path.display().to_string(),
            weight,
            share: None,
            draining: false,
            addresses: self.place.addresses(id, &self.map.current()),
            capacity,
            created_ms: wall_clock_ms(),
            newer: NewerFields::default(),
        };
        self.volumes
            .carry_out(|map| plan_addition(map, id, &record))
            .await?;
        match self.start(id, &record).await {
            Ok(()) => Ok(id),
            Err(reason) => Err(OperationError::Unavailable(format!(
                "{id} was added and does not start: {reason}"
            ))),
        }
    }

    /// Changes a disk's properties.
    pub async fn change(&self, id: DiskId, request: &ChangeDisk) -> Result<(), OperationError> {
        check_weight(request.weight)?;
        self.volumes
            .carry_out(|map| plan_change(map, id, request))
            .await?;
        if request.trust {
            let why = "somebody says that its cause is mended";
            self.volumes.carry_out(|map| Ok(plan_trust(map, id, why))).await?;
        }
        Ok(())
    }

    /// Stops disks that were removed from the cluster, for ever: run it as a task.
    pub async fn follow(self: Arc<Self>) {
        let mut map = self.map.clone();
        while map.changed().await {
            let now = map.current_and_seen();
            // A disk that is being added runs only after its record is there.
            let mut running = self.running.lock().await;
            let gone: Vec<DiskId> = running
                .keys()
                .filter(|id| !now.disks().contains_key(id))
                .copied()
                .collect();
            let gone: Vec<Running> = gone.iter().filter_map(|id| running.remove(id)).collect();
            drop(running);
            for running in gone {
                if let Running::Up(disk) = running {
                    info!(disk = %disk.id(), "the disk was removed from the cluster: it stops");
                    disk.stop().await;
                }
                self.changed();
            }
        }
    }

    /// The node that they are of.
    pub fn node(&self) -> NodeId {
        self.place.node
    }

    fn at<'a>(&self, map: &'a ClusterMap, path: &Path) -> Option<(DiskId, &'a Versioned<DiskRecord>)> {
        let here = |disk: &DiskRecord| disk.node == self.place.node && Path::new(&disk.path) == path;
        map.disks()
            .iter()
            .find(|(_, disk)| here(&disk.record))
            .map(|(id, disk)| (*id, disk))
    }

    async fn start_again(&self, id: DiskId, record: &DiskRecord) -> Result<DiskId, OperationError> {
        if self.condition(id).await.state == DiskState::Up {
            let message = format!("{} is {id} already, and it serves", record.path);
            return Err(OperationError::AlreadyExists(message));
        }
        // A poisoned disk still runs: it is opened, and so verified, anew.
        let old = self.running.lock().await.remove(&id);
        if let Some(Running::Up(disk)) = old {
            disk.stop().await;
        }
        self.start(id, record)
            .await
            .map(|()| id)
            .map_err(OperationError::Unavailable)
    }

    /// The identity of a disk that was found, if it may be taken up.
    fn claim(&self, format: &Format) -> Result<DiskId, OperationError> {
        if format.cluster != self.place.cluster {
            return Err(OperationError::Invalid(
                "the directory holds a disk of another cluster: use an empty one".to_owned(),
            ));
        }
        if self.map.current().disks().contains_key(&format.disk) {
            let message = format!(
                "the directory holds a copy of {}, which is somewhere else",
                format.disk
            );
            return Err(OperationError::AlreadyExists(message));
        }
        Ok(format.disk)
    }

    async fn start(&self, id: DiskId, record: &DiskRecord) -> Result<(), String> {
        let options = store::Options {
            capacity_bytes: record.capacity.unwrap_or(u64::MAX),
            reserve_bytes: RESERVE_BYTES,
            memory: MemoryBudget::of(self.place.memory_per_disk),
            share: self.place.direct_reads.then(|| rand::rng().random()),
            ..store::Options::default()
        };
        let settings = disk::Settings {
            disk: id,
            cluster: self.place.cluster,
            directory: record.path.clone().into(),
            listen: addresses::parsed(&self.place.addresses(id, &self.map.current())),
            credentials: self.place.credentials.clone(),
            options,
            node: self.place.node,
            wishes: self.place.wishes.clone(),
            recovery_rate: self.place.recovery_rate,
            scrub_rate: self.place.scrub_rate,
        };
        let span = error_span!("storaged", node = %self.place.node);
        let started = Disk::start(settings, self.map.clone()).instrument(span).await;
        let (running, result) = match started {
            Ok(disk) => match self.announce(&disk).await {
                Ok(()) => {
                    info!(disk = %id, path = record.path, "the disk serves");
                    (Running::Up(disk), Ok(()))
                }
                // It would refuse the next owner, or worse, take it for one that it has known.
                Err(error) => {
                    let reason = format!(
                        "what others must know of the disk cannot be told to the coordination store: {error}"
                    );
                    disk.stop().await;
                    (Running::Down(reason.clone()), Err(reason))
                }
            },
            Err(error) => (Running::Down(error.to_string()), Err(error.to_string())),
        };
        self.running.lock().await.insert(id, running);
        self.changed();
        result
    }

    /// Tells the others what the disk remembers, and where it listens now.
    async fn announce(&self, disk: &Disk) -> Result<(), OperationError> {
        self.volumes.raise_revision(disk.remembers()).await?;
        // The disk may be one of those whose records are being put back.
        self.volumes.believed().await;
        let addresses = self.place.announced(disk.addresses());
        self.volumes
            .carry_out(|map| addresses::plan_move(map, disk.id(), &addresses))
            .await
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// How a disk of another node is, as far as that can be known from here; nothing if it is one of ours.
fn elsewhere(map: &ClusterMap, id: DiskId, ours: NodeId) -> Option<Condition> {
    let node = map.disks().get(&id)?.record.node;
    if node == ours {
        return None;
    }
    let name = map
        .nodes()
        .get(&node)
        .map_or("", |node| node.record.name.as_str());
    let up = map.up().contains_key(&node);
    Some(Condition {
        state: if up { DiskState::Up } else { DiskState::Down },
        reason: (!up).then(|| format!("{node} ({name}) is down")),
        slow: None,
        figures: Figures::default(),
        here: false,
    })
}

fn absolute(path: &str) -> Result<PathBuf, OperationError> {
    let path = PathBuf::from(path);
    if !path.is_absolute()
        || path
            .components()
            .any(|part| part == std::path::Component::ParentDir)
    {
        let message = format!(
            "{} is not an absolute path: begin with / and leave out ..",
            path.display()
        );
        return Err(OperationError::Invalid(message));
    }
    Ok(path)
}

fn plan_addition(map: &ClusterMap, id: DiskId, record: &DiskRecord) -> Result<Decision<()>, OperationError> {
    if map.disks().contains_key(&id) {
        return Err(OperationError::AlreadyExists(format!("{id} was added already")));
    }
    let key = Key::Disk(id).to_text();
    let transaction = Transaction::new()
        .when(Compare::Absent(key.clone()))
        .put(key, encode(record)?);
    let message = format!("{id} at {} was added with weight {}", record.path, record.weight);
    Ok(Plan::decide(
        transaction,
        event("disk_added", id.to_string(), message),
        (),
    ))
}

fn plan_change(map: &ClusterMap, id: DiskId, request: &ChangeDisk) -> Result<Decision<()>, OperationError> {
    let disk = map
        .disks()
        .get(&id)
        .ok_or_else(|| OperationError::NotFound(format!("there is no disk {}", id.0)))?;
    let mut record = disk.record.clone();
    record.weight = request.weight.unwrap_or(record.weight);
    if record == disk.record {
        return Ok(Decision::Unchanged(()));
    }
    let key = Key::Disk(id).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), disk.modified))
        .put(key, encode(&record)?);
    let message = format!("{id} has weight {} now", record.weight);
    Ok(Plan::decide(
        transaction,
        event("disk_changed", id.to_string(), message),
        (),
    ))
}
