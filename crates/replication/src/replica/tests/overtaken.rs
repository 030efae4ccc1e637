//! A damaged chunk of which no other disk has the bytes: whether it goes, or is told of.

use protocol::recovery::Told;
use protocol::rows::rows_index;
use protocol::storage::{ChunkState, DamagedChunk, ObjectState, Verified};

use super::*;
use crate::scrub::{Finding, Order, Progress};

fn rows() -> ObjectId {
    ObjectId {
        index: rows_index(0),
        ..object()
    }
}

fn chunk(number: u8, count: u64) -> ChunkState {
    ChunkState {
        chunk: number,
        stamp: stamp(1, count),
        present: u16::MAX,
        zero: 0,
    }
}

fn state(object: ObjectId, chunks: Vec<ChunkState>) -> ObjectState {
    ObjectState {
        object,
        stamp: stamp(1, 9),
        chunks,
    }
}

/// A disk of a group of 2+1 that starts with this in doubt.
fn starting(doubts: Vec<(ObjectId, Stamp)>) -> Bed {
    let mut bed = Bed::of(Map::encoded());
    let remembered = Remembered {
        doubts,
        ..Remembered::default()
    };
    let map = Arc::new(bed.map.clone());
    bed.replica = Replica::new(DiskId(1), remembered, map, &mut Vec::new());
    bed
}

/// A deep scrub has found the first chunk of this object damaged, and nobody has it.
fn nobody_has(bed: &mut Bed, damaged: &ObjectState) -> Vec<Action> {
    let order = Order {
        deep: true,
        ..Order::default()
    };
    bed.apply(Event::Scrub { run: 7, order });
    let list = bed.apply(Event::ScrubStep);
    let objects = vec![damaged.clone()];
    bed.stored(&list, Ok(StorageReply::Listed { objects, more: false }));
    let look = bed.apply(Event::ScrubStep);
    let verified = Verified {
        state: damaged.clone(),
        blocks: 16,
        damaged: vec![DamagedChunk {
            state: damaged.chunks[0].clone(),
            blocks: 1,
            checksums: [5; 16].into(),
        }],
    };
    bed.stored(&look, Ok(StorageReply::Verified(verified)));
    loop {
        let out = bed.apply(Event::ScrubStep);
        let Some(number) = out.iter().find_map(|action| match action {
            Action::Question { number, .. } => Some(*number),
            _ => None,
        }) else {
            return out;
        };
        let delta = crate::rows::replacement(damaged.object, damaged.stamp, Vec::new(), Bytes::new());
        let told = Ok(Told::Difference { delta, doubt: false });
        bed.apply(Event::Told { number, told });
    }
}

/// What is asked of the store when it has told these rows.
fn with_rows(bed: &mut Bed, out: &[Action], rows: ObjectState) -> Vec<Action> {
    let asked = requests(out);
    assert!(matches!(asked[..], [StorageRequest::Column { index, .. }] if index == rows.object.index));
    let objects = vec![rows];
    bed.stored(out, Ok(StorageReply::Listed { objects, more: false }))
}

fn requests(actions: &[Action]) -> Vec<StorageRequest> {
    let request = |action: &Action| match action {
        Action::Store { request, .. } => Some(request.clone()),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn told(actions: &[Action]) -> Vec<Progress> {
    let progress = |action: &Action| match action {
        Action::Scrubbed { progress, .. } => Some(progress.clone()),
        _ => None,
    };
    actions.iter().filter_map(progress).collect()
}

/// The request that takes a chunk away, of an object that is as it was.
fn without(object: ObjectId, number: u8) -> StorageRequest {
    let gone = crate::rows::absent(u32::from(number)).into_iter().collect();
    StorageRequest::Replace {
        follows: stamp(1, 9),
        delta: crate::rows::replacement(object, stamp(1, 9), gone, Bytes::new()),
        doubt: false,
    }
}

#[test]
fn a_damaged_version_of_a_row_that_was_written_since_goes_if_nobody_has_it() {
    // Seed 3345 of the large worlds of rows: the layer was sealed before the version was given back; one disk had merged
    // its parent before the row was written, and had it, another one after that, and had it not.
    let mut bed = starting(Vec::new());
    let both = state(rows(), vec![chunk(1, 4), chunk(0, 9)]);
    let out = nobody_has(&mut bed, &both);
    let out = with_rows(&mut bed, &out, both);
    assert_eq!(requests(&out), [without(rows(), 1)]);
    let out = bed.stored(&out, Ok(StorageReply::Done));
    assert!(matches!(told(&out)[..], [Progress::Step { .. }]), "{out:?}");
    // And of a front that is older than its row, which is of chunks 0 and 1.
    let mut bed = starting(Vec::new());
    let out = nobody_has(&mut bed, &state(object(), vec![chunk(1, 4)]));
    let out = with_rows(&mut bed, &out, state(rows(), vec![chunk(0, 9)]));
    assert_eq!(requests(&out), [without(object(), 1)]);
}

#[test]
fn a_damaged_chunk_that_somebody_may_need_stays() {
    let older = [
        state(rows(), vec![chunk(1, 9), chunk(0, 4)]),
        // Another row's.
        state(rows(), vec![chunk(1, 4), chunk(2, 9)]),
    ];
    for own in older {
        let mut bed = starting(Vec::new());
        let out = nobody_has(&mut bed, &own);
        let out = with_rows(&mut bed, &out, own);
        assert_eq!(requests(&out), [], "it is what is read");
        assert_eq!(told(&out), [Progress::Rest]);
    }
    // A take-over may find that the newer version is not there.
    let mut bed = starting(vec![(rows(), stamp(1, 9))]);
    let out = nobody_has(&mut bed, &state(rows(), vec![chunk(1, 4), chunk(0, 9)]));
    assert_eq!((requests(&out), told(&out)), (Vec::new(), vec![Progress::Rest]));
}

#[test]
fn what_changed_before_a_chunk_was_taken_away_is_looked_at_again_and_not_for_ever() {
    let mut bed = starting(Vec::new());
    let both = state(rows(), vec![chunk(1, 4), chunk(0, 9)]);
    let out = nobody_has(&mut bed, &both);
    let out = with_rows(&mut bed, &out, both);
    let out = bed.stored(&out, Err(StorageError::Gap(stamp(1, 10))));
    assert_eq!(told(&out), [Progress::Rest]);
    // It was mended meanwhile.
    let look = bed.apply(Event::ScrubStep);
    let verified = Verified {
        state: state(rows(), vec![chunk(1, 10)]),
        blocks: 16,
        damaged: Vec::new(),
    };
    let out = bed.stored(&look, Ok(StorageReply::Verified(verified)));
    let found = |progress: &Progress| matches!(progress, Progress::Found(Finding::Unmended { .. }));
    assert!(!told(&out).iter().any(found), "{out:?}");
}
