//! Operations by hand: every refusal has its sentence and changes nothing; and operations by the
//! thousand, against a model that knows no layers.

use std::sync::Arc;
use std::time::Duration;

use admin_api::ErrorKind;
use admin_api::volumes::CreateVolume;
use async_trait::async_trait;
use coordination::keys::ROOT;
use coordination::map::MapKeeper;
use coordination::records::{
    FailureDomain, NameRecord, NewerFields, NodeUpRecord, OwnerRecord, PoolRecord, Redundancy, Speaks, encode,
};
use coordination::{Embedded, LeaseId};
use protocol::{Generation, NodeId, PoolId};

use super::rest::{AtRest, RestError};
use super::*;

mod model;
mod retired;
mod retype;

const LEASE: Duration = Duration::from_hours(1);

/// That a node is up whose program reads records up to a format.
pub(crate) fn up_reading(records: u32) -> NodeUpRecord {
    NodeUpRecord {
        world: "w".to_owned(),
        pid: 7,
        lease_ms: 5000,
        version: "0.1.0".to_owned(),
        since_ms: 9,
        speaks: Some(Speaks {
            wire_lowest: 1,
            wire_highest: 3,
            records,
        }),
    }
}

/// Owners of volumes that nobody has open, and that have no data: takes the owner key and gives it
/// back, as a session would. Refuses a volume that somebody owns.
#[derive(Clone)]
struct Idle {
    store: Arc<dyn Coordination>,
    map: MapWatch,
}

struct Resting {
    idle: Idle,
    taken: Vec<(VolumeId, Generation, LeaseId)>,
}

impl Idle {
    async fn give_back(&self, lease: LeaseId) {
        self.store.revoke_lease(lease).await.unwrap();
        let now = self.store.range(ROOT).await.unwrap().revision;
        self.map.at_least(now).await;
    }

