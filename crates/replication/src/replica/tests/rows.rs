//! A disk of a group of shards looks after its shards, with a store and other disks that are played by the test.

use protocol::checksum;
use protocol::recovery::{Ask, Told};
use protocol::rows::rows_index;
use protocol::storage::{ChunkState, DamagedChunk, ObjectState, Verified};

use super::*;
use crate::scrub::{Finding, Order, Progress};

const CHUNK_BYTES: usize = 16 * 4096;

fn rows() -> ObjectId {
    ObjectId {
        index: rows_index(0),
        ..object()
    }
}

fn state() -> ObjectState {
    ObjectState {
        object: rows(),
        stamp: stamp(1, 4),
        chunks: vec![ChunkState {
            chunk: 0,
            stamp: stamp(1, 4),
            present: u16::MAX,
            zero: 0,
        }],
    }
}

/// A shard that is all of one byte.
fn shard(fill: u8) -> Bytes {
    Bytes::from(vec![fill; CHUNK_BYTES])
}

fn question(actions: &[Action]) -> Option<(DiskId, u64)> {
    questions(actions).first().copied()
}

/// What is asked of whom, in order.
fn questions(actions: &[Action]) -> Vec<(DiskId, u64)> {
    let question = |action: &Action| match action {
        Action::Question { to, number, .. } => Some((*to, *number)),
        _ => None,
    };
    actions.iter().filter_map(question).collect()
}

/// A deep scrub of disk 1 has found its shard damaged, which was all of `lost`; disks 2 and 3 have what is said of them.
/// Gives what it does then.
fn mended(lost: u8, of_two: Option<u8>, of_three: Option<u8>) -> (Bed, Vec<Action>) {
    let mut bed = Bed::of(Map::encoded());
    let order = Order {
        deep: true,
        ..Order::default()
    };
    bed.apply(Event::Scrub { run: 7, order });
    let list = bed.apply(Event::ScrubStep);
    let objects = vec![state()];
    bed.stored(&list, Ok(StorageReply::Listed { objects, more: false }));
    let look = bed.apply(Event::ScrubStep);
    let damaged = DamagedChunk {
        state: state().chunks.remove(0),
        blocks: 1,
        checksums: checksum::of_blocks(&shard(lost)),
    };
    let verified = Verified {
        state: state(),
        blocks: 16,
        damaged: vec![damaged],
    };
    bed.stored(&look, Ok(StorageReply::Verified(verified)));
    let mut out = Vec::new();
    for _ in 0..2 {
        out = bed.apply(Event::ScrubStep);
        let (disk, number) = question(&out).unwrap();
        let fill = if disk == DiskId(2) { of_two } else { of_three };
        let told = fill.map_or(Err(Refusal::Busy), |fill| {
            let delta = crate::rows::replacement(rows(), state().stamp, state().chunks, shard(fill));
            Ok(Told::Difference { delta, doubt: false })
        });
        out = bed.apply(Event::Told { number, told });
    }
    (bed, out)
}

fn mend(actions: &[Action]) -> Option<(Bytes, usize)> {
    actions.iter().find_map(|action| match action {
        Action::Store {
            request: StorageRequest::Mend { bytes, checksums, .. },
            ..
        } => Some((bytes.clone(), checksums.len())),
        _ => None,
    })
}

#[test]
fn a_damaged_shard_is_made_of_k_others() {
    let (mut bed, out) = mended(6, Some(5), Some(3));
    assert_eq!(mend(&out), Some((shard(6), 16)));
    let out = bed.stored(&out, Ok(StorageReply::Done));
    let found = |action: &Action| {
        let found = Progress::Found(Finding::Mended {
            object: rows(),
            chunk: 0,
            blocks: 1,
            from: DiskId(3),
        });
        matches!(action, Action::Scrubbed { progress, .. } if *progress == found)
    };
    assert!(out.iter().any(found), "{out:?}");
}

#[test]
fn another_disks_shard_is_not_taken_for_ours_and_what_does_not_fit_is_not_stored() {
    // Of copies disk 2 would have what is wanted.
    assert_eq!(mend(&mended(5, Some(5), None).1), None, "one shard is not enough");
    assert_eq!(
        mend(&mended(7, Some(5), Some(3)).1),
        None,
        "it has other checksums than ours had"
    );
}

