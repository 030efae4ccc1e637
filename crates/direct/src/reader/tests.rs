//! Reads of a real file by a real ring.

use protocol::place::{ChunkPlaces, Place};
use protocol::{FamilyId, LayerId, PgId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::witness::Witness;

const FAMILY: FamilyId = FamilyId(1);

/// A disk's directory with blocks in its data file: block n is full of the byte n.
struct Fixture {
    directory: tempfile::TempDir,
    witness: Witness,
    disk: Disk,
    reader: Reader,
}

fn shown() -> Shown {
    Shown {
        pg: PgId::default(),
        family: FAMILY,
        layer: LayerId(1),
        index: 0,
    }
}

fn checksum(byte: u8) -> u32 {
    crc32c::crc32c(&[byte; BLOCK])
}

impl Fixture {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(cache: Option<Cache>) -> Self {
        // Not in /tmp, which may be a file system without direct I/O.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes: Vec<u8> = (0..32u8).flat_map(|byte| [byte; BLOCK]).collect();
        std::fs::write(directory.path().join(DATA), bytes).unwrap();
        let witness = Witness::open(directory.path(), [3; 16]).unwrap();
        let mut disk = Disk::open(directory.path(), [3; 16]).unwrap();
        // Chunk 0 lies backwards in the file, but for a block of zeros and an unknown one.
        let mut places: [Place; 16] = std::array::from_fn(|number| {
            let block = 15 - number as u64;
            Place::At {
                block,
                checksum: checksum(u8::try_from(block).unwrap()),
            }
        });
        places[4] = Place::Zero;
        places[5] = Place::Unknown;
        let range = BlockRange::new(0, 1).unwrap();
        let mut reader = Reader::new(cache).unwrap();
        assert!(
            reader.begin(&mut disk, 0, &shown(), &range.into()).is_err(),
            "nothing is known"
        );
        let chunk = ChunkPlaces {
            chunk: 0,
            moves: witness.count(FAMILY, 0, 0),
            places,
        };
        disk.places().learn(&shown(), witness.admission(), vec![chunk]);
        Self {
            directory,
            witness,
            disk,
            reader,
        }
    }

    fn begin(&mut self, token: u64, start: u32, count: u32) {
        let range = BlockRange::new(start, count).unwrap();
        self.reader
            .begin(&mut self.disk, token, &shown(), &range.into())
            .unwrap();
        self.reader.submit();
    }

    /// Waits for the end of what is under way, by its eventfd.
    fn finish(&mut self) -> Vec<Finished> {
        let mut finished = Vec::new();
        loop {
            self.reader.finished(&mut finished);
            if self.reader.is_idle() {
                return finished;
            }
            let wake = self.reader.wake_descriptor();
            let limit = Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            };
            poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&limit)).unwrap();
        }
    }
}

#[test]
fn a_read_gives_the_blocks_in_the_order_of_the_volume() {
    let mut fixture = Fixture::new();
    fixture.begin(7, 2, 3);
    let finished = fixture.finish();
    assert_eq!(finished.len(), 1);
    assert_eq!(finished[0].token, 7);
    let bytes = finished[0].bytes.as_ref().unwrap();
    assert_eq!(bytes.len(), 3 * BLOCK);
    assert_eq!([bytes[0], bytes[BLOCK], bytes[2 * BLOCK]], [13, 12, 0]);
    assert!(bytes.as_ptr().addr().is_multiple_of(BLOCK));
}

#[test]
fn zeros_need_no_disk() {
    let mut fixture = Fixture::new();
    fixture.begin(1, 4, 1);
    let finished = fixture.finish();
    assert_eq!(finished[0].bytes.as_deref(), Some(&[0; BLOCK][..]));
}

#[test]
fn many_reads_are_under_way_at_once_and_too_many_are_refused() {
    let mut fixture = Fixture::new();
    let range = BlockRange::new(6, 1).unwrap();
    for token in 0..READS_MAX as u64 {
        fixture
            .reader
            .begin(&mut fixture.disk, token, &shown(), &range.into())
            .unwrap();
    }
    let refused = fixture
        .reader
        .begin(&mut fixture.disk, 0, &shown(), &range.into());
    assert_eq!(refused, Err(None));
    fixture.reader.submit();
    let finished = fixture.finish();
    assert_eq!(finished.len(), READS_MAX);
    assert!(finished.iter().all(|read| read.bytes.as_ref().unwrap()[0] == 9));
    // What was used is used again.
    fixture.begin(1, 6, 1);
    assert_eq!(fixture.finish().len(), 1);
}

/// Law: what moved while it was read is not given out, even if the bytes match.
#[test]
fn a_chunk_that_moved_meanwhile_is_not_given_out() {
    let mut fixture = Fixture::new();
    fixture.begin(1, 0, 1);
    fixture.witness.moves(FAMILY, 0, 0);
    assert!(fixture.finish()[0].bytes.is_none());
}

#[test]
fn damaged_bytes_are_not_given_out() {
    let mut fixture = Fixture::new();
    let data = OpenOptions::new()
        .write(true)
        .open(fixture.directory.path().join(DATA))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&data, &[1], 14 * BLOCK as u64).unwrap();
    data.sync_all().unwrap();
    fixture.begin(1, 1, 1);
    fixture.begin(2, 2, 1);
    let finished = fixture.finish();
    let of = |token| finished.iter().find(|read| read.token == token).unwrap();
    assert!(of(1).bytes.is_none());
    assert!(of(2).bytes.is_some());
}

#[test]
fn a_file_that_ends_early_is_not_given_out() {
    let mut fixture = Fixture::new();
    let data = OpenOptions::new()
        .write(true)
        .open(fixture.directory.path().join(DATA))
        .unwrap();
    data.set_len(13 * BLOCK as u64).unwrap();
    fixture.begin(1, 1, 2);
    assert!(fixture.finish()[0].bytes.is_none());
}

/// Guards: a ring that is dropped while the kernel writes into its buffers must wait for it.
#[test]
fn dropping_a_ring_waits_for_what_is_under_way() {
    let mut fixture = Fixture::new();
    for token in 0..50 {
        fixture.begin(token, 6, 10);
    }
    drop(fixture.reader);
}

/// Law: what is kept is given without the disk as long as the chunk is what it was, and not a moment longer.
#[test]
fn what_was_read_is_given_again_until_its_chunk_moves() {
    let cache = Cache::new(1 << 20);
    let mut fixture = Fixture::with(Some(cache.clone()));
    fixture.begin(1, 0, 3);
    let first = fixture.finish()[0].bytes.clone().unwrap();
    assert_eq!(cache.used(), first.len());
    // Nothing can be read from the file any more, so this comes from memory; a part of it without being copied.
    let data = OpenOptions::new()
        .write(true)
        .open(fixture.directory.path().join(DATA))
        .unwrap();
    data.set_len(0).unwrap();
    fixture.begin(2, 0, 3);
    fixture.begin(3, 1, 2);
    let finished = fixture.finish();
    assert_eq!(finished[0].bytes.as_ref(), Some(&first));
    let part = finished[1].bytes.as_ref().unwrap();
    assert_eq!(part.as_ptr(), first[BLOCK..].as_ptr());
    fixture.begin(4, 1, 3);
    assert_eq!(fixture.finish()[0].bytes, None, "not all of it was kept");
    fixture.witness.moves(FAMILY, 0, 0);
    let range = BlockRange::new(0, 3).unwrap();
    let Fixture { reader, disk, .. } = &mut fixture;
    assert!(
        reader.begin(disk, 5, &shown(), &range.into()).is_err(),
        "it moved"
    );
}
