//! What is known serves reads as long as the counts stand, and is asked for only while that pays.

use std::cell::RefCell;
use std::collections::HashMap;

use protocol::PoolId;

use super::*;

/// Counts that a test sets.
#[derive(Default)]
struct Fake {
    moves: RefCell<HashMap<u8, u64>>,
    admission: std::cell::Cell<u64>,
}

impl Fake {
    fn chunk_moves(&self, chunk: u8) {
        *self.moves.borrow_mut().entry(chunk).or_default() += 1;
    }
}

impl Counts for Fake {
    fn moves(&self, _: FamilyId, _: u32, chunk: u8) -> u64 {
        self.moves.borrow().get(&chunk).copied().unwrap_or_default()
    }

    fn admission(&self) -> u64 {
        self.admission.get()
    }
}

fn shown() -> Shown {
    Shown {
        pg: PgId {
            pool: PoolId(1),
            number: 2,
        },
        family: FamilyId(3),
        layer: LayerId(4),
        index: 5,
    }
}

/// A chunk that lies in one piece from this block of the file on.
fn chunk(counts: &Fake, number: u8, first: u64) -> ChunkPlaces {
    let place = |block| Place::At {
        block: first + block,
        checksum: 9,
    };
    ChunkPlaces {
        chunk: number,
        moves: counts.moves(FamilyId(3), 5, number),
        places: std::array::from_fn(|block| place(block as u64)),
    }
}

fn range(start: u32, count: u32) -> BlockRange {
    BlockRange::new(start, count).unwrap()
}

/// Places that know the first chunks of the object: chunk n from block 1000 n on.
fn knowing(counts: &Fake, chunks: u8) -> Places {
    let mut places = Places::default();
    assert_eq!(
        places.plan(counts, &shown(), &range(0, 1).into()),
        Err(Some(BlockRange::OBJECT))
    );
    let answer = (0..chunks).map(|number| chunk(counts, number, 1000 * u64::from(number)));
    places.learn(&shown(), counts.admission(), answer.collect());
    places
}

#[test]
fn a_range_over_two_chunks_is_read_in_two_runs() {
    let counts = Fake::default();
    let mut places = knowing(&counts, 2);
    let plan = places.plan(&counts, &shown(), &range(14, 4).into()).unwrap();
    let run = |block, at| Run { block, count: 2, at };
    assert_eq!(plan.runs, [run(14, 0), run(1000, 2)]);
    assert_eq!(plan.checksums.len(), 4);
    assert!(plan.holds(&counts, &shown()));
}

#[test]
fn several_ranges_are_read_one_behind_the_other_and_what_is_asked_for_reaches_over_all() {
    let counts = Fake::default();
    let mut places = knowing(&counts, 3);
    let ranges = |last| BlockRanges::new(vec![range(36, 2), range(2, 2), last]).unwrap();
    let plan = places.plan(&counts, &shown(), &ranges(range(4, 1))).unwrap();
    let run = |block, count, at| Run { block, count, at };
    assert_eq!(plan.runs, [run(2004, 2, 0), run(2, 3, 2)]);
    counts.chunk_moves(2);
    assert!(!plan.holds(&counts, &shown()));
    let asked = places.plan(&counts, &shown(), &ranges(range(60, 1)));
    assert_eq!(asked, Err(Some(range(2, 59))));
}

/// Law: a plan that was good when it was made is not when a chunk of it moved since.
#[test]
fn a_plan_does_not_hold_when_one_of_its_chunks_moved() {
    let counts = Fake::default();
    let mut places = knowing(&counts, 3);
    let plan = places.plan(&counts, &shown(), &range(0, 32).into()).unwrap();
    counts.chunk_moves(2);
    assert!(plan.holds(&counts, &shown()), "a chunk that is not read");
    counts.chunk_moves(1);
    assert!(!plan.holds(&counts, &shown()));
}

