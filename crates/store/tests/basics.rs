//! What a disk promises, on both engines and in memory: each test names one sentence of it.
//!
//! One file because the tests share one small vocabulary of requests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test, in the shared functions as well"
)]

use std::sync::Arc;

use bytes::Bytes;
use protocol::storage::{
    Change, MapKind, ObjectWrite, StorageError, StorageReply, StorageRequest, StorageView,
};
use protocol::{
    BlockRange, BlockRanges, DiskId, FamilyId, Generation, Interval, LayerChain, LayerId, ObjectId, PgId,
    PoolId, Stamp, VolumeId,
};
use store::medium::memory::Disk;
use store::{Engine, Format, OpenError, Options, Store};

const BLOCK: usize = 4096;

fn format() -> Format {
    Format {
        cluster: [1; 16],
        disk: DiskId(7),
        serial: [2; 16],
        log_bytes: 4 << 20,
    }
}

fn stamp(count: u64) -> Stamp {
    Stamp {
        generation: Generation(5),
        count,
    }
}

fn object(layer: u64) -> ObjectId {
    ObjectId {
        family: FamilyId(1),
        index: 3,
        layer: LayerId(layer),
    }
}

fn filled(blocks: u32, value: u8) -> Change {
    let bytes = vec![value; blocks as usize * BLOCK];
    let checksums: Arc<[u32]> = bytes.chunks(BLOCK).map(crc32c::crc32c).collect();
    Change::Data {
        bytes: Bytes::from(bytes),
        checksums,
    }
}

fn write(layer: u64, follows: u64, count: u64, range: (u32, u32), change: Change) -> StorageRequest {
    let follows = if follows == 0 { Stamp::ZERO } else { stamp(follows) };
    let range = BlockRange::new(range.0, range.1).unwrap();
    let (object, stamp) = (object(layer), stamp(count));
    StorageRequest::Write(ObjectWrite {
        object,
        follows,
        stamp,
        range,
        change,
        use_reserve: false,
        floor: Stamp::ZERO,
    })
}

fn read(layers: &[u64], range: (u32, u32)) -> StorageRequest {
    let chain = LayerChain::new(layers.iter().copied().map(LayerId).collect());
    let range = BlockRange::new(range.0, range.1).unwrap();
    StorageRequest::Read {
        chain,
        family: FamilyId(1),
        index: 3,
        ranges: range.into(),
    }
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

/// The first byte of each block; all bytes of a block are checked to be the same.
fn values(store: &mut Store, layers: &[u64], range: (u32, u32)) -> Vec<u8> {
    match ask(store, read(layers, range)).unwrap() {
        StorageReply::Data { bytes, checksums, .. } => {
            let blocks = bytes.chunks(BLOCK).zip(checksums.iter());
            blocks
                .map(|(block, checksum)| {
                    assert_eq!(crc32c::crc32c(block), *checksum);
                    assert!(block.iter().all(|byte| *byte == block[0]));
                    block[0]
                })
                .collect()
        }
        other => panic!("not data: {other:?}"),
    }
}

fn checkpoint(store: &mut Store) {
    store.checkpoint();
    let mut answers = Vec::new();
    store.drain(&mut answers);
    assert!(!store.has_background_work());
}

/// What every engine must do.
fn lives_through_reopening(mut open: impl FnMut() -> Store) {
    let mut store = open();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (5, 1), filled(1, 11))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(1, 1, 2, (10, 40), filled(40, 12))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(1, 2, 3, (20, 2), Change::Zero)),
        Ok(StorageReply::Done)
    );
    assert_eq!(values(&mut store, &[1], (4, 3)), [0, 11, 0]);
    assert_eq!(values(&mut store, &[1], (19, 4)), [12, 0, 0, 12]);
    assert_eq!(
        ask(
            &mut store,
            StorageRequest::RaiseGeneration(VolumeId(4), Generation(9))
        ),
        Ok(StorageReply::Done)
    );
    let pg = PgId {
        pool: PoolId(1),
        number: 2,
    };
    assert_eq!(
        ask(&mut store, StorageRequest::RaiseInterval(pg, Interval(3))),
        Ok(StorageReply::Done)
    );
    drop(store);

    let mut store = open();
    assert_eq!(values(&mut store, &[1], (19, 4)), [12, 0, 0, 12]);
    assert_eq!(store.doubts(), [(object(1), stamp(3))]);
    assert_eq!(store.generations(), [(VolumeId(4), Generation(9))]);
    assert_eq!(store.intervals(), [(pg, Interval(3))]);
    checkpoint(&mut store);
    assert_eq!(store.statistics().log_used_bytes, 0);
    assert_eq!(store.statistics().overlay_bytes, 0);
    assert_eq!(values(&mut store, &[1], (0, 60))[5..12], [11, 0, 0, 0, 0, 12, 12]);
    assert_eq!(
        ask(&mut store, StorageRequest::Settle(vec![(object(1), stamp(3))])),
        Ok(StorageReply::Done)
    );
    store.close().unwrap();

    let mut store = open();
    assert_eq!(store.doubts(), []);
    assert_eq!(store.stamp(object(1)), Ok(stamp(3)));
    assert_eq!(values(&mut store, &[1], (49, 3)), [12, 0, 0]);
    store.close().unwrap();
}

