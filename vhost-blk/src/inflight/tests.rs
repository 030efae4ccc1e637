//! The layout is a contract with processes of other versions: its bytes are pinned. What a log says after any
//! of its stores is tried by single steps in `tests/instants.rs`.

use std::io::{Read as _, Seek as _, Write as _};

use super::*;

const ENTRIES: u16 = 4;

fn region() -> (Region, File) {
    let (described, file) = Region::create(2, ENTRIES).unwrap();
    let copy = file.try_clone().unwrap();
    (Region::map(&described, file).unwrap(), copy)
}

fn bytes(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A log with `heads` taken and the first `answered` of them answered.
fn used(heads: &[u16], answered: u16) -> (Region, File) {
    let (region, file) = region();
    let log = region.log(0).unwrap();
    assert_eq!(log.recover(0, ENTRIES).unwrap(), [0; 0]);
    for head in heads {
        log.take(*head).unwrap();
    }
    for (head, used) in heads.iter().zip(1..=answered) {
        log.publishing(*head).unwrap();
        log.published(*head, used).unwrap();
    }
    (region, file)
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let (_region, mut file) = used(&[2, 1], 1);
    let bytes = bytes(&mut file);
    assert_eq!(bytes.len(), 2 * 128, "16 and 4 * 16 bytes, rounded up to 64");
    let expected: Vec<u8> = [
        &[0; 8][..],                                       // features
        &[1, 0, 4, 0, 2, 0, 1, 0], // version, descriptors, last batch head, used index
        &[0; 16],                  // descriptor 0
        &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], // 1: in flight, counter 1
        &[0; 32],                  // 2: answered, next 0, counter 0; and 3
    ]
    .concat();
    assert_eq!(bytes[..80], expected);
}

#[test]
fn what_was_taken_and_not_answered_comes_back_in_the_order_of_taking() {
    let (region, _file) = used(&[3, 0, 2], 1);
    assert_eq!(region.log(0).unwrap().recover(1, ENTRIES).unwrap(), [0, 2]);
    assert_eq!(region.log(1).unwrap().recover(7, ENTRIES).unwrap(), [0; 0]);
    assert!(region.log(2).is_none());
}

#[test]
fn a_request_that_is_taken_after_a_death_is_younger_than_all_before() {
    let (region, _file) = used(&[3, 0], 0);
    let log = region.log(0).unwrap();
    log.recover(0, ENTRIES).unwrap();
    log.take(1).unwrap();
    assert_eq!(region.log(0).unwrap().recover(0, ENTRIES).unwrap(), [3, 0, 1]);
}

#[test]
fn a_batch_that_another_back_end_published_is_taken_out_of_flight() {
    // Others publish several answers with one used index, linked by `next`.
    let (region, _file) = used(&[3, 0, 2], 0);
    let log = region.log(0).unwrap();
    log.publishing(3).unwrap();
    log.publishing(2).unwrap();
    assert_eq!(region.log(0).unwrap().recover(2, ENTRIES).unwrap(), [0]);
}

#[test]
fn a_new_log_begins_at_the_used_index_of_a_ring_that_is_in_use() {
    // Defect guarded: a log that began with index 0 took the ring's 65 000 for answers that it had missed.
    let (region, _file) = region();
    let log = region.log(0).unwrap();
    assert!(log.recover(65_000, ENTRIES).unwrap().is_empty());
    log.take(1).unwrap();
    assert_eq!(region.log(0).unwrap().recover(65_000, ENTRIES).unwrap(), [1]);
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let damaged = |at: u64, byte: u8, used_index: u16, size: u16| {
        let (region, mut file) = used(&[3, 0, 2], 1);
        file.seek(io::SeekFrom::Start(at)).unwrap();
        file.write_all(&[byte]).unwrap();
        region.log(0).unwrap().recover(used_index, size)
    };
    assert_eq!(damaged(8, 1, 1, ENTRIES).unwrap(), [0, 2], "nothing is changed");
    for (at, byte, used_index, size) in [
        (8, 2, 1, ENTRIES),   // an unknown version
        (10, 8, 1, ENTRIES),  // another size of queue
        (12, 9, 2, ENTRIES),  // a last batch head that does not exist
        (14, 90, 1, ENTRIES), // a used index ahead of the ring's
        (8, 1, 1, 2),         // in flight beyond the ring's size
        (8, 1, 1, 8),         // a ring of more entries
    ] {
        assert!(
            matches!(
                damaged(at, byte, used_index, size),
                Err(InflightError::Contradiction(_))
            ),
            "byte {at} = {byte}"
        );
    }
}

#[test]
fn a_chain_of_answers_that_runs_in_a_circle_ends() {
    let (region, mut file) = used(&[3, 0, 2], 3);
    // Every entry's next is itself.
    for head in 0..u64::from(ENTRIES) {
        file.seek(io::SeekFrom::Start(16 + head * 16 + 6)).unwrap();
        file.write_all(&[u8::try_from(head).unwrap(), 0]).unwrap();
    }
    assert!(region.log(0).unwrap().recover(7, ENTRIES).unwrap().is_empty());
}

#[test]
fn a_region_that_this_program_did_not_make_is_refused() {
    let (good, file) = Region::create(2, 128).unwrap();
    for (size, queues, entries) in [
        (good.mmap_size, 0, 128),
        (good.mmap_size, 2, 0),
        (good.mmap_size, 3, 128),
        (u64::MAX, 65, 128),
        (u64::MAX, 2, 1025),
        (u64::MAX, 64, 1024), // longer than the file
    ] {
        let described = VhostUserInflight::new(size, 0, queues, entries);
        assert!(
            Region::map(&described, file.try_clone().unwrap()).is_err(),
            "{size} {queues} {entries}"
        );
    }
    assert!(Region::map(&good, file).is_ok());
}
