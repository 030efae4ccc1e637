//! A disk comes back: the counterexamples of the reviews, with a source that is played by the test.

use protocol::storage::{ChunkState, ObjectState};

use super::*;
use protocol::recovery::{Ask, Question, Told};

const SOURCE: DiskId = DiskId(2);

/// What a disk asked its source last.
fn asked(actions: &[Action]) -> (u64, Ask) {
    let question = |action: &Action| match action {
        Action::Question { number, question, .. } => Some((*number, question.ask.clone())),
        _ => None,
    };
    actions.iter().rev().find_map(question).unwrap()
}

fn proposal(actions: &[Action]) -> Option<(SlotState, SlotState)> {
    actions.iter().find_map(|action| match action {
        Action::Propose { from, to, .. } => Some((*from, *to)),
        _ => None,
    })
}

fn replacement(actions: &[Action]) -> Option<(Stamp, Stamp, bool)> {
    actions.iter().find_map(|action| match action {
        Action::Store {
            request:
                StorageRequest::Replace {
                    follows,
                    delta,
                    doubt,
                },
            ..
        } => Some((*follows, delta.stamp, *doubt)),
        _ => None,
    })
}

fn state(at: Stamp) -> ObjectState {
    let chunk = ChunkState {
        chunk: 0,
        stamp: at,
        present: 1,
        zero: 1,
    };
    ObjectState {
        object: object(),
        stamp: at,
        chunks: vec![chunk],
    }
}

fn listed(objects: Vec<ObjectState>) -> StorageReply {
    StorageReply::Listed { objects, more: false }
}

fn difference(at: Stamp, doubt: bool) -> Told {
    let delta = ObjectDelta {
        object: object(),
        stamp: at,
        merged: Vec::new(),
        chunks: state(at).chunks,
        checksums: Arc::from([]),
        bytes: Bytes::new(),
    };
    Told::Difference { delta, doubt }
}

impl Bed {
    /// A disk in this state, which knows this generation of the volume, and asked for the source's table.
    fn returning(state: SlotState, generation: u64) -> (Self, Vec<Action>) {
        let mut bed = if generation == 0 {
            Self::new()
        } else {
            Self::fenced(generation)
        };
        bed.map.group.interval = Interval(2);
        bed.map.group.slots[0].state = state;
        let map = Arc::new(bed.map.clone());
        let out = bed.apply(Event::Map(map));
        (bed, out)
    }

    fn told(&mut self, question: &[Action], told: Told) -> Vec<Action> {
        let (number, _) = asked(question);
        self.apply(Event::Told {
            number,
            told: Ok(told),
        })
    }

    /// The store does all of these and what follows from them at once; the answer is what does not concern it.
    pub(super) fn all_stored(&mut self, mut out: Vec<Action>) -> Vec<Action> {
        while let Some(token) = tokens(&out).first().copied() {
            out.retain(|action| !matches!(action, Action::Store { token: done, .. } if *done == token));
            let result = Ok(StorageReply::Done);
            out.extend(self.apply(Event::Stored { token, result }));
        }
        out
    }

    /// As far as the comparison of the object, which is at these stamps at the source and here.
    fn compared(&mut self, table: &[Action], generation: u64, source: Stamp, own: Stamp) -> Vec<Action> {
        let known = Told::Table(vec![(VOLUME, Generation(generation), false)]);
        let out = self.told(table, known);
        let out = self.all_stored(out);
        assert_eq!(asked(&out).1, Ask::List { after: None });
        let page = Told::Listed {
            objects: vec![state(source)],
            next: None,
        };
        let out = self.told(&out, page);
        self.stored(&out, Ok(listed(vec![state(own)])))
    }
}

#[test]
fn a_disk_that_is_down_asks_to_come_back_with_the_next_nudge() {
    let (mut bed, out) = Bed::returning(SlotState::Down, 0);
    assert!(out.is_empty());
    let out = bed.apply(Event::Nudge { returns: true });
    assert_eq!(proposal(&out), Some((SlotState::Down, SlotState::Syncing)));
    assert!(
        bed.apply(Event::Nudge { returns: true }).is_empty(),
        "one wish at a time"
    );
}