/// Law: a reader who may not be admitted any more uses nothing of what he knows until he asked anew.
#[test]
fn nobody_reads_by_an_admission_that_has_passed() {
    let counts = Fake::default();
    let mut places = knowing(&counts, 1);
    let plan = places.plan(&counts, &shown(), &range(0, 1).into()).unwrap();
    counts.admission.set(1);
    assert!(!plan.holds(&counts, &shown()));
    let asked = places.plan(&counts, &shown(), &range(0, 1).into()).unwrap_err();
    assert_eq!(asked, Some(range(0, 1)));
    places.learn(&shown(), 1, vec![chunk(&counts, 0, 0)]);
    assert!(places.plan(&counts, &shown(), &range(0, 1).into()).is_ok());
}

#[test]
fn a_question_is_asked_once() {
    let counts = Fake::default();
    let mut places = Places::default();
    assert!(
        places
            .plan(&counts, &shown(), &range(0, 1).into())
            .unwrap_err()
            .is_some()
    );
    assert_eq!(places.plan(&counts, &shown(), &range(0, 1).into()), Err(None));
    places.refused(&shown());
    assert!(
        places
            .plan(&counts, &shown(), &range(0, 1).into())
            .unwrap_err()
            .is_some()
    );
}

/// Law: a chunk that moves after each read is asked for ever more rarely, and often again when what
/// is learnt begins to serve.
#[test]
fn a_chunk_under_writes_is_left_alone() {
    let counts = Fake::default();
    let mut places = knowing(&counts, 1);
    let mut questions = 0;
    for _ in 0..1000 {
        counts.chunk_moves(0);
        if let Err(Some(_)) = places.plan(&counts, &shown(), &range(3, 1).into()) {
            questions += 1;
            places.learn(&shown(), 0, vec![chunk(&counts, 0, 0)]);
        }
    }
    assert!((5..30).contains(&questions), "{questions}");
    let served = (0..2000).filter(|_| match places.plan(&counts, &shown(), &range(3, 1).into()) {
        Ok(_) => true,
        Err(asked) => {
            if asked.is_some() {
                places.learn(&shown(), 0, vec![chunk(&counts, 0, 0)]);
            }
            false
        }
    });
    assert!(served.count() > 1500);
    counts.chunk_moves(0);
    assert!(
        places
            .plan(&counts, &shown(), &range(3, 1).into())
            .unwrap_err()
            .is_some(),
        "it was worth it, so it is asked for at once"
    );
}

#[test]
fn a_block_that_is_not_in_the_file_yet_is_not_read() {
    let counts = Fake::default();
    let mut places = knowing(&counts, 0);
    let mut known = chunk(&counts, 0, 0);
    known.places[1] = Place::Unknown;
    known.places[2] = Place::Zero;
    places.learn(&shown(), 0, vec![known]);
    assert!(places.plan(&counts, &shown(), &range(0, 3).into()).is_err());
    let plan = places.plan(&counts, &shown(), &range(2, 2).into()).unwrap();
    assert_eq!(plan.zeros, [0]);
    assert_eq!(
        plan.runs,
        [Run {
            block: 3,
            count: 1,
            at: 1
        }]
    );
}

/// Law: memory is bounded, whatever is read.
#[test]
fn no_more_chunks_are_kept_than_the_limit() {
    let counts = Fake::default();
    let mut places = Places::default();
    for index in 0..3000 {
        let shown = Shown { index, ..shown() };
        let _ = places.plan(&counts, &shown, &range(0, 1).into());
        let answer = (0..64).map(|number| chunk(&counts, number, 0));
        places.learn(&shown, 0, answer.collect());
    }
    assert!(places.chunks < CHUNKS_MAX + 64, "{}", places.chunks);
    assert_eq!(
        places.chunks,
        places
            .objects
            .values()
            .map(|object| object.chunks.len())
            .sum::<usize>()
    );
}
