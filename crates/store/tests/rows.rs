//! What a disk heeds of rows: a write drops what its chunk has from before a floor, and a merge of fronts leaves out what
//! is older than its row. Each test names one sentence of it, and looks again after a power cut.
//!
//! One file because the tests share one small vocabulary of requests.
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
use direct::witness::Witness;
use protocol::rows::{RowPlace, rows_index};
use protocol::storage::{
    Change, ChunkState, MapKind, ObjectState, ObjectWrite, StorageError, StorageReply, StorageRequest,
};
use protocol::{BlockRange, DiskId, FamilyId, Generation, LayerChain, LayerId, ObjectId, Stamp};
use store::medium::memory::{Disk, Fate, Memory};
use store::medium::{File, Operation};
use store::{Format, Options, Store};

use gated::{Gate, Gated};

const BLOCK: usize = 4096;
const CHUNK_BYTES: u64 = 65536;
/// Polls in which everything is answered.
const POLLS_LIMIT: usize = 10_000;
const FAMILY: FamilyId = FamilyId(1);
const FRONT: u32 = 3;
/// Chunks of a row.
const ROW: u8 = 2;

fn stamp(count: u64) -> Stamp {
    let generation = Generation(u64::from(count > 0));
    Stamp { generation, count }
}

fn filled(blocks: u32, value: u8) -> Change {
    let bytes = vec![value; blocks as usize * BLOCK];
    let checksums: Arc<[u32]> = bytes.chunks(BLOCK).map(crc32c::crc32c).collect();
    Change::Data {
        bytes: Bytes::from(bytes),
        checksums,
    }
}

/// A disk in memory, and the stamps of its objects.
struct Bench {
    disk: Disk,
    store: Store,
}

/// A write to a layer's object of an index.
#[derive(Clone)]
struct Written {
    index: u32,
    layer: u64,
    stamps: (u64, u64),
    floor: u64,
}

impl Written {
    fn front(layer: u64, follows: u64, count: u64) -> Self {
        Self {
            index: FRONT,
            layer,
            stamps: (follows, count),
            floor: 0,
        }
    }

    fn floor(self, floor: u64) -> Self {
        Self { floor, ..self }
    }

    fn request(&self, range: (u32, u32), change: Change) -> StorageRequest {
        StorageRequest::Write(ObjectWrite {
            object: object(self.index, self.layer),
            follows: stamp(self.stamps.0),
            stamp: stamp(self.stamps.1),
            range: BlockRange::new(range.0, range.1).unwrap(),
            change,
            use_reserve: false,
            floor: stamp(self.floor),
        })
    }
}

/// A place of a row that is written in a layer's rows object.
fn row(layer: u64, (follows, count): (u64, u64), row: u32, place: RowPlace) -> StorageRequest {
    let range = place.blocks(row).unwrap();
    let written = Written {
        index: rows_index(FRONT),
        layer,
        stamps: (follows, count),
        floor: 0,
    };
    written.request((range.start(), range.count()), filled(range.count(), 200))
}

fn object(index: u32, layer: u64) -> ObjectId {
    ObjectId {
        family: FAMILY,
        index,
        layer: LayerId(layer),
    }
}

fn merge(index: u32, row_chunks: Option<u8>) -> StorageRequest {
    StorageRequest::Merge {
        family: FAMILY,
        index,
        parent: LayerId(1),
        child: LayerId(2),
        row_chunks,
    }
}

fn format() -> Format {
    Format {
        cluster: [1; 16],
        disk: DiskId(7),
        serial: [2; 16],
        log_bytes: 4 << 20,
    }
}

fn open(disk: &Disk) -> Store {
    Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap()
}

fn ask(store: &mut Store, request: StorageRequest) -> Result<StorageReply, StorageError> {
    store.submit(1, request);
    answer(store, 1)
}

fn answer(store: &mut Store, token: u64) -> Result<StorageReply, StorageError> {
    let mut answers = Vec::new();
    for _ in 0..POLLS_LIMIT {
        store.kick();
        store.poll(&mut answers);
        if let Some(place) = answers.iter().position(|answer| answer.0 == token) {
            return answers.swap_remove(place).1;
        }
    }
    panic!("request {token} is not answered");
}