#[test]
fn nothing_is_compared_before_the_sources_generations_are_durable_here() {
    // V3: else a late write of a dead owner would come in after the comparison.
    let (mut bed, table) = Bed::returning(SlotState::Syncing, 0);
    let out = bed.told(&table, Told::Table(vec![(VOLUME, Generation(3), false)]));
    assert!(!out.iter().any(|action| matches!(action, Action::Question { .. })));
    let out = bed.stored(&out, Ok(StorageReply::Done));
    assert_eq!(asked(&out).1, Ask::List { after: None });
}

#[test]
fn what_is_equal_is_not_copied_and_little_behind_is_joined() {
    let (mut bed, table) = Bed::returning(SlotState::Syncing, 3);
    let at = stamp(3, 4);
    let out = bed.compared(&table, 3, at, at);
    let out = bed.stored(&out, Ok(listed(vec![state(at)])));
    assert_eq!(proposal(&out), Some((SlotState::Syncing, SlotState::Joining)));
}

#[test]
fn what_a_dead_owner_wrote_here_alone_goes() {
    // V3: it is higher than at the source, and of no current generation.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 2);
    let out = bed.compared(&table, 3, stamp(1, 1), stamp(2, 7));
    assert!(matches!(asked(&out).1, Ask::Difference { .. }));
    let out = bed.told(&out, difference(stamp(1, 1), false));
    assert_eq!(replacement(&out), Some((stamp(2, 7), stamp(1, 1), false)));
}

#[test]
fn what_was_confirmed_to_the_present_owner_stays() {
    // W1: the owner counts our ok; the source has the write on its way.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let out = bed.compared(&table, 3, stamp(3, 1), stamp(3, 2));
    assert!(!out.iter().any(|action| matches!(action, Action::Question { .. })));
}

#[test]
fn what_stays_gets_the_blocks_of_a_parent_that_the_source_has_merged() {
    // Seed 3116 of its time: it stayed without them, and the parent went.
    let part = |layer, at, present| {
        let mut state = state(at);
        state.object.layer = LayerId(layer);
        (state.chunks[0].present, state.chunks[0].zero) = (present, present);
        state
    };
    let delta = |state: ObjectState| ObjectDelta {
        object: state.object,
        stamp: state.stamp,
        merged: Vec::new(),
        chunks: state.chunks,
        checksums: Arc::from([]),
        bytes: Bytes::new(),
    };
    let (theirs, ours) = (part(1, stamp(3, 1), 0b11), part(1, stamp(3, 2), 0b01));
    let parent = part(0, stamp(2, 9), 0b10);
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let out = bed.told(&table, Told::Table(vec![(VOLUME, Generation(3), false)]));
    let out = bed.all_stored(out);
    let (objects, next) = (vec![theirs.clone()], None);
    let out = bed.told(&out, Told::Listed { objects, next });
    let out = bed.stored(&out, Ok(listed(vec![parent.clone(), ours.clone()])));
    let (object, have) = (ours.object, Vec::new());
    assert_eq!(asked(&out).1, Ask::Difference { object, have });
    let told = Told::Difference {
        delta: delta(theirs),
        doubt: false,
    };
    let out = bed.told(&out, told);
    let out = bed.stored(&out, Ok(StorageReply::Delta(delta(ours))));
    assert_eq!(replacement(&out), Some((stamp(3, 2), stamp(3, 2), false)));
    let whole = |action: &Action| match action {
        Action::Store {
            request: StorageRequest::Replace { delta, .. },
            ..
        } => Some(delta.chunks[0].present),
        _ => None,
    };
    assert_eq!(out.iter().find_map(whole), Some(0b11));
    // And only then the parent goes.
    let out = bed.stored(&out, Ok(StorageReply::Done));
    let (object, have) = (parent.object, parent.chunks);
    assert_eq!(asked(&out).1, Ask::Difference { object, have });
}

