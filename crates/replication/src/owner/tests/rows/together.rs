//! Reads of several chunks of a shard: one request to its disk, and what becomes of each chunk when it is answered or not.

use protocol::message::SEVERAL_SINCE;

use super::*;

const CHUNK: u64 = CHUNK_SIZE as u64;

fn read(bed: &mut Bed, chunks: u64) -> Vec<Action> {
    bed.submit(Operation::Read {
        offset: 0,
        length: chunks * CHUNK,
    })
}

/// The chunks of the rows object that a request asks for.
fn chunks_of(request: &Sent) -> Vec<u32> {
    let ranges: Vec<BlockRange> = match &request.2 {
        Request::Read { range, .. } => vec![*range],
        Request::ReadSeveral { ranges, .. } => ranges.iter().collect(),
        other => panic!("{other:?} reads nothing"),
    };
    assert!(ranges.iter().all(|range| range.count() == 16), "{ranges:?}");
    ranges.iter().map(|range| range.start() / 16).collect()
}

/// What a disk has in a chunk of its shard: the data of A's shard is 1, 2, 3 and so on, that of B's 64 more, and C's is the
/// parity of the two.
fn content(disk: DiskId, chunk: u32) -> u8 {
    let first = u8::try_from(chunk / 2 + 1).unwrap();
    match disk {
        A => first,
        B => first + 64,
        _ => first ^ (first + 64),
    }
}

fn found(request: &Sent) -> Response {
    let chunk = |chunk| vec![content(request.0, chunk); CHUNK_SIZE as usize];
    let bytes: Vec<u8> = chunks_of(request).into_iter().flat_map(chunk).collect();
    Response::Data {
        stamp: Stamp::ZERO,
        checksums: Arc::default(),
        bytes: bytes.into(),
    }
}

/// The byte that each chunk of a volume is filled with that was written in these rows.
fn expected(rows: u8) -> Vec<u8> {
    (1..=rows).flat_map(|first| [first, first + 64]).collect()
}

/// The byte that each chunk is filled with that a read gave, if the read is done.
fn given(actions: &[Action]) -> Option<Vec<u8>> {
    let results = results(actions);
    let [Ok(Outcome::Data(pieces))] = results.as_slice() else {
        assert!(results.is_empty(), "{results:?}");
        return None;
    };
    let bytes = pieces.concat();
    let chunk = |chunk: &[u8]| {
        assert!(chunk.iter().all(|byte| *byte == chunk[0]));
        chunk[0]
    };
    Some(bytes.chunks(CHUNK_SIZE as usize).map(chunk).collect())
}

/// Answers all these, and what is asked then, with what the disks have.
fn answer_all(bed: &mut Bed, mut requests: Vec<Sent>) -> Option<Vec<u8>> {
    while let Some(request) = requests.pop() {
        let out = bed.answer(&request, found(&request));
        if let Some(given) = given(&out) {
            return Some(given);
        }
        requests.extend(sent(&out));
    }
    None
}

fn asked_of(requests: &[Sent]) -> Vec<(DiskId, Vec<u32>)> {
    requests
        .iter()
        .map(|request| (request.0, chunks_of(request)))
        .collect()
}

#[test]
fn what_a_read_wants_of_a_shard_is_one_request_and_each_chunk_comes_where_it_belongs() {
    let mut bed = open_to(4, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 8));
    let even = vec![0, 2, 4, 6];
    assert_eq!(asked_of(&asked), [(A, even.clone()), (B, even)]);
    assert_eq!(answer_all(&mut bed, asked), Some(expected(4)));
}

#[test]
fn a_disk_of_an_older_version_is_asked_for_one_chunk_at_a_time() {
    let mut bed = open_to(4, SEVERAL_SINCE - 1);
    let asked = sent(&read(&mut bed, 8));
    assert_eq!(asked.len(), 8);
    assert!(
        asked
            .iter()
            .all(|request| matches!(request.2, Request::Read { .. }))
    );
    assert_eq!(answer_all(&mut bed, asked), Some(expected(4)));
}

#[test]
fn no_request_is_for_more_than_a_megabyte() {
    let mut bed = open_to(32, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 64));
    let mut disks: Vec<(DiskId, usize)> = Vec::new();
    for (disk, chunks) in asked_of(&asked) {
        disks.push((disk, chunks.len()));
    }
    disks.sort_unstable();
    assert_eq!(disks, [(A, 16), (A, 16), (B, 16), (B, 16)]);
    assert_eq!(answer_all(&mut bed, asked), Some(expected(32)));
}