/// The first byte of each block of the front, through layers.
fn values(store: &mut Store, layers: &[u64], range: (u32, u32)) -> Vec<u8> {
    let request = StorageRequest::Read {
        chain: LayerChain::new(layers.iter().copied().map(LayerId).collect()),
        family: FAMILY,
        index: FRONT,
        ranges: BlockRange::new(range.0, range.1).unwrap().into(),
    };
    match ask(store, request).unwrap() {
        StorageReply::Data { bytes, .. } => bytes.chunks(BLOCK).map(|block| block[0]).collect(),
        other => panic!("not data: {other:?}"),
    }
}

/// What there is of a layer's front.
fn chunks(store: &mut Store, layer: u64) -> Vec<ChunkState> {
    let request = StorageRequest::Column {
        family: FAMILY,
        index: FRONT,
    };
    let StorageReply::Listed { objects, .. } = ask(store, request).unwrap() else {
        panic!("not a list")
    };
    let here = |state: &ObjectState| state.object.layer == LayerId(layer);
    objects
        .into_iter()
        .find(here)
        .map_or(Vec::new(), |state| state.chunks)
}

fn chunk(number: u8, count: u64, present: u16) -> ChunkState {
    ChunkState {
        chunk: number,
        stamp: stamp(count),
        present,
        zero: 0,
    }
}

impl Bench {
    fn new() -> Self {
        let disk = Disk::default();
        Store::create_on(&mut disk.medium(), &format()).unwrap();
        let store = open(&disk);
        Self { disk, store }
    }

    fn done(&mut self, request: StorageRequest) {
        assert_eq!(ask(&mut self.store, request), Ok(StorageReply::Done));
    }

    fn checkpoint(&mut self) {
        self.store.checkpoint();
        self.store.drain(&mut Vec::new());
        assert!(!self.store.has_background_work());
    }

    /// The power fails, and whoever opens the disk then replays the log since the last checkpoint.
    fn reopen(&mut self) {
        self.disk.cut_power(1);
        let problems = store::check::check_medium(&self.disk.medium()).unwrap().problems;
        assert_eq!(problems, Vec::<String>::new());
        self.store = open(&self.disk);
    }

    /// Looks: now, after a power cut, after a checkpoint, and after a power cut that finds it.
    fn always(&mut self, mut look: impl FnMut(&mut Store)) {
        look(&mut self.store);
        self.reopen();
        look(&mut self.store);
        self.checkpoint();
        look(&mut self.store);
        self.reopen();
        look(&mut self.store);
    }

    fn used_bytes(&mut self) -> u64 {
        self.checkpoint();
        self.store.statistics().used_bytes
    }
}

/// Law (`FreshAfterRow`): of the chunks that a write touches, those from before the floor have this write's blocks only;
/// the others keep theirs, and chunks beside are not looked at.
#[test]
fn a_floor_drops_what_older_chunks_have_and_nothing_else() {
    for checkpointed in [false, true] {
        let mut bench = Bench::new();
        bench.done(Written::front(1, 0, 1).request((0, 64), filled(64, 1)));
        bench.done(Written::front(1, 1, 5).request((20, 1), filled(1, 5)));
        if checkpointed {
            bench.checkpoint();
        }
        // Chunks 0 and 2 are older, chunk 1 is just not; chunk 3 is not touched.
        bench.done(Written::front(1, 5, 6).floor(5).request((10, 24), filled(24, 6)));
        bench.always(|store| {
            let of_chunk_0 = [vec![0; 10], vec![6; 6]].concat();
            let of_chunk_2 = [vec![6; 2], vec![0; 14]].concat();
            let expected = [of_chunk_0, vec![6; 16], of_chunk_2, vec![1; 16]].concat();
            assert_eq!(values(store, &[1], (0, 64)), expected);
            let states = [
                chunk(0, 6, 0xfc00),
                chunk(1, 6, u16::MAX),
                chunk(2, 6, 0b11),
                chunk(3, 1, u16::MAX),
            ];
            assert_eq!(chunks(store, 1), states);
        });
    }
}

/// Law: a chunk at the floor or above it keeps its blocks beside those that are written.
#[test]
fn a_chunk_that_is_not_older_than_the_floor_keeps_its_blocks() {
    let mut bench = Bench::new();
    bench.done(Written::front(1, 0, 4).request((0, 3), filled(3, 4)));
    bench.done(Written::front(1, 4, 5).floor(4).request((2, 2), filled(2, 5)));
    bench.always(|store| assert_eq!(values(store, &[1], (0, 5)), [4, 4, 5, 5, 0]));
}

