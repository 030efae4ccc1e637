//! A node in this process: three disks in a directory, sessions, and the operations on volumes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use admin_api::pools::CreatePool;
use admin_api::volumes::CreateVolume;
use client::transport::{self, Address, Link, Listener};
use client::volume::{OpenError, Options, Volume};
use coordination::keys::Key;
use coordination::map::{MapKeeper, MapWatch};
use coordination::records::{DiskRecord, NewerFields, NodeRecord, NodeUpRecord, SchemaRecord, encode};
use coordination::{ClusterMap, Compare, Coordination, Embedded, LeaseId, Outcome, Transaction};
use protocol::codec::Message;
use protocol::rows::is_rows;
use protocol::session::{OpenMode, SessionReply, SessionRequest};
use protocol::{DiskId, NodeId, VolumeId};
use storaged::caretaker::Caretaker;
use storaged::cluster::presence::Presence;
use storaged::disk::{Disk, Remote, Settings};
use storaged::events::Events;
use storaged::identities::Identities;
use storaged::membership::{Membership, Wishes};
use storaged::session::{self, Sessions};
use storaged::volumes::Volumes;
use store::Store;
use tokio::task::JoinHandle;

/// The cluster that its disks are of.
pub(crate) const CLUSTER: [u8; 16] = *b"a cluster's name";
const NODE: NodeId = NodeId(1);
const DISKS: [DiskId; 3] = [DiskId(1), DiskId(2), DiskId(3)];

/// For what comes by itself.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// A running node.
pub(crate) struct Node {
    directory: std::path::PathBuf,
    pub(crate) volumes: Arc<Volumes>,
    map: MapWatch,
    disks: Vec<Disk>,
    wishes: Wishes,
    tasks: Vec<JoinHandle<()>>,
    store: Arc<Embedded>,
}

impl Node {
    /// Makes three disks and a pool with three copies, and starts.
    pub(crate) async fn create(directory: &Path) -> Self {
        Self::with_min_in_sync(directory, 2).await
    }

    /// The same with a pool whose writes wait for no more than so many copies.
    pub(crate) async fn with_min_in_sync(directory: &Path, min_in_sync: u32) -> Self {
        Self::with_pool(directory, Some(3), None, Some(min_in_sync)).await
    }

    /// The same with rows 2+1: one disk may be away.
    pub(crate) async fn encoded(directory: &Path) -> Self {
        Self::with_pool(directory, None, Some("2+1"), None).await
    }

    async fn with_pool(
        directory: &Path,
        copies: Option<u32>,
        erasure: Option<&str>,
        min_in_sync: Option<u32>,
    ) -> Self {
        for disk in DISKS {
            make_disk(directory, disk);
        }
        let node = Self::start(directory).await;
        let pool = CreatePool {
            name: "pool".into(),
            copies,
            erasure: erasure.map(Into::into),
            min_in_sync,
            groups: Some(8),
            disks: None,
            failure_domain: None,
        };
        node.volumes.create_pool(&pool).await.unwrap();
        node
    }

    /// Starts what was made in the directory before.
    pub(crate) async fn start(directory: &Path) -> Self {
        let store = Arc::new(Embedded::open(&directory.join("coordination.redb")).unwrap());
        register(store.as_ref(), directory).await;
        let (keeper, map) = MapKeeper::start(store.clone()).await.unwrap();
        let keeping = tokio::spawn(async move {
            let error = keeper.run().await;
            panic!("the map cannot be kept: {error}");
        });
        let address = Address::Unix(directory.join("storaged.sock"));
        let settings = session::Settings {
            node: NODE,
            presence: Presence::new(NODE, LeaseId(0)),
            lease: session::LEASE_DEFAULT,
            address: address.clone(),
            host: None,
            credentials: None,
        };
        let sessions = Sessions::new(settings, store.clone(), map.clone());
        sessions.release_the_dead().await;
        let listener = Listener::bind(&address).await.unwrap();
        let serving = tokio::spawn(Arc::clone(&sessions).serve(listener));
        let identities = Arc::new(Identities::new(store.clone()));
        let owners = Arc::new(sessions.clone());
        let volumes = Arc::new(Volumes::new(store.clone(), map.clone(), identities, owners));
        let (wishes, membership) = Membership::new(volumes.clone(), Duration::ZERO);
        sessions.complain_to(wishes.clone());
        let membership = tokio::spawn(membership.run());
        let mut disks = Vec::new();
        for disk in DISKS {
            disks.push(start_disk(directory, disk, map.clone(), wishes.clone()).await);
        }
        let directory = directory.to_owned();
        Self {
            directory,
            volumes,
            map,
            disks,
            wishes,
            tasks: vec![keeping, serving, membership],
            store,
        }
    }

