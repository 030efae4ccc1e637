//! What a disk that comes back takes of rows, and from what it makes its shards of them.
use protocol::storage::ObjectState;
use protocol::{Generation, profile::Profile};

use super::super::shards::CHUNK_BYTES;
use super::*;
use crate::samples::{Parity, chunk, object, stamp};

const A: DiskId = DiskId(1);
const B: DiskId = DiskId(2);

fn column(layer: u64, count: u64, chunks: &[(u8, u64)]) -> Vec<ObjectState> {
    vec![ObjectState {
        object: object(layer),
        stamp: stamp(count),
        chunks: chunks
            .iter()
            .map(|(number, count)| chunk(*number, *count, u16::MAX))
            .collect(),
    }]
}

/// Disk 3 with shard 2 of a pool 2+1, its sources with shards 0 and 1.
fn rebuilding(of_a: Vec<ObjectState>, of_b: Vec<ObjectState>, own: Vec<ObjectState>) -> Rebuilding {
    let shape = Rows::new(Profile::new(2, 1).unwrap());
    let mut rebuilding = Rebuilding::new(shape, object(0), 2, A, [(A, 0), (B, 1)].into_iter());
    rebuilding.column(A, of_a);
    assert!(!rebuilding.is_known());
    rebuilding.column(B, of_b);
    rebuilding.own(own);
    assert!(rebuilding.is_known());
    rebuilding
}

fn plan(rebuilding: &mut Rebuilding) {
    rebuilding.plan(
        |layer| layer == LayerId(1),
        |_, at| at.generation == Generation(1),
    );
}

/// What a source sends of these chunks, each filled with one byte.
fn sent(layer: u64, count: u64, chunks: &[(u8, u64)], fill: u8) -> ObjectDelta {
    let states: Vec<ChunkState> = chunks
        .iter()
        .map(|(number, count)| chunk(*number, *count, u16::MAX))
        .collect();
    let bytes = Bytes::from(vec![fill; states.len() * CHUNK_BYTES]);
    replacement(object(layer), stamp(count), states, bytes)
}

fn wanted(rebuilding: &Rebuilding) -> Vec<(u8, u64)> {
    let change = rebuilding.next();
    let wanted = change.into_iter().flat_map(|change| &change.wanted);
    wanted.map(|(number, at)| (*number, at.count)).collect()
}

#[test]
fn a_shard_is_made_of_k_others() {
    let both = [(0, 4)];
    let mut rebuilding = rebuilding(column(1, 4, &both), column(1, 4, &both), Vec::new());
    plan(&mut rebuilding);
    let wishes = rebuilding.wishes();
    assert_eq!(wishes.len(), 2, "each of k is asked: {wishes:?}");
    rebuilding.sent(A, &sent(1, 4, &both, 5), false);
    assert_eq!(rebuilding.delta(&Parity), None, "one shard is not enough");
    rebuilding.sent(B, &sent(1, 4, &both, 3), true);
    let (delta, doubt) = rebuilding.delta(&Parity).unwrap();
    assert!(doubt, "W2: it is in doubt if it is at one of them");
    assert_eq!((delta.stamp, delta.chunks.len()), (stamp(4), 1));
    assert!(delta.bytes.iter().all(|byte| *byte == 6));
    rebuilding.stored();
    assert_eq!(rebuilding.next(), None);
}

#[test]
fn a_version_that_may_not_be_complete_comes_with_the_one_before_it() {
    // W8: if two of three had the newer one only, and the third had missed it, a take-over that finds disk 3 and that third
    // one would find no version of which there are k shards.
    let both = [(0, 3), (1, 4)];
    let mut rebuilding = rebuilding(column(1, 4, &both), column(1, 4, &both), Vec::new());
    plan(&mut rebuilding);
    assert_eq!(wanted(&rebuilding), both);
}

#[test]
fn sources_may_stand_at_different_stamps() {
    // Disk 1 has had a write that disk 2 has not: it went to the row's other place, and comes here as a write.
    let (ahead, behind) = (column(1, 5, &[(0, 4), (1, 5)]), column(1, 4, &[(0, 4)]));
    let mut rebuilding = rebuilding(ahead, behind, Vec::new());
    plan(&mut rebuilding);
    assert_eq!(wanted(&rebuilding), [(0, 4)]);
    assert_eq!(rebuilding.next().unwrap().stamp, stamp(4), "as far as both are");
}