/// Law: what the chunk had shows neither as data nor as zeros, but what lies below shows: in a read, a map and a pull.
#[test]
fn what_a_floor_dropped_is_a_hole_in_its_layer() {
    let mut bench = Bench::new();
    bench.done(Written::front(1, 0, 1).request((0, 16), filled(16, 1)));
    bench.done(Written::front(2, 0, 2).request((0, 4), filled(4, 2)));
    bench.done(Written::front(2, 2, 3).request((4, 4), Change::Zero));
    bench.done(Written::front(2, 3, 4).floor(4).request((6, 4), Change::Zero));
    bench.always(|store| {
        assert_eq!(
            values(store, &[2, 1], (0, 12)),
            [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]
        );
        let request = StorageRequest::Map {
            chain: LayerChain::new(vec![LayerId(2)]),
            family: FAMILY,
            index: FRONT,
            range: BlockRange::new(0, 16).unwrap(),
        };
        let StorageReply::Map { runs, .. } = ask(store, request).unwrap() else {
            panic!("not a map")
        };
        let runs: Vec<_> = runs
            .iter()
            .map(|run| (run.range.start(), run.range.count(), run.kind))
            .collect();
        let expected = [
            (0, 6, MapKind::Hole),
            (6, 4, MapKind::Zero),
            (10, 6, MapKind::Hole),
        ];
        assert_eq!(runs, expected);
        let pull = StorageRequest::Pull {
            object: object(FRONT, 2),
            above: Stamp::ZERO,
        };
        let StorageReply::Delta(delta) = ask(store, pull).unwrap() else {
            panic!("not a delta")
        };
        let expected = ChunkState {
            zero: 0x03c0,
            ..chunk(0, 4, 0x03c0)
        };
        assert_eq!((delta.chunks, delta.bytes.len()), (vec![expected], 0));
    });
}

/// Law: a write that covers a chunk whole has nothing to drop, wherever the floor is.
#[test]
fn a_whole_chunk_over_an_older_one_is_that_chunk() {
    let mut bench = Bench::new();
    bench.done(Written::front(1, 0, 1).request((0, 48), filled(48, 1)));
    bench.checkpoint();
    bench.done(Written::front(1, 1, 2).floor(2).request((16, 16), filled(16, 2)));
    bench.always(|store| {
        let expected = [vec![1; 16], vec![2; 16], vec![1; 16]].concat();
        assert_eq!(values(store, &[1], (0, 48)), expected);
    });
    assert_eq!(bench.used_bytes(), 3 * CHUNK_BYTES);
}

/// Law: the books balance: a chunk that was dropped and written again takes one slot, one that became zeros none, and
/// what the overlay held of it goes.
#[test]
fn space_is_what_it_would_be_had_the_dropped_blocks_never_been() {
    let mut bench = Bench::new();
    bench.done(Written::front(1, 0, 1).request((0, 32), filled(32, 1)));
    bench.done(Written::front(1, 1, 2).request((40, 3), filled(3, 2)));
    assert_eq!(bench.store.statistics().overlay_bytes, 3 * BLOCK as u64);
    bench.done(Written::front(1, 2, 3).floor(3).request((47, 1), filled(1, 3)));
    assert_eq!(bench.store.statistics().overlay_bytes, BLOCK as u64);
    bench.done(Written::front(1, 3, 4).floor(4).request((0, 1), filled(1, 4)));
    assert_eq!(bench.used_bytes(), 3 * CHUNK_BYTES);
    bench.done(Written::front(1, 4, 5).floor(5).request((16, 1), Change::Zero));
    assert_eq!(bench.used_bytes(), 2 * CHUNK_BYTES);
    bench.done(Written::front(1, 5, 6).floor(6).request((16, 1), filled(1, 6)));
    bench.done(StorageRequest::Drop(object(FRONT, 1)));
    assert_eq!(bench.used_bytes(), 0);
    assert_eq!(bench.store.statistics().overlay_bytes, 0);
    bench.reopen();
    assert_eq!(bench.used_bytes(), 0);
}

