//! Looking at blocks on the medium, and storing damaged ones again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test, in the shared functions as well"
)]

#[path = "medium/gated.rs"]
mod gated;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use protocol::storage::{
    Change, DamagedChunk, ObjectWrite, StorageError, StorageReply, StorageRequest, Verified,
};
use protocol::{BlockRange, DiskId, FamilyId, Generation, LayerChain, LayerId, ObjectId, Stamp};
use store::medium::memory::{Disk, Failure};
use store::medium::{File, Operation};
use store::{Format, Options, Store};

use gated::{Gate, Gated};

const BLOCK: usize = 4096;

fn stamp(count: u64) -> Stamp {
    let generation = Generation(u64::from(count > 0) * 5);
    Stamp { generation, count }
}

fn object(layer: u64) -> ObjectId {
    ObjectId {
        family: FamilyId(1),
        index: 3,
        layer: LayerId(layer),
    }
}

fn write(layer: u64, (follows, count): (u64, u64), (start, blocks): (u32, u32), value: u8) -> StorageRequest {
    let bytes = vec![value; blocks as usize * BLOCK];
    let checksums: Arc<[u32]> = bytes.chunks(BLOCK).map(crc32c::crc32c).collect();
    StorageRequest::Write(ObjectWrite {
        object: object(layer),
        follows: stamp(follows),
        stamp: stamp(count),
        range: BlockRange::new(start, blocks).unwrap(),
        change: Change::Data {
            bytes: Bytes::from(bytes),
            checksums,
        },
        use_reserve: false,
        floor: Stamp::ZERO,
    })
}

fn ask(store: &mut Store, request: StorageRequest) -> Result<StorageReply, StorageError> {
    store.submit(1, request);
    let mut answers = Vec::new();
    store.kick();
    while answers.is_empty() {
        store.poll(&mut answers);
        if answers.is_empty() {
            store.wait();
        }
    }
    answers.pop().unwrap().1
}

fn done(store: &mut Store, request: StorageRequest) {
    assert_eq!(ask(store, request), Ok(StorageReply::Done));
}

/// The first byte of each block through these layers.
fn values(store: &mut Store, layers: &[u64], (start, blocks): (u32, u32)) -> Result<Vec<u8>, StorageError> {
    let read = StorageRequest::Read {
        chain: LayerChain::new(layers.iter().copied().map(LayerId).collect()),
        family: FamilyId(1),
        index: 3,
        ranges: BlockRange::new(start, blocks).unwrap().into(),
    };
    match ask(store, read)? {
        StorageReply::Data { bytes, .. } => Ok(bytes.chunks(BLOCK).map(|block| block[0]).collect()),
        other => panic!("not data: {other:?}"),
    }
}

fn checkpoint(store: &mut Store) {
    store.checkpoint();
    store.drain(&mut Vec::new());
    assert!(!store.has_background_work());
}

fn verify(store: &mut Store, layer: u64, first: u8) -> Verified {
    let request = StorageRequest::Verify {
        object: object(layer),
        first,
    };
    match ask(store, request).unwrap() {
        StorageReply::Verified(verified) => verified,
        other => panic!("not a look: {other:?}"),
    }
}

fn in_memory() -> (Disk, Store) {
    let disk = Disk::default();
    let format = Format {
        cluster: [1; 16],
        disk: DiskId(7),
        serial: [2; 16],
        log_bytes: 4 << 20,
    };
    Store::create_on(&mut disk.medium(), &format).unwrap();
    let store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    (disk, store)
}

/// A disk with 40 blocks of ones in slots, in three chunks, of which these are damaged.
fn damaged(blocks: &[usize]) -> (Disk, Store) {
    let (disk, mut store) = in_memory();
    done(&mut store, write(1, (0, 1), (0, 40), 1));
    checkpoint(&mut store);
    let pages = disk.written_pages(File::Data);
    assert_eq!(pages.len(), 40);
    for block in blocks {
        disk.flip(File::Data, pages[*block] + 77, 5);
    }
    (disk, store)
}

fn mend(chunk: &DamagedChunk, value: u8) -> StorageRequest {
    StorageRequest::Mend {
        object: object(1),
        chunk: chunk.state.clone(),
        checksums: Arc::clone(&chunk.checksums),
        bytes: vec![value; chunk.checksums.len() * BLOCK].into(),
    }
}