    /// Makes another pool on the same disks: of three copies, or of rows 2+1.
    pub(crate) async fn create_pool(&self, name: &str, rows: bool) {
        let pool = CreatePool {
            name: name.into(),
            copies: (!rows).then_some(3),
            erasure: rows.then(|| "2+1".into()),
            min_in_sync: None,
            groups: Some(8),
            disks: None,
            failure_domain: None,
        };
        self.volumes.create_pool(&pool).await.unwrap();
    }

    /// Makes a volume.
    pub(crate) async fn create_volume(&self, name: &str, size: u64) {
        let request = CreateVolume {
            name: name.into(),
            size: size.into(),
            pool: Some("pool".into()),
            limits: None,
        };
        self.volumes.create(&request).await.unwrap();
    }

    /// Opens a volume, at once or not at all.
    pub(crate) async fn open(&self, name: &str) -> Result<Volume, OpenError> {
        Volume::open(self.options(name)).await
    }

    /// How a program from before there were moves fares that opens a volume.
    pub(crate) async fn open_as_older_program(&self, name: &str) -> String {
        let address = Address::Unix(self.directory.join("storaged.sock"));
        let mut link = Link::new(transport::connect(&address, None).await.unwrap());
        let hello = SessionRequest::Hello {
            program: "older".into(),
            pid: std::process::id(),
            yields: false,
            moves: false,
        };
        let open = SessionRequest::Open {
            volume: name.into(),
            snapshot: None,
            mode: OpenMode::ReadWrite,
            wait_ms: 0,
            succeeds: false,
            again: None,
            attachment: None,
        };
        link.outbox.push_session_request(0, &hello);
        link.outbox.push_session_request(1, &open);
        loop {
            match link.converse().await.unwrap() {
                (1, Message::SessionReply(SessionReply::Refused { message, .. })) => return message,
                (1, answer) => panic!("{answer:?}"),
                _ => {}
            }
        }
    }

    /// Does what can wait with volumes that nobody has open, as the daemon does.
    pub(crate) async fn take_care(&mut self) {
        let up = NodeUpRecord {
            world: String::new(),
            pid: std::process::id(),
            lease_ms: 1000,
            version: String::new(),
            since_ms: 0,
            speaks: Some(storaged::cluster::presence::speaks()),
        };
        let key = Key::NodeUp(NODE).to_text();
        let put = Transaction::new().put(key, encode(&up).unwrap());
        self.store.commit(put).await.unwrap();
        let identities = Arc::new(Identities::new(self.store.clone()));
        let (events, keeper) = Events::start(self.store.clone(), identities).await.unwrap();
        let caretaker = Caretaker::new(NODE, self.volumes.clone(), self.map.clone(), events);
        self.tasks.push(tokio::spawn(keeper.run()));
        self.tasks.push(tokio::spawn(caretaker.run()));
    }

    /// How many ranges of a volume have rows on some disk.
    pub(crate) async fn ranges_with_rows(&self, volume: VolumeId) -> usize {
        let map = self.volumes.map();
        let record = &map.volume(volume).unwrap().1.record;
        let mut ranges = BTreeSet::new();
        for disk in &self.disks {
            let remote = disk.remote();
            let listed = remote.objects_of_layer(record.family, record.head, 0, 1000).await;
            let (indices, _) = listed.unwrap();
            ranges.extend(indices.into_iter().filter(|index| is_rows(*index)));
        }
        ranges.len()
    }

    /// Lets the lease of a volume's owner lapse.
    pub(crate) async fn end_lease(&self, volume: VolumeId) {
        let owner = self.store.get(&Key::Owner(volume).to_text()).await.unwrap();
        if let Some(lease) = owner.and_then(|entry| entry.lease) {
            self.store.revoke_lease(lease).await.unwrap();
        }
    }