#[test]
fn of_chunks_one_of_which_is_damaged_only_that_one_is_computed() {
    let mut bed = open_to(4, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 8));
    let block = 4 * 16 + 3;
    let damaged = Response::Refused(Refusal::Damaged { index: 0, block });
    let mut again = sent(&bed.answer(&asked[0], damaged));
    // The damaged one of B and C; the others of A, which are not blamed for it, each by itself.
    again.sort_unstable_by_key(|request| (request.0, chunks_of(request)));
    let alone = [0, 2, 6].map(|chunk| (A, vec![chunk]));
    let others = [(B, vec![4]), (C, vec![4])];
    assert_eq!(asked_of(&again), [alone.to_vec(), others.to_vec()].concat());
    again.push(asked[1].clone());
    assert_eq!(answer_all(&mut bed, again), Some(expected(4)));
}

#[test]
fn chunks_that_came_damaged_are_asked_for_one_by_one_and_only_what_is_damaged_then_is_computed() {
    let mut bed = open_to(2, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 4));
    let mismatch = Response::Refused(Refusal::Mismatch);
    let again = sent(&bed.answer(&asked[0], mismatch.clone()));
    assert_eq!(asked_of(&again), [(A, vec![0]), (A, vec![2])]);
    let mut others = sent(&bed.answer(&again[0], mismatch));
    assert_eq!(asked_of(&others), [(B, vec![0]), (C, vec![0])]);
    others.extend([asked[1].clone(), again[1].clone()]);
    assert_eq!(answer_all(&mut bed, others), Some(expected(2)));
}

#[test]
fn what_a_disk_refuses_for_a_reason_of_its_own_is_computed_from_others() {
    let mut bed = open_to(2, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 4));
    let mut others = sent(&bed.answer(&asked[0], Response::Refused(Refusal::Poisoned)));
    assert_eq!(asked_of(&others), [(B, vec![0, 2]), (C, vec![0, 2])]);
    others.push(asked[1].clone());
    assert_eq!(answer_all(&mut bed, others), Some(expected(2)));
}

#[test]
fn an_answer_with_fewer_bytes_than_were_asked_for_is_none() {
    let mut bed = open_to(2, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 4));
    let short = Response::Data {
        stamp: Stamp::ZERO,
        checksums: Arc::default(),
        bytes: Bytes::from(vec![9; CHUNK_SIZE as usize]),
    };
    let mut others = sent(&bed.answer(&asked[0], short));
    assert_eq!(asked_of(&others), [(B, vec![0, 2]), (C, vec![0, 2])]);
    others.push(asked[1].clone());
    assert_eq!(answer_all(&mut bed, others), Some(expected(2)));
}

#[test]
fn with_a_disk_away_each_chunk_of_the_others_is_read_once_though_two_want_it() {
    let mut bed = open_to(4, SEVERAL_SINCE);
    bed.event(Event::Disconnected { disk: A });
    let asked = sent(&read(&mut bed, 8));
    let even = vec![0, 2, 4, 6];
    assert_eq!(asked_of(&asked), [(B, even.clone()), (C, even)]);
    assert_eq!(answer_all(&mut bed, asked), Some(expected(4)));
}

#[test]
fn what_was_on_its_way_on_a_connection_that_is_lost_is_computed_from_others() {
    let mut bed = open_to(2, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 4));
    let mut others = sent(&bed.event(Event::Disconnected { disk: A }));
    assert_eq!(asked_of(&others), [(B, vec![0, 2]), (C, vec![0, 2])]);
    others.push(asked[1].clone());
    assert_eq!(answer_all(&mut bed, others), Some(expected(2)));
    // Its answer, should it come after all, is nobody's.
    assert!(results(&bed.answer(&asked[0], found(&asked[0]))).is_empty());
}

#[test]
fn chunks_that_were_read_directly_come_where_they_belong_too() {
    let mut bed = open_to(4, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 8));
    let Response::Data { bytes, .. } = found(&asked[0]) else {
        panic!();
    };
    let (disk, number, _) = asked[0];
    bed.event(Event::ReadDirectly { disk, number, bytes });
    assert_eq!(answer_all(&mut bed, asked[1..].to_vec()), Some(expected(4)));
}

#[test]
fn a_row_that_is_written_while_it_is_read_is_read_anew_and_the_others_are_not() {
    let mut bed = open_to(2, SEVERAL_SINCE);
    let asked = sent(&read(&mut bed, 4));
    let row = write(&mut bed, 32);
    assert_eq!(row.len(), 3);
    acknowledge(&mut bed, &row);
    let mut again = Vec::new();
    for request in &asked {
        again.extend(sent(&bed.answer(request, found(request))));
    }
    // The place of the first row that was read is free for the next write; now its other one counts.
    assert_eq!(asked_of(&again), [(A, vec![1]), (B, vec![1])]);
}