/// Law: every damaged block is named, at once, and sound ones are counted.
#[test]
fn a_look_names_every_damaged_block_of_its_chunks() {
    let (_, mut store) = damaged(&[3, 17, 18, 39]);
    let verified = verify(&mut store, 1, 0);
    assert_eq!(verified.blocks, 40);
    assert_eq!((verified.state.stamp, verified.state.chunks.len()), (stamp(1), 3));
    let found: Vec<_> = verified
        .damaged
        .iter()
        .map(|chunk| (chunk.state.chunk, chunk.blocks))
        .collect();
    assert_eq!(found, [(0, 1 << 3), (1, 0b110), (2, 1 << 7)]);
    assert_eq!(
        verified.damaged[2].checksums.len(),
        8,
        "all blocks that the chunk has"
    );
    assert_eq!(store.statistics().damaged_blocks, 4);
    let beyond = verify(&mut store, 1, 8);
    assert_eq!((beyond.blocks, beyond.damaged), (0, Vec::new()));
}

/// Law: a look is past every cache, and leaves alone what is still in the log.
#[test]
fn a_look_sees_damage_behind_a_cached_block_and_none_below_a_newer_one() {
    let (disk, mut store) = damaged(&[]);
    assert_eq!(values(&mut store, &[1], (3, 1)), Ok(vec![1]));
    let pages = disk.written_pages(File::Data);
    disk.flip(File::Data, pages[3], 0);
    disk.flip(File::Data, pages[5], 0);
    assert_eq!(values(&mut store, &[1], (3, 1)), Ok(vec![1]), "from the cache");
    assert_eq!(verify(&mut store, 1, 0).damaged[0].blocks, 0b10_1000);
    done(&mut store, write(1, (1, 2), (5, 1), 2));
    let verified = verify(&mut store, 1, 0);
    assert_eq!(verified.blocks, 39);
    assert_eq!(verified.damaged[0].blocks, 1 << 3);
    // The block of the log comes to where the damaged one was.
    checkpoint(&mut store);
    assert_eq!(verify(&mut store, 1, 0).damaged[0].blocks, 1 << 3);
}

/// Law: blocks that cannot be read are damaged, each for itself.
#[test]
fn blocks_that_the_medium_does_not_read_are_named() {
    let (disk, mut store) = damaged(&[]);
    disk.plan(Some(Failure {
        operation: 1,
        forever: true,
    }));
    let verified = verify(&mut store, 1, 0);
    disk.plan(None);
    let all: u32 = verified
        .damaged
        .iter()
        .map(|chunk| chunk.blocks.count_ones())
        .sum();
    assert_eq!((all, verified.blocks), (40, 40));
    assert_eq!(values(&mut store, &[1], (0, 40)), Ok(vec![1; 40]));
}

/// Law: bytes that are stored again are there after a restart, and nothing else has changed.
#[test]
fn a_mended_chunk_is_read_again_also_after_a_restart() {
    let (disk, mut store) = damaged(&[3, 18]);
    assert!(matches!(
        values(&mut store, &[1], (0, 40)),
        Err(StorageError::Damaged { .. })
    ));
    let verified = verify(&mut store, 1, 0);
    for chunk in &verified.damaged {
        done(&mut store, mend(chunk, 1));
    }
    let after = verify(&mut store, 1, 0);
    assert_eq!((after.damaged, after.state), (Vec::new(), verified.state));
    assert_eq!(values(&mut store, &[1], (0, 40)), Ok(vec![1; 40]));
    assert_eq!(
        store.doubts(),
        [(object(1), stamp(1))],
        "what was in doubt is so still"
    );
    // Not closed: the log tells it.
    drop(store);
    disk.end_process();
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    assert_eq!(values(&mut store, &[1], (0, 40)), Ok(vec![1; 40]));
    checkpoint(&mut store);
    assert_eq!(verify(&mut store, 1, 0).damaged, []);
}

/// Law: nothing is stored again that is not what was there.
#[test]
fn other_bytes_are_refused() {
    let (_, mut store) = damaged(&[3]);
    let chunk = verify(&mut store, 1, 0).damaged.remove(0);
    assert_eq!(ask(&mut store, mend(&chunk, 2)), Err(StorageError::Mismatch));
    let sums: Arc<[u32]> = vec![crc32c::crc32c(&[2; BLOCK]); 16].into();
    let other = DamagedChunk {
        checksums: sums,
        ..chunk
    };
    assert_eq!(ask(&mut store, mend(&other, 2)), Err(StorageError::Gap(stamp(1))));
}

