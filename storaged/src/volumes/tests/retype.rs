//! Volumes that move to another pool: what is refused, what the records say meanwhile, and at the end.

use coordination::Revision;
use coordination::records::{FORMAT_OF_MOVES, NewerFields};

use super::super::retype::{Progress, progress};
use super::*;

const SIZE: u64 = 64 << 20;

/// A world with another pool, and a volume in the first one.
async fn world() -> (World, VolumeId) {
    let world = World::new().await;
    let pool = PoolRecord {
        name: "archive".to_owned(),
        redundancy: Redundancy::Replicated { copies: 2 },
        min_in_sync: 1,
        groups: 8,
        failure_domain: FailureDomain::Disk,
        disks: None,
        closing: false,
        created_ms: 0,
        newer: NewerFields::default(),
    };
    let key = Key::Pool(PoolId(2)).to_text();
    put(&world, &key, encode(&pool).unwrap()).await;
    let request = CreateVolume {
        name: "a".to_owned(),
        size: SIZE.into(),
        pool: Some("fast".to_owned()),
        limits: None,
    };
    let (id, _) = world.volumes.create(&request).await.unwrap();
    (world, id)
}

async fn put(world: &World, key: &str, value: Arc<[u8]>) {
    let transaction = Transaction::new().put(key.to_owned(), value);
    let Outcome::Committed(revision) = world.store.commit(transaction).await.unwrap() else {
        unreachable!("it has no conditions");
    };
    world.volumes.map.at_least(revision).await;
}

/// The owner says that so much is moved, and it is noted.
async fn noted(world: &World, id: VolumeId, generation: Generation, moved: u64) -> Progress {
    let map = world.volumes.map();
    let told = progress(&map, id, generation, moved).unwrap();
    if let Progress::News(transaction) = &told {
        let outcome = world.store.commit(transaction.clone()).await.unwrap();
        let Outcome::Committed(revision) = outcome else {
            panic!("nothing has changed since");
        };
        world.volumes.map.at_least(revision).await;
    }
    told
}

fn pool_of(world: &World, id: VolumeId) -> PoolId {
    let map = world.volumes.map();
    map.volume(id).unwrap().0.pool().unwrap()
}

#[tokio::test]
async fn a_volume_is_in_its_new_pool_from_the_start_and_what_it_has_is_a_nameless_ones_until_the_end() {
    let (world, id) = world().await;
    let before = world.volumes.map().volume(id).unwrap().1.record.clone();
    world.volumes.retype("a", "archive", None).await.unwrap();
    let map = world.volumes.map();
    let moving = map.moving(id).unwrap().record;
    let source = map.volume(moving.source).unwrap().1.record.clone();
    assert_eq!((source.family, source.head), (before.family, before.head));
    assert_eq!(pool_of(&world, id), PoolId(2));
    assert_eq!(pool_of(&world, moving.source), PoolId(1));
    assert_eq!(map.volume_names().count(), 1, "the nameless one is in no list");

    let lease = world.open(id).await;
    let map = world.volumes.map();
    let generation = map.generation(id).unwrap();
    assert_eq!(
        map.generation(moving.source),
        Some(generation),
        "one owner has both"
    );
    assert!(matches!(
        noted(&world, id, generation, 4 << 20).await,
        Progress::News(_)
    ));
    assert_eq!(noted(&world, id, generation, 4 << 20).await, Progress::Known);
    assert_eq!(
        noted(&world, id, generation, 0).await,
        Progress::Known,
        "it never goes back"
    );
    assert_eq!(world.volumes.map().moving(id).unwrap().record.moved, 4 << 20);
    assert!(matches!(
        noted(&world, id, generation, SIZE).await,
        Progress::News(_)
    ));
    let map = world.volumes.map();
    assert!(map.moving(id).is_none() && map.volume(moving.source).is_none());
    assert_eq!(
        map.family(before.family).unwrap().reclaimable().len(),
        1,
        "its space comes back"
    );
    assert_eq!(
        noted(&world, id, generation, SIZE).await,
        Progress::Known,
        "asked once more"
    );
    world.close(lease).await;
    world.volumes.snapshot("a", "s").await.unwrap();
}

#[tokio::test]
async fn only_the_present_owner_says_how_much_is_moved_and_nobody_more_than_there_is() {
    let (world, id) = world().await;
    world.volumes.retype("a", "archive", None).await.unwrap();
    let lease = world.open(id).await;
    let generation = world.volumes.map().generation(id).unwrap();
    let former = Generation(generation.0 - 1);
    assert_eq!(noted(&world, id, former, 4 << 20).await, Progress::NotTheirs);
    let map = world.volumes.map();
    for moved in [SIZE + 4096, 4095] {
        let refused = progress(&map, id, generation, moved).unwrap_err();
        assert!(refused.to_string().contains("cannot be moved"), "{refused}");
    }
    // Somebody else has taken the volume between the look and the transaction.
    let Progress::News(late) = progress(&map, id, generation, 4 << 20).unwrap() else {
        panic!("it is news");
    };
    world.close(lease).await;
    assert!(matches!(
        world.store.commit(late).await.unwrap(),
        Outcome::Conflict(_)
    ));
    assert_eq!(world.volumes.map().moving(id).unwrap().record.moved, 0);
}