#[test]
fn an_answer_that_is_older_than_what_came_meanwhile_changes_nothing() {
    // W1 again: what was behind when it was compared is not any more, and the store says so.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let out = bed.compared(&table, 3, stamp(3, 2), stamp(3, 1));
    let out = bed.told(&out, difference(stamp(3, 2), true));
    let out = bed.stored(&out, Err(StorageError::Gap(stamp(3, 2))));
    assert!(matches!(asked(&out).1, Ask::Column { .. }), "looked at again");
}

#[test]
fn a_copy_of_what_is_in_doubt_at_the_source_is_in_doubt() {
    // W2: else the source may be evicted, and nobody would level what only the copy has.
    let (mut bed, table) = Bed::returning(SlotState::Syncing, 3);
    let out = bed.compared(&table, 3, stamp(3, 2), stamp(3, 1));
    let out = bed.told(&out, difference(stamp(3, 2), true));
    assert_eq!(replacement(&out), Some((stamp(3, 1), stamp(3, 2), true)));
    bed.stored(&out, Ok(StorageReply::Done));
    assert_eq!(bed.replica.in_doubt(), 1);
}

#[test]
fn an_object_that_is_being_copied_keeps_its_stamp_until_all_of_it_is_here() {
    // W6: one durable step, so that no restart leaves another's bytes under our stamp.
    let (mut bed, table) = Bed::returning(SlotState::Syncing, 3);
    let out = bed.compared(&table, 3, stamp(3, 2), stamp(3, 1));
    let out = bed.told(&out, difference(stamp(3, 2), false));
    assert_eq!(tokens(&out).len(), 1);
    assert_eq!(replacement(&out), Some((stamp(3, 1), stamp(3, 2), false)));
}

#[test]
fn a_list_from_before_a_fence_promotes_nobody() {
    // V4, V5, W7: the owner may level what was compared.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let at = stamp(3, 4);
    let out = bed.compared(&table, 3, at, at);
    let fence = bed.request(bed.fence(4));
    bed.all_stored(fence);
    let end = bed.stored(&out, Ok(listed(vec![state(at)])));
    assert_eq!(proposal(&end), None);
    // It serves: all is listed again.
    let complete = Request::Complete {
        scope: bed.scope(4),
        up_to: 0,
    };
    let out = bed.request(complete);
    assert_eq!(asked(&out).1, Ask::List { after: None });
}

#[test]
fn a_write_that_finds_its_object_behind_waits_for_the_copy_and_never_the_copy_for_it() {
    // P3.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let raise = bed.request(bed.write(stamp(3, 5), stamp(3, 6)));
    let write = bed.stored(&raise, Ok(StorageReply::Done));
    let out = bed.stored(&write, Err(StorageError::Gap(stamp(3, 1))));
    assert!(responses(&out).is_empty());
    let out = bed.told(&table, Told::Table(Vec::new()));
    let out = bed.all_stored(out);
    assert!(matches!(asked(&out).1, Ask::Column { .. }), "before all others");
    let column = Told::Listed {
        objects: vec![state(stamp(3, 6))],
        next: None,
    };
    let out = bed.told(&out, column);
    let out = bed.stored(&out, Ok(listed(vec![state(stamp(3, 1))])));
    let out = bed.told(&out, difference(stamp(3, 6), true));
    let out = bed.stored(&out, Ok(StorageReply::Done));
    let out = bed.stored(&out, Err(StorageError::Gap(stamp(3, 6))));
    assert_eq!(responses(&out), [Response::Ok]);
}

#[test]
fn nothing_is_served_while_a_swap_of_our_own_state_is_under_way() {
    // P9: a fence that is answered now would be of an interval that may be over.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let at = stamp(3, 4);
    let out = bed.compared(&table, 3, at, at);
    let out = bed.stored(&out, Ok(listed(vec![state(at)])));
    assert_eq!(proposal(&out), Some((SlotState::Joining, SlotState::InSync)));
    let out = bed.request(bed.fence(4));
    assert_eq!(responses(&out), refused(Refusal::Busy));
}

