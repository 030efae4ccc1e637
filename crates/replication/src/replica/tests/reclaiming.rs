//! What is merged and dropped when, and what is not any more.

use protocol::recovery::{Ask, Question, Told};

use super::*;

const OTHER: DiskId = DiskId(2);
const BUSY: Result<(), StorageError> = Err(StorageError::Busy);

fn reclaimed(actions: &[Action]) -> Vec<(u64, Result<(), StorageError>)> {
    let answer = |action: &Action| match action {
        Action::Reclaimed { token, result } => Some((*token, result.clone())),
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

impl Bed {
    /// A disk whose map has layer 2 as the head, and wants layer 1 merged into it.
    pub(super) fn merging() -> Self {
        let mut bed = Self::fenced(1);
        bed.head_is(2);
        bed
    }

    fn head_is(&mut self, head: u64) -> Vec<Action> {
        self.map = self.map.sealed(LayerUse::Inner);
        self.map.head = LayerId(head);
        self.apply(Event::Map(Arc::new(self.map.clone())))
    }

    pub(super) fn reclaim(&mut self, token: u64, request: StorageRequest) -> Vec<Action> {
        self.apply(Event::Reclaim { token, request })
    }

    fn slot_is(&mut self, state: SlotState) -> Vec<Action> {
        self.map.group.slots[1].state = state;
        self.map.group.interval.0 += 1;
        self.apply(Event::Map(Arc::new(self.map.clone())))
    }
}

#[test]
fn a_merge_that_the_map_does_not_want_any_more_is_not_done() {
    // Seed 5600 of its time: a merge came so late that its child was merged away itself; it made the child anew, and
    // what the parent had was nobody's any more.
    let mut bed = Bed::merging();
    bed.head_is(3);
    assert_eq!(reclaimed(&bed.reclaim(1, merge(1, 2))), [(1, BUSY)]);
    assert_eq!(tokens(&bed.reclaim(2, merge(1, 3))).len(), 1);
}

#[test]
fn a_merge_that_waits_is_looked_at_again_when_it_is_to_be_done() {
    let mut bed = Bed::merging();
    assert!(
        bed.reclaim(1, merge(2, 3)).is_empty(),
        "the layer is a head still"
    );
    assert_eq!(reclaimed(&bed.head_is(4)), [(1, BUSY)]);
}

#[test]
fn a_layer_goes_only_when_what_is_merged_into_it_is_there() {
    let mut bed = Bed::merging();
    let first = bed.reclaim(1, merge(1, 2));
    bed.head_is(3);
    assert!(bed.reclaim(2, merge(2, 3)).is_empty());
    let out = bed.stored(&first, Ok(StorageReply::Done));
    assert_eq!(reclaimed(&out), [(1, Ok(()))]);
    assert_eq!(tokens(&out).len(), 1);
}

#[test]
fn a_layer_goes_only_when_the_writes_to_it_that_the_store_works_on_are_done() {
    // Else they would make it anew, and nobody would look for it any more.
    let mut bed = Bed::fenced(1);
    let write = bed.request(bed.write(Stamp::ZERO, stamp(1, 1)));
    bed.head_is(2);
    assert!(bed.reclaim(1, StorageRequest::Drop(object())).is_empty());
    let out = bed.stored(&write, Ok(StorageReply::Done));
    assert_eq!(tokens(&out).len(), 1);
}

#[test]
fn nothing_is_merged_or_dropped_while_a_disk_comes_back() {
    let mut bed = Bed::merging();
    bed.slot_is(SlotState::Syncing);
    assert_eq!(reclaimed(&bed.reclaim(1, merge(1, 2))), [(1, BUSY)]);
    assert_eq!(
        reclaimed(&bed.reclaim(2, StorageRequest::Drop(object()))),
        [(2, BUSY)]
    );
    bed.slot_is(SlotState::Down);
    assert_eq!(tokens(&bed.reclaim(3, merge(1, 2))).len(), 1);
}

#[test]
fn who_comes_back_is_answered_when_the_merges_of_before_are_done() {
    let mut bed = Bed::merging();
    let merging = bed.reclaim(1, merge(1, 2));
    bed.slot_is(SlotState::Syncing);
    let question = Question {
        pg: PG,
        interval: bed.map.group.interval,
        from: OTHER,
        ask: Ask::Table,
    };
    let out = bed.apply(Event::Question {
        from: OTHER,
        number: 7,
        question,
    });
    assert!(out.is_empty(), "{out:?}");
    let out = bed.stored(&merging, Ok(StorageReply::Done));
    let raise: Vec<Action> = out
        .into_iter()
        .filter(|action| matches!(action, Action::Store { .. }))
        .collect();
    let out = bed.stored(&raise, Ok(StorageReply::Done));
    let table = |action: &Action| {
        matches!(
            action,
            Action::Tell {
                told: Ok(Told::Table(_)),
                ..
            }
        )
    };
    assert!(out.iter().any(table), "{out:?}");
}

#[test]
fn who_comes_back_compares_when_its_own_merges_of_before_are_done() {
    let mut bed = Bed::merging();
    let merging = bed.reclaim(1, merge(1, 2));
    bed.map.group.slots[0].state = SlotState::Syncing;
    bed.map.group.interval.0 += 1;
    let asks = |action: &Action| matches!(action, Action::Question { .. });
    let out = bed.apply(Event::Map(Arc::new(bed.map.clone())));
    assert!(!out.iter().any(asks), "{out:?}");
    let out = bed.stored(&merging, Ok(StorageReply::Done));
    assert!(out.iter().any(asks), "{out:?}");
}

/// A write to the rows of the layer that the first one is merged into.
pub(super) fn row(follows: Stamp, at: Stamp) -> Request {
    let Request::Write { scope, mut write } = Bed::merging().write(follows, at) else {
        panic!("it is a write");
    };
    write.object.index = protocol::rows::rows_index(0);
    write.object.layer = LayerId(2);
    Request::Write { scope, write }
}

/// A merge in a pool that encodes rows of four chunks.
pub(super) fn merge_over_rows(parent: u64, child: u64) -> StorageRequest {
    let StorageRequest::Merge {
        family,
        index,
        parent,
        child,
        ..
    } = merge(parent, child)
    else {
        panic!("it is a merge");
    };
    StorageRequest::Merge {
        family,
        index,
        parent,
        child,
        row_chunks: Some(4),
    }
}

#[test]
fn a_front_is_not_merged_over_a_row_that_may_not_be_there_and_its_rows_stay_meanwhile() {
    // Seed 24 of the small worlds: what a row makes old was left out, and then the row was on too few of its disks.
    let mut bed = Bed::merging();
    let written = bed.request(row(Stamp::ZERO, stamp(1, 1)));
    bed.stored(&written, Ok(StorageReply::Done));
    assert!(tokens(&bed.reclaim(1, merge_over_rows(1, 2))).is_empty());
    let complete = Request::Complete {
        scope: bed.scope(1),
        up_to: 1,
    };
    let out = bed.request(complete);
    let merged = |action: &&Action| {
        matches!(
            action,
            Action::Store {
                request: StorageRequest::Merge { .. },
                ..
            }
        )
    };
    let merge: Vec<Action> = out.iter().filter(merged).cloned().collect();
    assert_eq!(merge.len(), 1, "{out:?}");
    // The next row waits for the end of the merge, which goes by what there was at its beginning.
    assert!(tokens(&bed.request(row(stamp(1, 1), stamp(1, 2)))).is_empty());
    assert_eq!(tokens(&bed.stored(&merge, Ok(StorageReply::Done))).len(), 1);
}

#[test]
fn more_merges_than_anybody_needs_at_once_are_told_to_come_later() {
    // Seed 137 of the large worlds of rows, of its time: a disk 900 times slower was asked again and again, and spent a minute
    // comparing what it was asked with each other.
    let mut bed = Bed::merging();
    bed.head_is(3);
    for token in 0..64 {
        assert!(
            bed.reclaim(token, merge(3, 4)).is_empty(),
            "the layer is a head still"
        );
    }
    assert_eq!(reclaimed(&bed.reclaim(64, merge(1, 3))), [(64, BUSY)]);
}