#[test]
fn what_was_written_is_read_after_reopening_through_io_uring() {
    let directory = tempfile::tempdir().unwrap();
    Store::create(directory.path(), &format()).unwrap();
    let options = Options {
        engine: Engine::IoUring,
        reserve_bytes: 0,
        ..Options::default()
    };
    lives_through_reopening(|| Store::open(directory.path(), &options).unwrap());
}

#[test]
fn what_was_written_is_read_after_reopening_through_threads() {
    let directory = tempfile::tempdir().unwrap();
    Store::create(directory.path(), &format()).unwrap();
    let options = Options {
        engine: Engine::Threads,
        reserve_bytes: 0,
        ..Options::default()
    };
    lives_through_reopening(|| Store::open(directory.path(), &options).unwrap());
}

#[test]
fn what_was_written_is_read_after_reopening_in_memory() {
    let disk = Disk::default();
    Store::create_on(&mut disk.medium(), &format()).unwrap();
    lives_through_reopening(|| {
        disk.end_process();
        Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap()
    });
}

fn in_memory() -> (Disk, Store) {
    let disk = Disk::default();
    Store::create_on(&mut disk.medium(), &format()).unwrap();
    let store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    (disk, store)
}

/// Law: a disk has one opener, and is not made over another.
#[test]
fn a_second_opener_and_a_second_making_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        Store::open(directory.path(), &Options::default()),
        Err(OpenError::NotADisk(_))
    ));
    Store::create(directory.path(), &format()).unwrap();
    assert!(matches!(
        Store::create(directory.path(), &format()),
        Err(OpenError::Exists(_))
    ));
    let store = Store::open(directory.path(), &Options::default()).unwrap();
    assert!(matches!(
        Store::open(directory.path(), &Options::default()),
        Err(OpenError::Locked(_))
    ));
    store.close().unwrap();
    Store::open(directory.path(), &Options::default())
        .unwrap()
        .close()
        .unwrap();
}

/// Law (rule 5): a write is applied only on the stamp that it names.
#[test]
fn a_write_on_another_stamp_is_a_gap() {
    let (_disk, mut store) = in_memory();
    assert_eq!(
        ask(&mut store, write(1, 3, 4, (0, 1), filled(1, 1))),
        Err(StorageError::Gap(Stamp::ZERO))
    );
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 1), filled(1, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(1, 0, 2, (0, 1), filled(1, 1))),
        Err(StorageError::Gap(stamp(1)))
    );
}

/// Law: bytes that were damaged on the way are not logged.
#[test]
fn bytes_that_do_not_match_are_refused() {
    let (_disk, mut store) = in_memory();
    let Change::Data { bytes, .. } = filled(2, 1) else {
        unreachable!()
    };
    let wrong = Change::Data {
        bytes,
        checksums: Arc::from([1, 2]),
    };
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 2), wrong)),
        Err(StorageError::Mismatch)
    );
    assert_eq!(store.stamp(object(1)), Ok(Stamp::ZERO));
}