    /// How tests open a volume.
    pub(crate) fn options(&self, name: &str) -> Options {
        Options {
            program: "test".into(),
            storaged: vec![Address::Unix(self.directory.join("storaged.sock"))],
            volume: name.into(),
            snapshot: None,
            read_only: false,
            wait: Duration::ZERO,
            read_cache: None,
        }
    }

    /// Stops a disk, and leaves it away.
    pub(crate) async fn stop_disk(&mut self, id: DiskId) {
        let place = self.disks.iter().position(|disk| disk.id() == id).unwrap();
        self.disks.remove(place).stop().await;
    }

    /// Commands a disk.
    pub(crate) fn remote(&self, id: DiskId) -> Remote {
        let disk = self.disks.iter().find(|disk| disk.id() == id);
        disk.unwrap().remote()
    }

    /// Starts a disk that was stopped.
    pub(crate) async fn start_disk(&mut self, id: DiskId) {
        let disk = start_disk(&self.directory, id, self.map.clone(), self.wishes.clone()).await;
        self.disks.push(disk);
    }

    /// Waits for a map of which something is true.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&ClusterMap) -> bool) {
        let mut map = self.map.clone();
        let wait = async {
            while !condition(&map.current_and_seen()) {
                assert!(map.changed().await, "no more maps come");
            }
        };
        let ended = tokio::time::timeout(WAIT_MAX, wait).await;
        ended.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    /// Stops everything, as at the end of the daemon.
    pub(crate) async fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // Aborted, or ended: both are an end.
            let _ = task.await;
        }
        for disk in self.disks {
            disk.stop().await;
        }
    }
}

/// Makes an empty disk.
pub(crate) fn make_disk(directory: &Path, disk: DiskId) {
    let path = directory.join(disk.to_string());
    std::fs::create_dir_all(&path).unwrap();
    let serial = [u8::try_from(disk.0).unwrap(); 16];
    let format = store::Format {
        cluster: CLUSTER,
        disk,
        serial,
        log_bytes: 16 << 20,
    };
    Store::create(&path, &format).unwrap();
}

async fn start_disk(directory: &Path, disk: DiskId, map: MapWatch, wishes: Wishes) -> Disk {
    let settings = Settings {
        disk,
        node: NODE,
        wishes: Some(wishes),
        recovery_rate: 1 << 30,
        scrub_rate: 1 << 30,
        cluster: CLUSTER,
        directory: directory.join(disk.to_string()),
        listen: vec![Address::Unix(socket(directory, disk))],
        credentials: None,
        options: store::Options {
            share: Some([u8::try_from(disk.0).unwrap(); 16]),
            ..store::Options::default()
        },
    };
    Disk::start(settings, map).await.unwrap()
}

fn socket(directory: &Path, disk: DiskId) -> std::path::PathBuf {
    directory.join(format!("{disk}.sock"))
}

/// Writes the records of cluster, node and disks, once.
async fn register(store: &Embedded, directory: &Path) {
    let schema = Key::Schema.to_text();
    let mut transaction = Transaction::new().when(Compare::Absent(schema.clone())).put(
        schema,
        encode(&SchemaRecord {
            cluster: CLUSTER,
            created_ms: 0,
        })
        .unwrap(),
    );
    let node = NodeRecord {
        name: "here".into(),
        zone: String::new(),
        serial: [1; 16],
        addresses: Vec::new(),
        created_ms: 0,
        newer: NewerFields::default(),
    };
    transaction = transaction.put(Key::Node(NODE).to_text(), encode(&node).unwrap());
    for disk in DISKS {
        let record = DiskRecord {
            node: NODE,
            path: directory.join(disk.to_string()).display().to_string(),
            weight: 100,
            share: None,
            draining: false,
            addresses: vec![Address::Unix(socket(directory, disk)).to_string()],
            capacity: None,
            created_ms: 0,
            newer: NewerFields::default(),
        };
        transaction = transaction.put(Key::Disk(disk).to_text(), encode(&record).unwrap());
    }
    let outcome = store.commit(transaction).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_) | Outcome::Conflict(_)));
}