#[test]
fn a_joining_disk_that_restarts_begins_as_syncing() {
    // V10, W7: it may have answered a fence that it does not know of any more.
    let mut map = Map::new();
    map.group.slots[0].state = SlotState::Joining;
    let remembered = Remembered {
        intervals: vec![(PG, map.group.interval)],
        ..Remembered::default()
    };
    let mut out = Vec::new();
    Replica::new(DiskId(1), remembered, Arc::new(map), &mut out);
    assert_eq!(proposal(&out), Some((SlotState::Joining, SlotState::Syncing)));
}

#[test]
fn a_joining_disk_compares_nothing_before_it_would_know_after_a_restart_that_it_was_joining() {
    // The model found it: a disk that nobody asked anything asks to be in sync, restarts, does not know that it was
    // joining in this interval, and answers a fence; then the swap that it asked for arrives.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let out = bed.told(&table, Told::Table(vec![(VOLUME, Generation(3), false)]));
    assert!(!out.iter().any(|action| matches!(action, Action::Question { .. })));
    let raises = |action: &Action| {
        matches!(
            action,
            Action::Store {
                request: StorageRequest::RaiseInterval(PG, Interval(2)),
                ..
            }
        )
    };
    assert!(out.iter().any(raises), "{out:?}");
    let out = bed.stored(&out, Ok(StorageReply::Done));
    assert_eq!(asked(&out).1, Ask::List { after: None });
}

#[test]
fn a_source_answers_only_in_its_own_interval_and_only_who_comes_back() {
    let mut bed = Bed::fenced(1);
    let ask = |interval, from| Event::Question {
        from,
        number: 1,
        question: Question {
            pg: PG,
            interval,
            from,
            ask: Ask::Table,
        },
    };
    let told = |out: &[Action]| match &out[0] {
        Action::Tell { told, .. } => told.clone(),
        other => panic!("{other:?}"),
    };
    let out = bed.apply(ask(Interval(0), SOURCE));
    assert_eq!(told(&out), Err(Refusal::Interval(Interval(1))));
    let out = bed.apply(ask(Interval(1), SOURCE));
    assert_eq!(told(&out), Err(Refusal::NotInSync), "it is in sync itself");
}

#[test]
fn a_question_waits_for_the_map_that_it_is_of_and_until_its_interval_is_durable() {
    // Refused, it would come again with the next nudge only, in each interval of each group.
    let mut bed = Bed::fenced(1);
    let question = Question {
        pg: PG,
        interval: Interval(2),
        from: SOURCE,
        ask: Ask::Table,
    };
    let out = bed.apply(Event::Question {
        from: SOURCE,
        number: 7,
        question,
    });
    assert!(out.is_empty(), "{out:?}");
    bed.map.group.interval = Interval(2);
    let source = bed.map.group.slots.iter_mut().find(|slot| slot.disk == SOURCE);
    source.unwrap().state = SlotState::Syncing;
    let out = bed.apply(Event::Map(Arc::new(bed.map.clone())));
    assert!(
        !out.iter().any(|action| matches!(action, Action::Tell { .. })),
        "{out:?}"
    );
    let out = bed.stored(&out, Ok(StorageReply::Done));
    let table = |action: &Action| {
        matches!(
            action,
            Action::Tell {
                number: 7,
                told: Ok(Told::Table(_)),
                ..
            }
        )
    };
    assert!(out.iter().any(table), "{out:?}");
}

#[test]
fn a_disk_that_waits_too_long_for_an_owner_to_serve_begins_anew() {
    // That owner died before it served: no other one says so, and a joining disk holds up writes.
    let (mut bed, table) = Bed::returning(SlotState::Joining, 3);
    let at = stamp(3, 4);
    let out = bed.compared(&table, 3, at, at);
    let fence = bed.request(bed.fence(4));
    bed.all_stored(fence);
    assert_eq!(proposal(&bed.stored(&out, Ok(listed(vec![state(at)])))), None);
    let patience = 1_000;
    let given_up = (0..patience).find_map(|_| proposal(&bed.apply(Event::Nudge { returns: true })));
    assert_eq!(given_up, Some((SlotState::Joining, SlotState::Syncing)));
}