/// Law: many writes that wait together go in one log write.
#[test]
fn waiting_writes_share_one_log_write() {
    let (_disk, mut store) = in_memory();
    for count in 1..=20 {
        store.submit(
            count,
            write(
                1,
                count - 1,
                count,
                (u32::try_from(count).unwrap(), 1),
                filled(1, 9),
            ),
        );
    }
    let mut answers = Vec::new();
    store.drain(&mut answers);
    assert_eq!(answers.len(), 20);
    assert_eq!(store.statistics().log_batches, 1);
}

/// Law: a layer shows its parent's blocks where it has none of its own, and a merge changes no read.
#[test]
fn layers_show_through_and_merging_changes_no_read() {
    let (disk, mut store) = in_memory();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 64), filled(64, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(2, 0, 2, (3, 1), filled(1, 2))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(2, 2, 3, (16, 16), Change::Zero)),
        Ok(StorageReply::Done)
    );
    let before = values(&mut store, &[2, 1], (0, 80));
    assert_eq!(before[..5], [1, 1, 1, 2, 1]);
    assert_eq!(before[15..18], [1, 0, 0]);
    let merge = StorageRequest::Merge {
        family: FamilyId(1),
        index: 3,
        parent: LayerId(1),
        child: LayerId(2),
        row_chunks: None,
    };
    assert_eq!(
        store.usage(FamilyId(1)),
        [(LayerId(1), 4 * 65536), (LayerId(2), 65536)]
    );
    assert_eq!(ask(&mut store, merge.clone()), Ok(StorageReply::Done));
    assert_eq!(store.usage(FamilyId(1)), [(LayerId(2), 3 * 65536)]);
    assert_eq!(values(&mut store, &[2], (0, 80)), before);
    assert_eq!(store.stamp(object(1)), Ok(Stamp::ZERO));
    assert_eq!(store.stamp(object(2)), Ok(stamp(3)));
    assert_eq!(ask(&mut store, merge), Ok(StorageReply::Done));
    checkpoint(&mut store);
    assert_eq!(values(&mut store, &[2], (0, 80)), before);
    // Four chunks of the parent, of which one was hidden by zeros; the rest was taken over.
    assert_eq!(store.statistics().used_bytes, 3 * 65536);
    assert_eq!(
        store.objects_of_layer(FamilyId(1), LayerId(2), 0, 10).unwrap(),
        (vec![3], None)
    );
    assert_eq!(
        store.objects_of_layer(FamilyId(1), LayerId(1), 0, 10).unwrap(),
        (vec![], None)
    );
    drop(store);
    disk.end_process();
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    assert_eq!(values(&mut store, &[2], (0, 80)), before);
    assert_eq!(store.usage(FamilyId(1)), [(LayerId(2), 3 * 65536)]);
    assert_eq!(store.usage(FamilyId(2)), []);
}

/// Law: what a layer takes is known at once, and after a start from whatever the log holds.
#[test]
fn what_layers_take_follows_every_change_and_outlives_the_process() {
    let (disk, mut store) = in_memory();
    ask(&mut store, write(1, 0, 1, (0, 40), filled(40, 1))).unwrap();
    checkpoint(&mut store);
    ask(&mut store, write(1, 1, 2, (40, 1), filled(1, 1))).unwrap();
    ask(&mut store, write(1, 2, 3, (100, 1), filled(1, 1))).unwrap();
    assert_eq!(store.usage(FamilyId(1)), [(LayerId(1), 4 * 65536)]);
    ask(&mut store, write(1, 3, 4, (0, 16), Change::Zero)).unwrap();
    ask(&mut store, write(1, 4, 5, (16, 8), Change::Zero)).unwrap();
    drop(store);
    disk.end_process();
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    assert_eq!(store.usage(FamilyId(1)), [(LayerId(1), 3 * 65536)]);
    ask(&mut store, StorageRequest::Drop(object(1))).unwrap();
    assert_eq!(store.usage(FamilyId(1)), []);
    store.close().unwrap();
    assert_eq!(
        store::check::check_medium(&disk.medium()).unwrap().problems,
        Vec::<String>::new()
    );
}