/// Law: a write that came between a look and the good bytes is not lost, whatever it wrote.
#[test]
fn a_chunk_that_was_written_since_is_not_mended() {
    let (_, mut store) = damaged(&[3]);
    let chunk = verify(&mut store, 1, 0).damaged.remove(0);
    done(&mut store, write(1, (1, 2), (5, 1), 2));
    assert_eq!(ask(&mut store, mend(&chunk, 1)), Err(StorageError::Gap(stamp(2))));
    // One to another chunk is no obstacle.
    let chunk = verify(&mut store, 1, 0).damaged.remove(0);
    done(&mut store, write(1, (2, 3), (20, 1), 3));
    let bytes: Vec<u8> = (0..16)
        .flat_map(|block| [if block == 5 { 2 } else { 1 }; BLOCK])
        .collect();
    let request = StorageRequest::Mend {
        object: object(1),
        chunk: chunk.state.clone(),
        checksums: Arc::clone(&chunk.checksums),
        bytes: bytes.into(),
    };
    done(&mut store, request);
    assert_eq!(values(&mut store, &[1], (3, 3)), Ok(vec![1, 1, 2]));
    assert_eq!(values(&mut store, &[1], (20, 1)), Ok(vec![3]));
}

/// Law (P5): a merge gives a chunk blocks without giving its object another stamp; they are not lost either.
#[test]
fn a_chunk_that_got_blocks_by_a_merge_since_is_not_mended() {
    let (disk, mut store) = in_memory();
    done(&mut store, write(1, (0, 1), (0, 2), 1));
    done(&mut store, write(2, (0, 2), (1, 3), 2));
    checkpoint(&mut store);
    let page = disk.written_pages(File::Data)[3];
    disk.flip(File::Data, page, 1);
    let mut found = [1, 2]
        .into_iter()
        .flat_map(|layer| verify(&mut store, layer, 0).damaged);
    let chunk = found.next().unwrap();
    drop(found);
    assert_eq!(chunk.state.stamp, stamp(2));
    let merge = StorageRequest::Merge {
        family: FamilyId(1),
        index: 3,
        parent: LayerId(1),
        child: LayerId(2),
        row_chunks: None,
    };
    done(&mut store, merge);
    let request = StorageRequest::Mend {
        object: object(2),
        chunk: chunk.state.clone(),
        checksums: Arc::clone(&chunk.checksums),
        bytes: vec![2; 3 * BLOCK].into(),
    };
    assert_eq!(ask(&mut store, request), Err(StorageError::Gap(stamp(2))));
    assert_eq!(values(&mut store, &[2], (0, 1)), Ok(vec![1]));
}

/// Law: what is being written is not damaged, neither for who looks nor for who compares copies.
#[test]
fn what_is_on_its_way_to_the_medium_is_never_called_damaged() {
    let (disk, store) = in_memory();
    drop(store);
    let gate = Rc::new(RefCell::new(Gate::default()));
    gate.borrow_mut().shut = true;
    let medium = Gated {
        disk: disk.medium(),
        gate: Rc::clone(&gate),
        holds: |operation| matches!(operation, Operation::Write { file: File::Data, .. }),
    };
    let mut store = Store::open_on(Box::new(medium), &Options::default()).unwrap();
    store.submit(1, write(1, (0, 1), (0, 32), 1));
    let object = object(1);
    store.submit(2, StorageRequest::Verify { object, first: 0 });
    let have = Vec::new();
    store.submit(3, StorageRequest::Difference { object, have });
    let mut answers = Vec::new();
    for _ in 0..20 {
        store.kick();
        store.poll(&mut answers);
    }
    assert_eq!(answers, [], "nothing is on the medium yet");
    gate.borrow_mut().shut = false;
    store.drain(&mut answers);
    answers.sort_by_key(|(token, _)| *token);
    let [
        (1, Ok(StorageReply::Done)),
        (2, Ok(StorageReply::Verified(verified))),
        (3, Ok(StorageReply::Delta(delta))),
    ] = answers.as_slice()
    else {
        panic!("{answers:?}");
    };
    assert_eq!((verified.blocks, &verified.damaged), (32, &Vec::new()));
    assert_eq!(delta.checksums.len(), 32);
    assert_eq!(store.statistics().damaged_blocks, 0);
}