#[tokio::test]
async fn a_volume_that_grew_at_the_last_moment_is_not_taken_for_moved() {
    let (world, id) = world().await;
    world.volumes.retype("a", "archive", None).await.unwrap();
    let lease = world.open(id).await;
    let generation = world.volumes.map().generation(id).unwrap();
    let Progress::News(last) = progress(&world.volumes.map(), id, generation, SIZE).unwrap() else {
        panic!("it is news");
    };
    let larger = (2 * SIZE).into();
    world.volumes.resize("a", &larger, false).await.unwrap();
    assert!(matches!(
        world.store.commit(last).await.unwrap(),
        Outcome::Conflict(_)
    ));
    noted(&world, id, generation, SIZE).await;
    assert_eq!(world.volumes.map().moving(id).unwrap().record.moved, SIZE);
    world.close(lease).await;
}

#[tokio::test]
async fn what_cannot_move_and_what_a_moving_volume_cannot_do_is_refused_with_a_sentence() {
    let (world, id) = world().await;
    let w = &world;
    let volumes = &world.volumes;
    refused(
        w,
        volumes.retype("a", "nowhere", None),
        ErrorKind::NotFound,
        "no pool",
    )
    .await;
    refused(
        w,
        volumes.retype("a", "fast", None),
        ErrorKind::Conflict,
        "already",
    )
    .await;
    refused(
        w,
        volumes.retype("b", "archive", None),
        ErrorKind::NotFound,
        "no volume",
    )
    .await;
    let slow = volumes.retype("a", "archive", Some(1000));
    refused(w, slow, ErrorKind::InvalidRequest, "too low").await;
    volumes.snapshot("a", "s").await.unwrap();
    refused(
        w,
        volumes.retype("a", "archive", None),
        ErrorKind::HasSnapshots,
        "1 snapshot",
    )
    .await;
    volumes.delete_snapshot("a", "s").await.unwrap();

    volumes.retype("a", "archive", None).await.unwrap();
    refused(
        w,
        volumes.snapshot("a", "s"),
        ErrorKind::Conflict,
        "moves to another pool",
    )
    .await;
    let smaller = "1M".into();
    refused(
        w,
        volumes.resize("a", &smaller, true),
        ErrorKind::Conflict,
        "moves to another pool",
    )
    .await;
    refused(
        w,
        volumes.retype("a", "fast", None),
        ErrorKind::Conflict,
        "moves to pool",
    )
    .await;
    volumes.retype("a", "archive", Some(5 << 20)).await.unwrap();
    assert_eq!(volumes.map().moving(id).unwrap().record.rate, 5 << 20);
}

#[tokio::test]
async fn a_volume_that_is_deleted_on_its_way_leaves_nothing_in_either_pool() {
    let (world, id) = world().await;
    world.volumes.retype("a", "archive", None).await.unwrap();
    let source = world.volumes.map().moving(id).unwrap().record.source;
    world.volumes.delete("a", false).await.unwrap();
    let map = world.volumes.map();
    assert!(map.volume(id).is_none() && map.volume(source).is_none() && map.moving(id).is_none());
    assert!(map.families().all(|(_, family)| family.reclaimable().len() == 1));
}

#[tokio::test]
async fn nothing_moves_while_an_older_program_could_take_what_is_moved_for_all() {
    let (world, id) = world().await;
    let up = up_reading(FORMAT_OF_MOVES - 1);
    let key = Key::NodeUp(NodeId(2)).to_text();
    put(&world, &key, encode(&up).unwrap()).await;
    let w = &world;
    let upgrade = "finish the upgrade first";
    refused(
        w,
        world.volumes.retype("a", "archive", None),
        ErrorKind::Conflict,
        upgrade,
    )
    .await;
    let transaction = Transaction::new().delete(key);
    world.store.commit(transaction).await.unwrap();

    let owner = OwnerRecord {
        moves: false,
        ..owner_record()
    };
    let key = Key::Owner(id).to_text();
    put(&world, &key, encode(&owner).unwrap()).await;
    refused(
        w,
        world.volumes.retype("a", "archive", None),
        ErrorKind::Conflict,
        "older program",
    )
    .await;
    let transaction = Transaction::new().delete(key);
    world.store.commit(transaction).await.unwrap();

    // Whoever comes up later cannot read the head's record, and says so.
    world.volumes.retype("a", "archive", None).await.unwrap();
    let map = world.volumes.map();
    let record = &map.volume(id).unwrap().1.record;
    let key = Key::Layer(record.family, record.head).to_text();
    let layer = world.store.get(&key).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&layer.value).into_owned();
    assert!(
        text.starts_with(&format!("{{\"format\":{FORMAT_OF_MOVES},")),
        "{text}"
    );
    // A process that remembers the records for others remembers that too.
    let remembered = map.records().unwrap();
    assert_eq!(remembered[&key].value, layer.value);
    assert!(remembered.contains_key(&Key::Move(id).to_text()));
    assert_ne!(layer.modified, Revision(0));
}