/// Law: dropping and zeroing give space back, after the next checkpoint.
#[test]
fn dropped_objects_give_their_space_back() {
    let (_disk, mut store) = in_memory();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 1024), filled(1024, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(store.statistics().used_bytes, 4 << 20);
    assert_eq!(
        ask(&mut store, write(1, 1, 2, (0, 512), Change::Zero)),
        Ok(StorageReply::Done)
    );
    checkpoint(&mut store);
    assert_eq!(store.statistics().used_bytes, 2 << 20);
    assert_eq!(
        ask(&mut store, StorageRequest::Drop(object(1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, StorageRequest::Drop(object(1))),
        Ok(StorageReply::Done)
    );
    checkpoint(&mut store);
    assert_eq!(store.statistics().used_bytes, 0);
    assert_eq!(values(&mut store, &[1], (0, 3)), [0, 0, 0]);
}

/// Law: a full disk refuses new data with a clear error, and everything else still works.
#[test]
fn a_full_disk_refuses_data_but_not_deletion() {
    let disk = Disk::default();
    Store::create_on(&mut disk.medium(), &format()).unwrap();
    let options = Options {
        capacity_bytes: 4 * 65536,
        ..Options::default()
    };
    let mut store = Store::open_on(Box::new(disk.medium()), &options).unwrap();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 48), filled(48, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(1, 1, 2, (60, 1), filled(1, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(1, 2, 3, (100, 1), filled(1, 1))),
        Err(StorageError::Full)
    );
    assert_eq!(
        ask(&mut store, write(1, 2, 3, (0, 16), filled(16, 2))),
        Err(StorageError::Full)
    );
    assert_eq!(
        ask(&mut store, write(1, 2, 3, (3, 1), filled(1, 2))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(1, 3, 4, (0, 16), Change::Zero)),
        Ok(StorageReply::Done)
    );
    checkpoint(&mut store);
    assert_eq!(
        ask(&mut store, write(1, 4, 5, (100, 1), filled(1, 3))),
        Ok(StorageReply::Done)
    );
    assert_eq!(values(&mut store, &[1], (100, 1)), [3]);
}

/// Law: a map tells data, zeros and holes apart.
#[test]
fn several_ranges_come_in_one_answer_from_wherever_their_blocks_are() {
    let (_disk, mut store) = in_memory();
    ask(&mut store, write(1, 0, 1, (0, 16), filled(16, 1))).unwrap();
    ask(&mut store, write(1, 1, 2, (32, 16), filled(16, 2))).unwrap();
    checkpoint(&mut store);
    ask(&mut store, write(1, 2, 3, (40, 2), filled(2, 3))).unwrap();
    let chunks = [(32, 16), (100, 1), (0, 16), (40, 1)];
    let ranges = chunks.map(|(start, count)| BlockRange::new(start, count).unwrap());
    let request = StorageRequest::Read {
        chain: LayerChain::new(vec![LayerId(1)]),
        family: FamilyId(1),
        index: 3,
        ranges: BlockRanges::new(ranges.to_vec()).unwrap(),
    };
    let Ok(StorageReply::Data { bytes, checksums, .. }) = ask(&mut store, request) else {
        panic!("no data");
    };
    let firsts: Vec<u8> = bytes.chunks(BLOCK).map(|block| block[0]).collect();
    let expected = [[2; 8].as_slice(), &[3; 2], &[2; 6], &[0], &[1; 16], &[3]].concat();
    assert_eq!(firsts, expected);
    assert!(
        bytes
            .chunks(BLOCK)
            .zip(checksums.iter())
            .all(|(block, sum)| crc32c::crc32c(block) == *sum)
    );
    assert_eq!(values(&mut store, &[1], (32, 16)), expected[..16]);
}

#[test]
fn a_map_tells_data_zeros_and_holes_apart() {
    let (_disk, mut store) = in_memory();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (10, 20), filled(20, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(1, 1, 2, (20, 5), Change::Zero)),
        Ok(StorageReply::Done)
    );
    let chain = LayerChain::new(vec![LayerId(1)]);
    let range = BlockRange::new(0, 64).unwrap();
    let reply = ask(
        &mut store,
        StorageRequest::Map {
            chain,
            family: FamilyId(1),
            index: 3,
            range,
        },
    )
    .unwrap();
    let StorageReply::Map { stamp: at, runs } = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(at, stamp(2));
    let runs: Vec<_> = runs
        .iter()
        .map(|run| (run.range.start(), run.range.count(), run.kind))
        .collect();
    let expected = [
        (0, 10, MapKind::Hole),
        (10, 10, MapKind::Data),
        (20, 5, MapKind::Zero),
        (25, 5, MapKind::Data),
        (30, 34, MapKind::Hole),
    ];
    assert_eq!(runs, expected);
}

/// Law: what a pull gives brings another disk to the same state.
#[test]
fn a_pull_and_a_level_make_two_disks_equal() {
    let (_disk, mut source) = in_memory();
    let (_other, mut target) = in_memory();
    assert_eq!(
        ask(&mut source, write(1, 0, 1, (0, 40), filled(40, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut target, write(1, 0, 1, (0, 40), filled(40, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut source, write(1, 1, 2, (30, 30), filled(30, 2))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut source, write(1, 2, 3, (16, 3), Change::Zero)),
        Ok(StorageReply::Done)
    );
    let reply = ask(
        &mut source,
        StorageRequest::Pull {
            object: object(1),
            above: stamp(1),
        },
    )
    .unwrap();
    let StorageReply::Delta(delta) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(delta.chunks.len(), 3);
    let level = StorageRequest::Level {
        follows: stamp(1),
        delta,
    };
    assert_eq!(ask(&mut target, level.clone()), Ok(StorageReply::Done));
    assert_eq!(ask(&mut target, level), Err(StorageError::Gap(stamp(3))));
    checkpoint(&mut target);
    assert_eq!(
        values(&mut target, &[1], (0, 70)),
        values(&mut source, &[1], (0, 70))
    );
    assert_eq!(target.doubts(), [(object(1), stamp(3))]);
}

/// Law: a disk that could not write is out of service, and says why.
#[test]
fn a_failed_log_write_poisons_the_disk() {
    let (disk, mut store) = in_memory();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 1), filled(1, 1))),
        Ok(StorageReply::Done)
    );
    disk.plan(Some(store::medium::memory::Failure {
        operation: 1,
        forever: false,
    }));
    assert!(matches!(
        ask(&mut store, write(1, 1, 2, (0, 1), filled(1, 2))),
        Err(StorageError::Poisoned(_))
    ));
    assert!(matches!(
        ask(&mut store, read(&[1], (0, 1))),
        Err(StorageError::Poisoned(_))
    ));
    assert!(store.poisoned().is_some());
}

/// Law: damaged bytes are never given; the block is named, and the others are sound.
#[test]
fn a_flipped_bit_is_found_and_named() {
    let (disk, mut store) = in_memory();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 32), filled(32, 1))),
        Ok(StorageReply::Done)
    );
    checkpoint(&mut store);
    let mut image = disk.image();
    drop(store);
    let page = image.written_pages(store::medium::File::Data)[18];
    image.flip(store::medium::File::Data, page + 100, 3);
    let disk = Disk::new(image);
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    let damaged = StorageError::Damaged {
        object: object(1),
        block: 18,
    };
    assert_eq!(ask(&mut store, read(&[1], (0, 32))), Err(damaged));
    assert_eq!(values(&mut store, &[1], (0, 18)), [1; 18]);
    assert_eq!(values(&mut store, &[1], (19, 13)), [1; 13]);
    assert_eq!(
        ask(&mut store, write(1, 1, 2, (18, 1), filled(1, 2))),
        Ok(StorageReply::Done)
    );
    assert_eq!(values(&mut store, &[1], (17, 3)), [1, 2, 1]);
}