#[test]
fn what_was_confirmed_here_stays_and_a_dead_branch_goes() {
    let theirs = || column(1, 4, &[(0, 4)]);
    let mut newer = rebuilding(theirs(), theirs(), column(1, 5, &[(0, 4), (1, 5)]));
    plan(&mut newer);
    assert_eq!(newer.next(), None, "W1");
    let mut own = column(1, 5, &[(0, 4), (1, 5)]);
    let dead = Stamp {
        generation: Generation(0),
        count: 9,
    };
    (own[0].stamp, own[0].chunks[1].stamp) = (stamp(4), dead);
    let mut dead = rebuilding(theirs(), theirs(), own);
    plan(&mut dead);
    let (delta, _) = dead.delta(&Parity).unwrap();
    assert_eq!(delta.chunks, [absent(1).unwrap()], "V3");
}

#[test]
fn a_source_that_has_merged_a_layer_is_asked_for_what_it_has_where_it_has_it() {
    // Disk 2 has merged layer 0 into layer 1 already.
    let mut unmerged = column(0, 3, &[(0, 3)]);
    unmerged.extend(column(1, 4, &[(2, 4)]));
    let merged = column(1, 4, &[(0, 3), (2, 4)]);
    let mut rebuilding = rebuilding(unmerged, merged, Vec::new());
    plan(&mut rebuilding);
    assert_eq!(wanted(&rebuilding), [(2, 4)], "what is newest comes first");
    rebuilding.stored();
    assert_eq!(wanted(&rebuilding), [(0, 3)]);
    let wishes = rebuilding.wishes();
    let asked: Vec<(DiskId, LayerId)> = wishes
        .iter()
        .map(|(disk, object, _)| (*disk, object.layer))
        .collect();
    assert_eq!(asked, [(A, LayerId(0)), (B, LayerId(1))]);
    assert_eq!(wishes[1].2, [chunk(2, 4, u16::MAX)], "the rest need not be sent");
}

#[test]
fn a_row_of_zeros_has_no_bytes() {
    let zero = |layer, count| {
        let mut column = column(layer, count, &[(0, count)]);
        column[0].chunks[0].zero = u16::MAX;
        column
    };
    let mut rebuilding = rebuilding(zero(1, 4), zero(1, 4), Vec::new());
    plan(&mut rebuilding);
    for disk in [A, B] {
        let mut delta = sent(1, 4, &[(0, 4)], 0);
        (delta.chunks[0].zero, delta.bytes) = (u16::MAX, Bytes::new());
        rebuilding.sent(disk, &delta, false);
    }
    let (delta, doubt) = rebuilding.delta(&Parity).unwrap();
    assert!(delta.bytes.is_empty() && !doubt);
    assert_eq!(delta.chunks[0].zero, u16::MAX);
}

#[test]
fn what_has_gone_at_a_source_meanwhile_is_looked_at_again() {
    let both = [(0, 4)];
    let mut rebuilding = rebuilding(column(1, 4, &both), column(1, 4, &both), Vec::new());
    plan(&mut rebuilding);
    rebuilding.sent(A, &sent(1, 4, &both, 5), false);
    rebuilding.sent(B, &sent(1, 6, &[(0, 6)], 3), false);
    assert_eq!(rebuilding.delta(&Parity), None);
}

#[test]
fn what_a_merge_left_empty_goes_if_the_sources_have_nothing_of_it() {
    // As of fronts, seed 5836 of the large worlds of rows.
    let theirs = || column(1, 4, &[(0, 4)]);
    let mut own = column(0, 0, &[]);
    own[0].stamp = Stamp::ZERO;
    own.extend(theirs());
    let mut rebuilding = rebuilding(theirs(), theirs(), own);
    plan(&mut rebuilding);
    assert_eq!(rebuilding.wishes(), [], "nobody has anything of it");
    let (delta, doubt) = rebuilding.delta(&Parity).unwrap();
    assert_eq!((delta.object, delta.stamp), (object(0), Stamp::ZERO));
    assert!(delta.chunks.is_empty() && !doubt);
    rebuilding.stored();
    assert_eq!(rebuilding.next(), None);
}