/// Law: on a full disk a write that drops a chunk's blocks finds the room that the chunk had; one that would need more
/// is refused, and then nothing was dropped.
#[test]
fn a_floor_on_a_full_disk_needs_no_room_and_a_refused_one_drops_nothing() {
    let disk = Disk::default();
    Store::create_on(&mut disk.medium(), &format()).unwrap();
    let options = Options {
        capacity_bytes: 2 * CHUNK_BYTES,
        ..Options::default()
    };
    let store = Store::open_on(Box::new(disk.medium()), &options).unwrap();
    let mut bench = Bench { disk, store };
    bench.done(Written::front(1, 0, 1).request((0, 32), filled(32, 1)));
    let whole = Written::front(1, 1, 2).floor(2).request((0, 16), filled(16, 2));
    assert_eq!(ask(&mut bench.store, whole), Err(StorageError::Full));
    let beside = Written::front(1, 1, 2).floor(2).request((30, 4), filled(4, 2));
    assert_eq!(ask(&mut bench.store, beside), Err(StorageError::Full));
    assert_eq!(values(&mut bench.store, &[1], (0, 40))[..32], [1; 32]);
    bench.done(Written::front(1, 1, 2).floor(2).request((3, 1), filled(1, 2)));
    assert_eq!(
        values(&mut bench.store, &[1], (2, 16)),
        [vec![0, 2], vec![0; 12], vec![1; 2]].concat()
    );
}

/// Law: whoever reads the disk's file by places that he was told before notices that they are not the chunk's any more.
#[test]
fn a_floor_is_a_move_of_each_chunk_that_it_empties() {
    let mut bench = Bench::new();
    let directory = tempfile::tempdir().unwrap();
    bench
        .store
        .set_witness(Witness::open(directory.path(), [7; 16]).unwrap());
    bench.done(Written::front(1, 0, 1).request((0, 48), filled(48, 1)));
    bench.checkpoint();
    let moves =
        |bench: &Bench| [0, 1, 2].map(|chunk| bench.store.witness().unwrap().count(FAMILY, FRONT, chunk));
    let before = moves(&bench);
    bench.done(Written::front(1, 1, 2).floor(2).request((14, 3), filled(3, 2)));
    let after = moves(&bench);
    assert!(
        after[0] > before[0] && after[1] > before[1],
        "{before:?}, {after:?}"
    );
    assert_eq!(after[2], before[2]);
}

/// Law: a write that drops what its chunk had is there as a whole after a power cut, or not at all.
#[test]
fn a_cut_at_every_event_shows_a_dropped_chunk_before_or_after() {
    let mut bench = Bench::new();
    bench.done(Written::front(1, 0, 1).request((0, 40), filled(40, 1)));
    bench.checkpoint();
    bench.done(Written::front(1, 1, 2).request((3, 1), filled(1, 2)));
    let base = bench.disk.image();
    let before = values(&mut bench.store, &[1], (0, 40));
    bench.disk.record();
    bench.done(Written::front(1, 2, 3).floor(3).request((8, 26), filled(26, 3)));
    bench.checkpoint();
    let after = values(&mut bench.store, &[1], (0, 40));
    assert_ne!(before, after);
    let (mut old, mut new) = (0, 0);
    let recording = bench.disk.take_recording();
    for place in 0..=recording.len() {
        let mut image = base.clone();
        for recorded in &recording[..place] {
            image.apply(&recorded.event);
        }
        for fate in [Fate::Lost, Fate::Kept, Fate::Torn(place as u64)] {
            let cut = Disk::new(image.after_power_cut(&vec![fate; image.unflushed()]));
            let shown = values(&mut open(&cut), &[1], (0, 40));
            assert!(shown == before || shown == after, "at event {place}: {shown:?}");
            old += u32::from(shown == before);
            new += u32::from(shown == after);
        }
    }
    assert!(old > 0 && new > 0, "{old} before, {new} after");
}

/// A parent with chunks 0 to 3, written at 1, 2, 3 and 4, and a child that has one block of each but of the last.
fn layered() -> Bench {
    let mut bench = Bench::new();
    for number in 0..4u32 {
        let count = u64::from(number) + 1;
        let value = u8::try_from(count).unwrap();
        let written = Written::front(1, count - 1, count);
        bench.done(written.request((16 * number, 16), filled(16, value)));
    }
    for number in 0..3u32 {
        let count = u64::from(number) + 11;
        let written = Written::front(2, if number == 0 { 0 } else { count - 1 }, count);
        bench.done(written.request((16 * number + 1, 1), filled(1, 9)));
    }
    bench.checkpoint();
    bench
}