/// What a deep scrub of disk 1 tells in the end, whose parity is all of `own`, when disks 2 and 3 have data of this version
/// and fill.
fn parity_looked_at(own: u8, of_two: (u64, u8), of_three: (u64, u8)) -> Vec<Progress> {
    let mut map = Map::encoded();
    (map.group.slots[0].shard, map.group.slots[2].shard) = (2, 0);
    let mut bed = Bed::of(map);
    let order = Order {
        deep: true,
        ..Order::default()
    };
    bed.apply(Event::Scrub { run: 7, order });
    let mut told = Vec::new();
    loop {
        let mut out = bed.apply(Event::ScrubStep);
        while let Some(answered) = answer_scrub(&mut bed, &out, own, of_two, of_three) {
            out = answered;
        }
        let step = out.iter().find_map(|action| match action {
            Action::Scrubbed { progress, .. } => Some(progress.clone()),
            _ => None,
        });
        match step {
            Some(Progress::Done) | None => return told,
            Some(step) => told.push(step),
        }
    }
}

/// Answers what a scrub asked of its own store or of another disk; nothing if it asked nothing.
fn answer_scrub(
    bed: &mut Bed,
    out: &[Action],
    own: u8,
    of_two: (u64, u8),
    of_three: (u64, u8),
) -> Option<Vec<Action>> {
    let version = |count: u64, fill: u8| {
        let mut chunks = state().chunks;
        chunks[0].stamp = stamp(1, count);
        crate::rows::replacement(rows(), stamp(1, count), chunks, shard(fill))
    };
    let reply = requests(out).first().map(|request| match request {
        StorageRequest::List { .. } => StorageReply::Listed {
            objects: vec![state()],
            more: false,
        },
        StorageRequest::Verify { .. } => StorageReply::Verified(Verified {
            state: state(),
            blocks: 16,
            damaged: Vec::new(),
        }),
        StorageRequest::Difference { .. } => StorageReply::Delta(version(4, own)),
        other => panic!("{other:?}"),
    });
    if let Some(reply) = reply {
        return Some(bed.stored(out, Ok(reply)));
    }
    let (number, from, ask) = out.iter().find_map(|action| match action {
        Action::Question { to, number, question } => Some((*number, *to, question.ask.clone())),
        _ => None,
    })?;
    let (count, fill) = if from == DiskId(2) { of_two } else { of_three };
    let told = match ask {
        Ask::Difference { .. } => Told::Difference {
            delta: version(count, fill),
            doubt: false,
        },
        _ => Told::Listed {
            objects: vec![state()],
            next: None,
        },
    };
    Some(bed.apply(Event::Told {
        number,
        told: Ok(told),
    }))
}

#[test]
fn parity_that_data_of_its_version_do_not_make_is_told_and_no_other() {
    let wrong = Progress::Found(Finding::ParityDiffers {
        object: rows(),
        chunk: 0,
    });
    let looks = |told: &[Progress]| told.iter().filter(|told| **told == Progress::Rest).count();
    let found = parity_looked_at(7, (4, 5), (4, 3));
    assert!(found.contains(&wrong) && looks(&found) == 1, "{found:?}");
    let right = parity_looked_at(6, (4, 5), (4, 3));
    assert!(!right.contains(&wrong) && looks(&right) == 0, "{right:?}");
    let compared = Progress::Step {
        objects: 0,
        blocks: 16,
    };
    assert_eq!(
        right.iter().filter(|told| **told == compared).count(),
        2,
        "verified, and compared"
    );
    // A write is on its way: data of another version say nothing.
    let written = parity_looked_at(7, (4, 5), (5, 3));
    assert!(!written.contains(&wrong) && looks(&written) == 0, "{written:?}");
}