/// Law: more is written than log and memory hold; nothing is refused, nothing is lost.
#[test]
fn a_small_log_takes_any_amount_of_writes() {
    let disk = Disk::default();
    let format = Format {
        log_bytes: 1 << 20,
        ..format()
    };
    Store::create_on(&mut disk.medium(), &format).unwrap();
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    let mut answers = Vec::new();
    for count in 1..=2000u64 {
        let block = u32::try_from(count * 7 % 1000).unwrap();
        let change = filled(1, u8::try_from(count % 250).unwrap());
        store.submit(count, write(1, count - 1, count, (block, 1), change));
        if count % 50 == 0 {
            store.kick();
            store.poll(&mut answers);
        }
    }
    store.drain(&mut answers);
    assert_eq!(answers.len(), 2000);
    assert!(answers.iter().all(|answer| answer.1 == Ok(StorageReply::Done)));
    assert!(store.statistics().checkpoints > 5);
    drop(store);
    disk.cut_power(1);
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    assert_eq!(store.stamp(object(1)), Ok(stamp(2000)));
    for count in 1001..=2000u64 {
        let block = u32::try_from(count * 7 % 1000).unwrap();
        assert_eq!(
            values(&mut store, &[1], (block, 1)),
            [u8::try_from(count % 250).unwrap()]
        );
    }
}