    async fn take(&self, volume: VolumeId) -> Result<(Generation, LeaseId), RestError> {
        let failed = |error: &dyn std::fmt::Display| RestError::NotTakenOver(error.to_string());
        let lease = self
            .store
            .grant_lease(LEASE)
            .await
            .map_err(|error| failed(&error))?;
        let key = Key::Owner(volume).to_text();
        let record = encode(&owner_record()).map_err(|error| failed(&error))?;
        let transaction = Transaction::new()
            .when(Compare::Absent(key.clone()))
            .put_leased(key, record, lease);
        match self.store.commit(transaction).await {
            Ok(Outcome::Committed(revision)) => Ok((Generation(revision.0), lease)),
            Ok(Outcome::Conflict(_)) => Err(RestError::InUse("somebody owns the volume".to_owned())),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn owner_record() -> OwnerRecord {
    OwnerRecord {
        node: NodeId(1),
        program: "vhost-blk".to_owned(),
        pid: 77,
        read_only: false,
        opened_ms: 0,
        attachment: None,
        moves: true,
    }
}

#[async_trait]
impl rest::Owners for Idle {
    async fn bring_to_rest(&self, volumes: &[VolumeId]) -> Result<Box<dyn AtRest>, RestError> {
        let mut resting = Resting {
            idle: self.clone(),
            taken: Vec::new(),
        };
        for volume in volumes {
            let (generation, lease) = self.take(*volume).await?;
            resting.taken.push((*volume, generation, lease));
        }
        Ok(Box::new(resting))
    }

    async fn dismiss_caretaker(&self, _: VolumeId) {}

    async fn move_on(&self, _: VolumeId) -> Result<bool, RestError> {
        Ok(false)
    }

    async fn encode(&self, _: VolumeId) -> Result<bool, RestError> {
        Ok(false)
    }

    async fn zero_beyond(
        &self,
        _: VolumeId,
        from: u64,
        to: u64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RestError> {
        progress(to - from);
        Ok(())
    }
}

#[async_trait]
impl AtRest for Resting {
    fn conditions(&self, volume: VolumeId) -> Option<Vec<Compare>> {
        let (id, generation, _) = self.taken.iter().find(|(id, ..)| *id == volume)?;
        let owner = Key::Owner(*id).to_text();
        Some(vec![Compare::Created(owner, Revision(generation.0))])
    }

    async fn end(self: Box<Self>, _: Revision) {
        for (_, _, lease) in &self.taken {
            self.idle.give_back(*lease).await;
        }
    }
}

/// Operations on a store in memory, with one pool.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Coordination>,
    idle: Idle,
    pub(crate) volumes: Arc<Volumes>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
        let pool = PoolRecord {
            name: "fast".to_owned(),
            redundancy: Redundancy::Replicated { copies: 3 },
            min_in_sync: 2,
            groups: 8,
            failure_domain: FailureDomain::Disk,
            disks: None,
            closing: false,
            created_ms: 0,
            newer: NewerFields::default(),
        };
        let transaction = Transaction::new()
            .put(Key::Pool(PoolId(1)).to_text(), encode(&pool).unwrap())
            .put(
                Key::PoolName("fast".to_owned()).to_text(),
                encode(&NameRecord { id: 1 }).unwrap(),
            );
        store.commit(transaction).await.unwrap();
        let (keeper, map) = MapKeeper::start(store.clone()).await.unwrap();
        tokio::spawn(keeper.run());
        let identities = Arc::new(Identities::new(store.clone()));
        let idle = Idle {
            store: store.clone(),
            map: map.clone(),
        };
        let owners = Arc::new(idle.clone());
        let volumes = Arc::new(Volumes::new(store.clone(), map, identities, owners));
        Self { store, idle, volumes }
    }

    pub(crate) async fn create(&self, name: &str, size: u64) -> Result<VolumeId, OperationError> {
        let request = CreateVolume {
            name: name.to_owned(),
            size: size.into(),
            pool: None,
            limits: None,
        };
        self.volumes.create(&request).await.map(|(id, _)| id)
    }

    /// Somebody opens a volume, outside of these operations.
    async fn open(&self, id: VolumeId) -> LeaseId {
        let (generation, lease) = self.idle.take(id).await.unwrap();
        self.volumes.map.at_least(Revision(generation.0)).await;
        lease
    }

    async fn close(&self, lease: LeaseId) {
        self.idle.give_back(lease).await;
    }

    /// Everything that is stored but counters, which may grow for nothing.
    pub(crate) async fn stored(&self) -> Vec<String> {
        let range = self.store.range(ROOT).await.unwrap();
        let stands = |key: &str| !key.contains("/counter/");
        range
            .entries
            .into_iter()
            .filter(|entry| stands(&entry.key))
            .map(|entry| format!("{} {}", entry.key, String::from_utf8_lossy(&entry.value)))
            .collect()
    }
}

pub(crate) async fn refused<T: std::fmt::Debug>(
    world: &World,
    operation: impl Future<Output = Result<T, OperationError>>,
    kind: ErrorKind,
    says: &str,
) {
    let before = world.stored().await;
    let error = operation.await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(
        error.to_string().contains(says),
        "{error:?} does not say {says:?}"
    );
    assert_eq!(world.stored().await, before, "a refusal changed something");
}

#[tokio::test]
async fn a_wrong_request_gets_a_sentence_and_changes_nothing() {
    let world = World::new().await;
    let volumes = &world.volumes;
    world.create("a", 1 << 30).await.unwrap();
    volumes.snapshot("a", "s").await.unwrap();
    let w = &world;
    refused(
        w,
        world.create("a", 4096),
        ErrorKind::AlreadyExists,
        "use another name",
    )
    .await;
    refused(
        w,
        world.create("-a", 4096),
        ErrorKind::InvalidName,
        "letter or a digit",
    )
    .await;
    refused(w, world.create("b", 0), ErrorKind::InvalidSize, "zero").await;
    refused(w, world.create("b", u64::MAX), ErrorKind::InvalidSize, "1 PiB").await;
    refused(w, volumes.rename("x", "y"), ErrorKind::NotFound, "no volume").await;
    refused(w, volumes.rename("a", "a b"), ErrorKind::InvalidName, "letters").await;
    refused(w, volumes.snapshot("a", "s"), ErrorKind::AlreadyExists, "already").await;
    refused(w, volumes.snapshot("a", "@"), ErrorKind::InvalidName, "letter").await;
    refused(
        w,
        volumes.clone_snapshot("a", "s", "a"),
        ErrorKind::AlreadyExists,
        "already",
    )
    .await;
    refused(
        w,
        volumes.clone_snapshot("a", "t", "b"),
        ErrorKind::NotFound,
        "no snapshot",
    )
    .await;
    refused(w, volumes.roll_back("a", "t"), ErrorKind::NotFound, "no snapshot").await;
    refused(
        w,
        volumes.delete("a", false),
        ErrorKind::HasSnapshots,
        "1 snapshot",
    )
    .await;
    refused(
        w,
        volumes.delete_snapshot("a", "t"),
        ErrorKind::NotFound,
        "no snapshot",
    )
    .await;
    let smaller = "1M".into();
    refused(
        w,
        volumes.resize("a", &smaller, false),
        ErrorKind::WouldShrink,
        "cut data off",
    )
    .await;
    let twice = ["a".to_owned(), "a".to_owned()];
    refused(
        w,
        volumes.group_snapshot(&twice, "t"),
        ErrorKind::InvalidRequest,
        "twice",
    )
    .await;
    refused(
        w,
        volumes.group_snapshot(&[], "t"),
        ErrorKind::InvalidRequest,
        "1 to",
    )
    .await;
    let unknown = CreateVolume {
        name: "b".to_owned(),
        size: 1.into(),
        pool: Some("slow".to_owned()),
        limits: None,
    };
    refused(w, volumes.create(&unknown), ErrorKind::NotFound, "no pool").await;
}

#[tokio::test]
async fn a_volume_that_is_open_is_neither_deleted_nor_rolled_back_nor_shrunk() {
    let world = World::new().await;
    let volumes = &world.volumes;
    let id = world.create("a", 1 << 30).await.unwrap();
    volumes.snapshot("a", "s").await.unwrap();
    let lease = world.open(id).await;
    let w = &world;
    refused(
        w,
        volumes.delete("a", true),
        ErrorKind::InUse,
        "vhost-blk (process 77",
    )
    .await;
    refused(w, volumes.roll_back("a", "s"), ErrorKind::InUse, "close it first").await;
    refused(
        w,
        volumes.resize("a", &4096.into(), true),
        ErrorKind::InUse,
        "close it first",
    )
    .await;
    // But it grows, and is renamed, while it is open.
    volumes.resize("a", &"2G".into(), false).await.unwrap();
    volumes.rename("a", "b").await.unwrap();
    assert_eq!(volume(&volumes.map(), id).unwrap().record.size, 2 << 30);
    world.close(lease).await;
    volumes.delete("b", true).await.unwrap();
}

#[tokio::test]
async fn who_acts_right_after_an_owner_left_does_not_find_the_volume_in_use() {
    // The map is a moment behind the store: a refusal must not rest on what is over.
    let world = World::new().await;
    let id = world.create("a", 4096).await.unwrap();
    world.volumes.snapshot("a", "s").await.unwrap();
    for _ in 0..20 {
        let lease = world.open(id).await;
        world.store.revoke_lease(lease).await.unwrap();
        world.volumes.roll_back("a", "s").await.unwrap();
    }
    let lease = world.open(id).await;
    world.store.revoke_lease(lease).await.unwrap();
    world.volumes.delete("a", true).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_by_an_owner_that_was_replaced_meanwhile_is_not_made() {
    // The transaction is on the condition of the very generation that came to rest (P10).
    let world = World::new().await;
    let id = world.create("a", 4096).await.unwrap();
    let owners = world.volumes.owners.clone();
    let rest = owners.bring_to_rest(&[id]).await.unwrap();
    let holds = rest.conditions(id).unwrap();
    rest.end(Revision(0)).await;
    let lease = world.open(id).await;
    let record = volume(&world.volumes.map(), id).unwrap().clone();
    let transaction = on(&holds).put(Key::Volume(id).to_text(), encode(&record.record).unwrap());
    assert!(matches!(
        world.store.commit(transaction).await.unwrap(),
        Outcome::Conflict(_)
    ));
    world.close(lease).await;
}

#[tokio::test]
async fn what_a_shrink_cut_off_must_be_gone_before_the_volume_grows_or_is_frozen() {
    // Else the old bytes would come back when it grows, or in a clone that grows.
    let world = World::new().await;
    let volumes = &world.volumes;
    let id = world.create("a", 1 << 30).await.unwrap();
    let resized = volumes.resize("a", &"1M".into(), true).await.unwrap();
    assert!(resized.discards);
    let w = &world;
    refused(
        w,
        volumes.resize("a", &"2M".into(), false),
        ErrorKind::Conflict,
        "still being",
    )
    .await;
    refused(w, volumes.snapshot("a", "s"), ErrorKind::Conflict, "still being").await;
    // While storaged has it open for that, nobody can close it: the sentence says what to wait for.
    let lease = world.open(id).await;
    refused(
        w,
        volumes.delete("a", true),
        ErrorKind::InUse,
        "storagectl task list",
    )
    .await;
    world.close(lease).await;
    // A second shrink leaves more to be discarded, not less.
    volumes.resize("a", &4096.into(), true).await.unwrap();
    assert_eq!(
        volume(&volumes.map(), id).unwrap().record.discard_to,
        Some(1 << 30)
    );
    volumes.finish_shrink(id, 1 << 20).await.unwrap();
    assert_eq!(
        volume(&volumes.map(), id).unwrap().record.discard_to,
        Some(1 << 30)
    );
    volumes.finish_shrink(id, 1 << 30).await.unwrap();
    volumes.resize("a", &"2M".into(), false).await.unwrap();
    volumes.snapshot("a", "s").await.unwrap();
}

#[tokio::test]
async fn a_size_is_rounded_up_and_the_answer_says_so() {
    let world = World::new().await;
    let request = CreateVolume {
        name: "a".to_owned(),
        size: 5000.into(),
        pool: None,
        limits: None,
    };
    let (id, notes) = world.volumes.create(&request).await.unwrap();
    assert_eq!(volume(&world.volumes.map(), id).unwrap().record.size, 8192);
    assert!(notes.iter().any(|note| note.contains("8192")), "{notes:?}");
}

#[tokio::test]
async fn a_snapshot_a_thousand_deep_writes_as_many_records_as_the_first() {
    // The cost of a snapshot or a clone must not grow with a volume's history.
    let world = World::new().await;
    let volumes = &world.volumes;
    world.create("a", 1 << 40).await.unwrap();
    for number in 0..1000 {
        volumes.snapshot("a", &format!("s{number}")).await.unwrap();
    }
    let before = world.store.range(ROOT).await.unwrap();
    volumes.snapshot("a", "last").await.unwrap();
    volumes.clone_snapshot("a", "last", "copy").await.unwrap();
    let after = world.store.range(ROOT).await.unwrap();
    let written: Vec<_> = after
        .entries
        .iter()
        .filter(|entry| entry.modified > before.revision)
        .collect();
    // Volume, snapshot, layer, event; volume, name, layer, event; and maybe two counters.
    assert!(written.len() <= 10, "{written:?}");
    let bytes: usize = written.iter().map(|entry| entry.value.len()).sum();
    assert!(bytes < 4096, "{bytes} bytes");
    // Deleting it with all its snapshots takes more than one transaction's worth of them.
    volumes.delete("a", true).await.unwrap();
    assert!(volumes.map().volume_named("a").is_none());
    assert!(volumes.map().volume_named("copy").is_some());
}

#[tokio::test]
async fn of_many_that_create_the_same_name_one_wins() {
    let world = Arc::new(World::new().await);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.create("same", 4096).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        winners += u32::from(task.await.unwrap());
    }
    assert_eq!(winners, 1);
    assert_eq!(world.volumes.map().volume_names().count(), 1);
}
