//! Backups of a device in memory: whole ones, increments, damaged ones, ones that were interrupted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
use axum::body::Bytes;
use client::memory::MemoryDevice;
use proptest::prelude::*;

use super::super::store::Directory;
use super::*;

/// Four chunks, and a short one.
const SIZE: u64 = 4 * CHUNK_BYTES + 4096;
/// The same, as memory counts.
const BYTES: usize = 4 * (4 << 20) + 4096;

struct Place {
    folder: tempfile::TempDir,
    store: Directory,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = Directory::new(folder.path());
    Place { folder, store }
}

impl Place {
    fn plan(parent: Option<Manifest>) -> Plan {
        Plan {
            backup: Uuid::new_v4(),
            volume: Uuid::new_v4(),
            taken_at: Instant(1),
            description: b"{}".to_vec(),
            parent,
        }
    }

    async fn back_up(&self, device: &MemoryDevice, parent: Option<&Manifest>) -> Manifest {
        let plan = Self::plan(parent.cloned());
        let backup = plan.backup;
        let made = store(device, &self.store, plan).await.unwrap();
        assert_eq!(read_manifest(&self.store, backup).await.unwrap(), made);
        made
    }

    async fn restored(&self, manifest: &Manifest, size: u64) -> Bytes {
        let device = MemoryDevice::new(size);
        // What is there before must not shine through.
        let rubbish = vec![0xee; usize::try_from(size).unwrap()];
        request::write(&device, 0, rubbish.into()).await.unwrap();
        restore(&device, &self.store, manifest).await.unwrap();
        request::read(&device, 0, size).await.unwrap()
    }
}

async fn fill(device: &MemoryDevice, chunk: u64, byte: u8) {
    let length = if chunk == 4 { 4096 } else { 8192 };
    let data = vec![byte; length];
    request::write(device, chunk * CHUNK_BYTES, data.into())
        .await
        .unwrap();
}

async fn contents(device: &MemoryDevice) -> Bytes {
    request::read(device, 0, SIZE).await.unwrap()
}

#[tokio::test]
async fn a_backup_holds_what_is_not_zero_and_a_larger_volume_ends_in_zeros() {
    let (place, device) = (place(), MemoryDevice::new(SIZE));
    fill(&device, 1, 7).await;
    fill(&device, 2, 0).await;
    fill(&device, 4, 9).await;
    let made = place.back_up(&device, None).await;
    assert_eq!(made.own_objects(), 2);
    assert_eq!(place.restored(&made, SIZE).await, contents(&device).await);
    let larger = place.restored(&made, SIZE + 4096).await;
    assert_eq!(larger[..BYTES], contents(&device).await);
    assert!(larger[BYTES..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn an_increment_stores_what_changed_and_is_complete_without_its_parents_manifest() {
    let (place, device) = (place(), MemoryDevice::new(SIZE));
    for chunk in 0..4 {
        fill(&device, chunk, 1).await;
    }
    let full = place.back_up(&device, None).await;
    fill(&device, 2, 2).await;
    let before = contents(&device).await;
    let first = place.back_up(&device, Some(&full)).await;
    assert_eq!((full.own_objects(), first.own_objects()), (4, 1));
    fill(&device, 3, 0).await;
    fill(&device, 2, 1).await;
    let second = place.back_up(&device, Some(&first)).await;
    assert_eq!(second.own_objects(), 1);
    place.store.remove(&manifest_name(full.backup)).await.unwrap();
    assert_eq!(place.restored(&first, SIZE).await, before);
    assert_eq!(place.restored(&second, SIZE).await, contents(&device).await);
    assert!(
        !second.sources.contains(&first.backup),
        "it needs nothing of the one between"
    );
}

#[tokio::test]
async fn a_damaged_object_is_found_before_it_is_written() {
    let (place, device) = (place(), MemoryDevice::new(SIZE));
    fill(&device, 1, 7).await;
    let made = place.back_up(&device, None).await;
    let path = place.folder.path().join(object_name(made.backup, 1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let target = MemoryDevice::new(SIZE);
    let refused = restore(&target, &place.store, &made).await;
    assert!(
        matches!(&refused, Err(Trouble::Failed(why)) if why.contains("damaged")),
        "{refused:?}"
    );
    bytes.truncate(10);
    std::fs::write(&path, &bytes).unwrap();
    assert!(restore(&target, &place.store, &made).await.is_err());
    std::fs::remove_file(&path).unwrap();
    assert!(restore(&target, &place.store, &made).await.is_err());
}

#[tokio::test]
async fn a_backup_that_was_interrupted_is_none_and_can_be_begun_anew() {
    let (place, device) = (place(), MemoryDevice::new(SIZE));
    fill(&device, 0, 1).await;
    fill(&device, 1, 2).await;
    let plan = Place::plan(None);
    // A folder stands where the second object should be.
    let obstacle = place.folder.path().join(object_name(plan.backup, 1)).join("x");
    std::fs::create_dir_all(&obstacle).unwrap();
    assert!(store(&device, &place.store, plan.clone()).await.is_err());
    assert!(read_manifest(&place.store, plan.backup).await.is_err());
    std::fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
    let made = store(&device, &place.store, plan).await.unwrap();
    assert_eq!(place.restored(&made, SIZE).await, contents(&device).await);
}

#[tokio::test]
async fn a_volume_that_is_too_small_is_left_alone() {
    let (place, device) = (place(), MemoryDevice::new(SIZE));
    fill(&device, 0, 1).await;
    let made = place.back_up(&device, None).await;
    let small = MemoryDevice::new(SIZE - 4096);
    assert!(restore(&small, &place.store, &made).await.is_err());
    let untouched = request::read(&small, 0, 4096).await.unwrap();
    assert!(untouched.iter().all(|byte| *byte == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_increment_of_a_chain_gives_its_own_moment(
        rounds in prop::collection::vec(prop::collection::vec((0_u64..5, 0_u8..3), 0..6), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (place, device) = (place(), MemoryDevice::new(SIZE));
            let mut chain: Vec<(Manifest, Bytes)> = Vec::new();
            for round in rounds {
                for (chunk, byte) in round {
                    fill(&device, chunk, byte).await;
                }
                let parent = chain.last().map(|(manifest, _)| manifest);
                let made = place.back_up(&device, parent).await;
                chain.push((made, contents(&device).await));
            }
            for (manifest, bytes) in &chain {
                assert_eq!(&place.restored(manifest, SIZE).await, bytes);
            }
        });
    }
}