/// What a child shows whose chunks got these values from the parent, or nothing.
fn merged(parents: [u8; 4]) -> Vec<u8> {
    let chunk = |(number, value): (usize, u8)| {
        let mut blocks = vec![value; 16];
        if number < 3 {
            blocks[1] = 9;
        }
        blocks
    };
    parents.into_iter().enumerate().flat_map(chunk).collect()
}

/// Law: without rows a merge changes no read; nor do rows of another range, or in a merge that does not ask for them.
#[test]
fn a_merge_without_row_chunks_is_as_ever() {
    for row_chunks in [None, Some(0), Some(ROW)] {
        let mut bench = layered();
        if row_chunks != Some(ROW) {
            bench.done(row(1, (0, 50), 0, RowPlace::Even));
            bench.done(row(2, (0, 50), 1, RowPlace::Odd));
        }
        bench.done(merge(FRONT, row_chunks));
        bench.always(|store| assert_eq!(values(store, &[2], (0, 64)), merged([1, 2, 3, 4])));
    }
}

/// Law: what the parent has from before its row, in either layer and in either place, is not brought back; what is newer
/// is kept, and at the row's own stamp, too.
#[test]
fn a_merge_leaves_out_what_is_older_than_the_row_in_either_layer() {
    for layer in [1, 2] {
        for place in RowPlace::BOTH {
            let mut bench = layered();
            // Row 0 is chunks 0 and 1, at 1 and 2; row 1 is chunks 2 and 3, at 3 and 4.
            bench.done(row(layer, (0, 2), 0, place));
            bench.done(row(layer, (2, 4), 1, place));
            bench.done(merge(FRONT, Some(ROW)));
            bench.always(|store| {
                assert_eq!(values(store, &[2], (0, 64)), merged([0, 2, 0, 4]));
                let states = [
                    chunk(0, 11, 0b10),
                    chunk(1, 12, u16::MAX),
                    chunk(2, 13, 0b10),
                    chunk(3, 4, u16::MAX),
                ];
                assert_eq!(chunks(store, 2), states);
                assert_eq!(chunks(store, 1), []);
            });
            // Four chunks of the front, and two of the rows.
            assert_eq!(bench.used_bytes(), 6 * CHUNK_BYTES);
        }
    }
}

/// Law: the newest of all places of a row decides.
#[test]
fn the_newest_place_of_a_row_decides_what_a_merge_leaves_out() {
    let mut bench = layered();
    bench.done(row(1, (0, 1), 1, RowPlace::Even));
    bench.done(row(1, (1, 4), 1, RowPlace::Odd));
    bench.done(row(2, (0, 5), 1, RowPlace::Even));
    bench.done(merge(FRONT, Some(ROW)));
    bench.always(|store| assert_eq!(values(store, &[2], (0, 64)), merged([1, 2, 0, 0])));
    // Chunks 0, 1 and 2 of the front: what only the parent had and nobody got is free again.
    assert_eq!(bench.used_bytes(), 6 * CHUNK_BYTES);
}

/// Law: of each row a merge keeps the newest version, whichever of the two places that is in.
#[test]
fn of_rows_the_newest_version_is_merged_and_what_is_older_is_left_out() {
    let mut bench = layered();
    bench.done(row(1, (0, 5), 0, RowPlace::Even));
    bench.done(row(1, (5, 6), 1, RowPlace::Even));
    bench.done(row(2, (0, 20), 0, RowPlace::Odd));
    bench.done(merge(rows_index(FRONT), Some(ROW)));
    let column = StorageRequest::Column {
        family: FAMILY,
        index: rows_index(FRONT),
    };
    bench.always(|store| {
        let StorageReply::Listed { objects, .. } = ask(store, column.clone()).unwrap() else {
            panic!("not a list")
        };
        let states = vec![chunk(1, 20, u16::MAX), chunk(2, 6, u16::MAX)];
        let expected = ObjectState {
            object: object(rows_index(FRONT), 2),
            stamp: stamp(20),
            chunks: states,
        };
        assert_eq!(objects, [expected]);
    });
}

/// A merge whose reads wait until the gate opens.
fn gated(bench: &Bench) -> (Store, Rc<RefCell<Gate>>) {
    bench.disk.end_process();
    let gate = Rc::new(RefCell::new(Gate::default()));
    let disk: Memory = bench.disk.medium();
    let late = Gated {
        disk,
        gate: Rc::clone(&gate),
        holds: |operation| matches!(operation, Operation::Read { file: File::Data, .. }),
    };
    (Store::open_on(Box::new(late), &Options::default()).unwrap(), gate)
}