/// A block that ends with the CRC of what is before: its own CRC-32C is the same for every value.
fn sealed_block(value: u8) -> (Change, u32) {
    let mut bytes = vec![value; BLOCK - 4];
    let own = crc32c::crc32c(&bytes);
    bytes.extend(own.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    let change = Change::Data {
        bytes: Bytes::from(bytes),
        checksums: Arc::new([checksum]),
    };
    (change, checksum)
}

/// Guards: the read cache told blocks apart by their checksums, and fio's blocks, which carry a CRC-32C
/// of themselves, all have the same one: an older version of a block came back.
#[test]
fn a_block_with_the_checksum_of_the_one_before_is_read_as_it_is() {
    let (_disk, mut store) = in_memory();
    let ((old, same), (new, checksum)) = (sealed_block(1), sealed_block(2));
    assert_eq!(same, checksum, "or this test shows nothing");
    for (count, change, value) in [(1, old, 1), (2, new, 2)] {
        ask(&mut store, write(1, count - 1, count, (0, 1), change)).unwrap();
        checkpoint(&mut store);
        for _ in 0..2 {
            let answer = ask(&mut store, read(&[1], (0, 1))).unwrap();
            let StorageReply::Data { bytes, .. } = answer else {
                panic!("not data: {answer:?}");
            };
            assert_eq!(bytes[0], value);
        }
    }
}

/// Guards: a write that names the stamp of a level that waits for a merge was answered with a gap.
#[test]
fn a_write_behind_a_level_that_waits_for_a_merge_waits_too() {
    let (_disk, mut store) = in_memory();
    assert_eq!(
        ask(&mut store, write(1, 0, 1, (0, 16), filled(16, 1))),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, write(2, 0, 2, (3, 1), filled(1, 2))),
        Ok(StorageReply::Done)
    );
    checkpoint(&mut store);
    let Change::Data { bytes, checksums } = filled(1, 3) else {
        unreachable!()
    };
    let state = protocol::storage::ChunkState {
        chunk: 0,
        stamp: stamp(3),
        present: 0b10,
        zero: 0,
    };
    let delta = protocol::storage::ObjectDelta {
        object: object(2),
        stamp: stamp(3),
        merged: Vec::new(),
        chunks: vec![state],
        checksums,
        bytes,
    };
    let (family, index) = (FamilyId(1), 3);
    store.submit(
        1,
        StorageRequest::Merge {
            family,
            index,
            parent: LayerId(1),
            child: LayerId(2),
            row_chunks: None,
        },
    );
    store.submit(
        2,
        StorageRequest::Level {
            follows: stamp(2),
            delta,
        },
    );
    store.submit(3, write(2, 3, 4, (5, 1), filled(1, 5)));
    let mut answers = Vec::new();
    store.drain(&mut answers);
    assert_eq!(answers.len(), 3);
    assert!(
        answers.iter().all(|answer| answer.1 == Ok(StorageReply::Done)),
        "{answers:?}"
    );
    assert_eq!(values(&mut store, &[2], (0, 7)), [1, 3, 1, 2, 1, 5, 1]);
}