fn requests(actions: &[Action]) -> Vec<StorageRequest> {
    let request = |action: &Action| match action {
        Action::Store { request, .. } => Some(request.clone()),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

#[test]
fn what_is_here_from_before_the_slot_was_given_goes_before_anything_is_asked() {
    // It had shard 2 until interval 2, was off, and has shard 0 since interval 3.
    let mut map = Map::encoded();
    map.group.interval = Interval(4);
    (map.group.slots[0].state, map.group.slots[0].arrived) = (SlotState::Syncing, Interval(3));
    let remembered = Remembered {
        intervals: vec![(PG, Interval(2))],
        ..Remembered::default()
    };
    let mut bed = Bed::of(Map::encoded());
    let mut out = Vec::new();
    bed.replica = Replica::new(DiskId(1), remembered, Arc::new(map), &mut out);
    let nudge = || Event::Nudge { returns: false };

    assert_eq!(requests(&out), [StorageRequest::RaiseInterval(PG, Interval(3))]);
    bed.stored(&out, Ok(StorageReply::Done));
    let mut out = bed.apply(nudge());
    // It looks for groups that it lost, too.
    out.retain(|action| {
        matches!(
            action,
            Action::Store {
                request: StorageRequest::List { limit: 256, .. },
                ..
            }
        )
    });
    let objects = vec![state()];
    let out = bed.stored(&out, Ok(StorageReply::Listed { objects, more: false }));
    assert_eq!(requests(&out), [StorageRequest::Drop(rows())]);
    assert_eq!(question(&out), None);
    let out = bed.stored(&out, Ok(StorageReply::Done));
    assert_eq!(requests(&out), [StorageRequest::RaiseInterval(PG, Interval(4))]);
    bed.stored(&out, Ok(StorageReply::Done));
    let out = bed.apply(nudge());
    assert!(
        question(&out).is_some(),
        "now it comes back as an empty disk does: {out:?}"
    );
}

impl Bed {
    /// A source was asked for its generations, told them, and then told all that it has of the group.
    fn listed_by_source(&mut self, table: &[Action], objects: Vec<ObjectState>) -> Vec<Action> {
        let (_, number) = question(table).unwrap();
        let generations = Told::Table(vec![(VOLUME, Generation(1), true)]);
        let out = self.apply(Event::Told {
            number,
            told: Ok(generations),
        });
        // What is known durably need not be stored before it asks on.
        let out = if question(&out).is_some() {
            out
        } else {
            self.all_stored(out)
        };
        let (_, number) = question(&out).unwrap();
        let page = Told::Listed { objects, next: None };
        self.apply(Event::Told {
            number,
            told: Ok(page),
        })
    }
}

/// Defect guarded (encoded worlds of the simulator, seed 439): a source refused while our own store was still looking at a
/// column of rows, and its answer was taken for that of the front that was looked at next. The front's source has no such
/// rows, so its shard was copied over ours.
#[test]
fn what_our_store_tells_of_a_column_that_was_given_up_is_not_taken_for_the_next_ones() {
    let mut bed = Bed::of(Map::encoded());
    bed.map.group.interval = Interval(2);
    bed.map.group.slots[0].state = SlotState::Joining;
    let table = bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let rows_first = bed.listed_by_source(&table, vec![state()]);
    for (_, number) in questions(&rows_first) {
        bed.apply(Event::Told {
            number,
            told: Err(Refusal::Busy),
        });
    }
    let table = bed.apply(Event::Nudge { returns: false });
    let front = ObjectState {
        object: object(),
        ..state()
    };
    bed.listed_by_source(&table, vec![front]);
    let objects = vec![state()];
    let late = bed.stored(&rows_first, Ok(StorageReply::Listed { objects, more: false }));
    assert_eq!((questions(&late), requests(&late)), (Vec::new(), Vec::new()));
}

#[test]
fn what_sources_told_before_a_layer_was_sealed_takes_nothing_away_that_was_written_at_the_last_moment() {
    // Found by the simulator (rows, seed 158): disk 2 told of its column before it had the last row, the layer was sealed,
    // and the comparison took the row's chunk away here, for nobody may write to a sealed layer: reads gave zeros.
    let mut bed = Bed::of(Map::encoded());
    bed.map.group.interval = Interval(2);
    bed.map.group.slots[0].state = SlotState::Joining;
    let table = bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let out = bed.listed_by_source(&table, vec![state()]);
    let asked = questions(&out);
    assert_eq!(asked.len(), 2, "k sources: {out:?}");

    let before = ObjectState {
        stamp: stamp(1, 3),
        chunks: Vec::new(),
        ..state()
    };
    let column = |objects| Told::Listed { objects, next: None };
    bed.apply(Event::Told {
        number: asked[0].1,
        told: Ok(column(vec![before])),
    });
    let sealed = bed.map.sealed(protocol::map::LayerUse::Sealed);
    bed.apply(Event::Map(Arc::new(sealed)));
    bed.apply(Event::Told {
        number: asked[1].1,
        told: Ok(column(vec![state()])),
    });
    let objects = vec![state()];
    let out = bed.stored(&out, Ok(StorageReply::Listed { objects, more: false }));
    let asks_again = |action: &&Action| {
        let Action::Question { question, .. } = action else {
            return false;
        };
        matches!(question.ask, Ask::Column { .. })
    };
    assert_eq!(out.iter().filter(asks_again).count(), 2, "{out:?}");
}