/// Law: a row that is written between a merge's steps counts: for the chunk whose blocks were read just then, for those
/// that are still to be copied, and for those that the last step moves.
#[test]
fn a_row_that_is_written_between_the_steps_of_a_merge_counts() {
    let mut bench = layered();
    let (mut store, gate) = gated(&bench);
    gate.borrow_mut().shut = true;
    store.submit(7, merge(FRONT, Some(ROW)));
    store.kick();
    assert_eq!(gate.borrow().waiting.len(), 1, "or this test shows nothing");
    assert_eq!(
        ask(&mut store, row(2, (0, 20), 0, RowPlace::Even)),
        Ok(StorageReply::Done)
    );
    assert_eq!(
        ask(&mut store, row(2, (20, 21), 1, RowPlace::Even)),
        Ok(StorageReply::Done)
    );
    gate.borrow_mut().shut = false;
    assert_eq!(answer(&mut store, 7), Ok(StorageReply::Done));
    bench.store = store;
    bench.always(|store| assert_eq!(values(store, &[2], (0, 64)), merged([0, 0, 0, 0])));
}

/// Law: what was brought before the row was written is gone with the first write after it, and stays away.
#[test]
fn a_floor_drops_what_a_merge_has_brought_already() {
    let mut bench = layered();
    let (mut store, gate) = gated(&bench);
    gate.borrow_mut().shut = true;
    store.submit(7, merge(FRONT, Some(ROW)));
    store.kick();
    // The parent's chunk 0 is copied, and its chunk 1 is being read.
    gate.borrow_mut().shut = false;
    store.kick();
    gate.borrow_mut().shut = true;
    for _ in 0..POLLS_LIMIT {
        store.poll(&mut Vec::new());
        store.kick();
        if !gate.borrow().waiting.is_empty() {
            break;
        }
    }
    assert_eq!(
        chunks(&mut store, 2)[0],
        chunk(0, 11, u16::MAX),
        "or this test shows nothing"
    );
    assert_eq!(
        chunks(&mut store, 2)[1],
        chunk(1, 12, 0b10),
        "or this test shows nothing"
    );
    assert_eq!(
        ask(&mut store, row(2, (0, 20), 0, RowPlace::Even)),
        Ok(StorageReply::Done)
    );
    let write = Written::front(2, 13, 21).floor(20).request((5, 1), filled(1, 7));
    assert_eq!(ask(&mut store, write), Ok(StorageReply::Done));
    gate.borrow_mut().shut = false;
    assert_eq!(answer(&mut store, 7), Ok(StorageReply::Done));
    bench.store = store;
    let mut expected = merged([0, 0, 3, 4]);
    (expected[1], expected[5]) = (0, 7);
    bench.always(|store| assert_eq!(values(store, &[2], (0, 64)), expected));
}

/// Law: a merge that leaves chunks out is there as a whole after a power cut, or not at all; the parent's own chain shows
/// the same until then.
#[test]
fn a_cut_at_every_event_shows_a_merge_with_rows_before_or_after() {
    let mut bench = layered();
    bench.done(row(2, (0, 20), 0, RowPlace::Even));
    let base = bench.disk.image();
    bench.disk.record();
    bench.done(merge(FRONT, Some(ROW)));
    bench.checkpoint();
    let recording = bench.disk.take_recording();
    let (before, after) = (merged([1, 2, 3, 4]), merged([0, 0, 3, 4]));
    let (mut old, mut new) = (0, 0);
    for place in 0..=recording.len() {
        let mut image = base.clone();
        for recorded in &recording[..place] {
            image.apply(&recorded.event);
        }
        for fate in [Fate::Lost, Fate::Kept, Fate::Torn(place as u64)] {
            let cut = Disk::new(image.after_power_cut(&vec![fate; image.unflushed()]));
            let mut store = open(&cut);
            let shown = values(&mut store, &[2, 1], (0, 64));
            assert!(shown == before || shown == after, "at event {place}: {shown:?}");
            old += u32::from(shown == before);
            new += u32::from(shown == after);
            // Done once more, it comes to the same.
            assert_eq!(ask(&mut store, merge(FRONT, Some(ROW))), Ok(StorageReply::Done));
            assert_eq!(values(&mut store, &[2], (0, 64)), after);
        }
    }
    assert!(old > 0 && new > 0, "{old} before, {new} after");
}
