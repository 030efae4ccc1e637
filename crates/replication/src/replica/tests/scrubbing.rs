//! A disk looks after its copies, with a store and other disks that are played by the test.

use protocol::recovery::{Ask, Question, Told};
use protocol::storage::{ChunkState, DamagedChunk, ObjectState, Verified};

use super::*;
use crate::scrub::{Finding, Order, Progress, Reason};

const OTHER: DiskId = DiskId(2);
const RUN: u64 = 7;

fn chunk(at: Stamp) -> ChunkState {
    ChunkState {
        chunk: 0,
        stamp: at,
        present: 1,
        zero: 0,
    }
}

fn state(at: Stamp) -> ObjectState {
    ObjectState {
        object: object(),
        stamp: at,
        chunks: vec![chunk(at)],
    }
}

fn listed(objects: Vec<ObjectState>) -> StorageReply {
    StorageReply::Listed { objects, more: false }
}

fn verified(at: Stamp, damaged: bool) -> StorageReply {
    let damaged = damaged.then(|| DamagedChunk {
        state: chunk(at),
        blocks: 1,
        checksums: [5].into(),
    });
    StorageReply::Verified(Verified {
        state: state(at),
        blocks: 1,
        damaged: damaged.into_iter().collect(),
    })
}

/// What the other disk has of the object, its chunk's bytes included.
fn difference(at: Stamp, checksum: u32, doubt: bool) -> Told {
    let delta = ObjectDelta {
        object: object(),
        stamp: at,
        merged: Vec::new(),
        chunks: vec![chunk(at)],
        checksums: [checksum].into(),
        bytes: Bytes::from(vec![9; 4096]),
    };
    Told::Difference { delta, doubt }
}

fn told(actions: &[Action]) -> Vec<Progress> {
    let progress = |action: &Action| match action {
        Action::Scrubbed { progress, .. } => Some(progress.clone()),
        _ => None,
    };
    actions.iter().filter_map(progress).collect()
}

fn asked(actions: &[Action]) -> (u64, Ask) {
    let question = |action: &Action| match action {
        Action::Question { to, number, question } => {
            assert_eq!(*to, OTHER);
            Some((*number, question.ask.clone()))
        }
        _ => None,
    };
    actions.iter().rev().find_map(question).unwrap()
}

fn requested(actions: &[Action]) -> Option<StorageRequest> {
    actions.iter().find_map(|action| match action {
        Action::Store { request, .. } => Some(request.clone()),
        _ => None,
    })
}

impl Bed {
    fn step(&mut self) -> Vec<Action> {
        self.apply(Event::ScrubStep)
    }

    fn heard(&mut self, question: &[Action], told: Result<Told, Refusal>) -> Vec<Action> {
        let (number, _) = asked(question);
        self.apply(Event::Told { number, told })
    }

    /// A scrub that has listed this object.
    fn scrubbing(deep: bool, at: Stamp) -> Self {
        let mut bed = Self::new();
        let order = Order {
            deep,
            ..Order::default()
        };
        assert!(bed.apply(Event::Scrub { run: RUN, order }).is_empty());
        let list = bed.step();
        assert!(bed.step().is_empty(), "one step at a time");
        let out = bed.stored(&list, Ok(listed(vec![state(at)])));
        assert_eq!(told(&out).len(), 1);
        bed
    }

    /// A deep scrub that has found the object's chunk damaged, and asked for it.
    fn damaged(at: Stamp) -> (Self, Vec<Action>) {
        let mut bed = Self::scrubbing(true, at);
        let look = bed.step();
        bed.stored(&look, Ok(verified(at, true)));
        let out = bed.step();
        let have = Vec::new();
        assert_eq!(
            asked(&out).1,
            Ask::Difference {
                object: object(),
                have
            }
        );
        (bed, out)
    }

    /// A light scrub that compared this object with the other disk's.
    fn compared_with(here: Stamp, there: Option<Stamp>) -> Self {
        let mut bed = Self::scrubbing(false, here);
        let out = bed.step();
        assert_eq!(
            asked(&out).1,
            Ask::Column {
                family: FAMILY,
                index: 0
            }
        );
        let objects = there.map(state).into_iter().collect();
        bed.heard(&out, Ok(Told::Listed { objects, next: None }));
        bed
    }

    /// Goes on to the end, with an object that stays as it is at both; gives all that was found, and how often it
    /// was looked at.
    fn looked_at_to_the_end(&mut self, here: Stamp, there: Stamp, doubt: bool) -> (Vec<Finding>, usize) {
        let (mut findings, mut looks) = (Vec::new(), 0);
        loop {
            let mut out = self.step();
            if matches!(requested(&out), Some(StorageRequest::Column { .. })) {
                out = self.stored(&out, Ok(listed(vec![state(here)])));
            }
            if out.iter().any(|action| matches!(action, Action::Question { .. })) {
                looks += 1;
                out = self.heard(&out, Ok(difference(there, 5, doubt)));
            }
            for progress in told(&out) {
                match progress {
                    Progress::Done => return (findings, looks),
                    Progress::Found(finding) => findings.push(finding),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_damaged_chunk_is_stored_again_from_another_disks() {
    let at = stamp(1, 4);
    let (mut bed, out) = Bed::damaged(at);
    let out = bed.heard(&out, Ok(difference(at, 5, false)));
    let Some(StorageRequest::Mend {
        chunk: mended,
        checksums,
        ..
    }) = requested(&out)
    else {
        panic!("{out:?}");
    };
    assert_eq!((mended, &checksums[..]), (chunk(at), &[5][..]));
    let out = bed.stored(&out, Ok(StorageReply::Done));
    let found = Finding::Mended {
        object: object(),
        chunk: 0,
        blocks: 1,
        from: OTHER,
    };
    let whole = Action::Scrubbed {
        run: RUN,
        progress: Progress::Found(found),
    };
    assert_eq!(out, [whole]);
}

#[test]
fn bytes_of_another_write_are_not_taken_and_the_chunk_is_looked_at_again() {
    let at = stamp(1, 4);
    let (mut bed, out) = Bed::damaged(at);
    let out = bed.heard(&out, Ok(difference(stamp(1, 5), 5, true)));
    assert_eq!(requested(&out), None);
    assert_eq!(told(&bed.step()), [Progress::Rest]);
    // The write has come here too, and took the damage away.
    let look = bed.step();
    assert!(matches!(requested(&look), Some(StorageRequest::Verify { .. })));
    bed.stored(&look, Ok(verified(stamp(1, 5), false)));
    assert!(
        matches!(asked(&bed.step()).1, Ask::Column { .. }),
        "the scrub goes on"
    );
}

#[test]
fn a_write_between_the_answer_and_its_storing_has_the_chunk_looked_at_again() {
    let at = stamp(1, 4);
    let (mut bed, out) = Bed::damaged(at);
    let out = bed.heard(&out, Ok(difference(at, 5, false)));
    let out = bed.stored(&out, Err(StorageError::Gap(stamp(1, 5))));
    assert_eq!(told(&out), [Progress::Rest]);
    let look = bed.step();
    assert!(matches!(requested(&look), Some(StorageRequest::Verify { .. })));
}

#[test]
fn damage_that_all_copies_have_is_told_of_and_guests_that_meet_it_do_not_have_it_looked_for_again() {
    let at = stamp(1, 4);
    let (mut bed, out) = Bed::damaged(at);
    bed.heard(&out, Err(Refusal::Damaged { index: 0, block: 0 }));
    let lost = Finding::Unmended {
        object: object(),
        chunk: 0,
        blocks: 1,
        reason: Reason::NoCopy,
    };
    assert_eq!(told(&bed.step()), [Progress::Found(lost)]);
    let error = StorageError::Damaged {
        object: object(),
        block: 3,
    };
    bed.replica.note_damage(&error);
    assert!(bed.replica.scrub.wanted.is_empty());
    // Others may be in sync in another interval.
    bed.map.group.interval = Interval(2);
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    bed.replica.note_damage(&error);
    assert_eq!(bed.replica.scrub.wanted.len(), 1);
}

#[test]
fn others_that_do_not_answer_are_asked_again_and_not_for_ever() {
    let at = stamp(1, 4);
    let (mut bed, mut out) = Bed::damaged(at);
    let mut rests = 0;
    let found = loop {
        bed.heard(&out, Err(Refusal::Busy));
        match told(&bed.step()).remove(0) {
            Progress::Rest => rests += 1,
            Progress::Found(found) => break found,
            other => panic!("{other:?}"),
        }
        let look = bed.step();
        bed.stored(&look, Ok(verified(at, true)));
        out = bed.step();
    };
    assert!(matches!(
        found,
        Finding::Unmended {
            reason: Reason::Unreachable,
            ..
        }
    ));
    assert_eq!(rests, 7);
}

#[test]
fn what_a_guests_read_meets_as_damaged_is_mended_without_a_scrub() {
    let mut bed = Bed::fenced(1);
    assert!(!bed.replica.scrubs());
    let read = Request::Read {
        scope: bed.scope(1),
        family: FAMILY,
        layer: LayerId(1),
        index: 0,
        range: BlockRange::OBJECT,
    };
    let out = bed.request(read);
    let damaged = StorageError::Damaged {
        object: object(),
        block: 200,
    };
    bed.stored(&out, Err(damaged));
    assert!(bed.replica.scrubs());
    let expected = StorageRequest::Verify {
        object: object(),
        first: 8,
    };
    assert_eq!(requested(&bed.step()), Some(expected));
}

#[test]
fn a_copy_at_another_stamp_is_told_of_when_it_stays_so() {
    let (here, there) = (stamp(1, 4), stamp(1, 3));
    let mut bed = Bed::compared_with(here, Some(there));
    let differs = Finding::Differs {
        object: object(),
        stamp: here,
        disk: OTHER,
        there,
    };
    assert_eq!(bed.looked_at_to_the_end(here, there, false), (vec![differs], 5));
}

#[test]
fn equal_copies_are_not_looked_at_twice_and_a_write_ends_all_suspicion() {
    let at = stamp(1, 4);
    let mut bed = Bed::compared_with(at, Some(at));
    assert_eq!(bed.looked_at_to_the_end(at, at, false), (Vec::new(), 0));
    let mut bed = Bed::compared_with(at, Some(stamp(1, 3)));
    assert_eq!(bed.looked_at_to_the_end(at, at, false), (Vec::new(), 1));
}

#[test]
fn what_is_in_doubt_there_is_no_difference() {
    // A write that did not come here yet, for its owner was cut off: the next one levels it.
    let (here, there) = (stamp(1, 3), stamp(1, 4));
    let mut bed = Bed::compared_with(here, Some(there));
    assert_eq!(bed.looked_at_to_the_end(here, there, true), (Vec::new(), 1));
}

#[test]
fn a_write_that_the_store_shows_before_it_has_answered_is_no_difference() {
    // Seed 6647 of its time: the other disk crashed before it had the write, and ours was slow to say that it has it.
    let (here, there) = (stamp(1, 4), stamp(1, 3));
    let mut bed = Bed::fenced(1);
    bed.request(bed.write(there, here));
    let order = Order::default();
    bed.apply(Event::Scrub { run: RUN, order });
    let list = bed.step();
    bed.stored(&list, Ok(listed(vec![state(here)])));
    let column = bed.step();
    let objects = vec![state(there)];
    bed.heard(&column, Ok(Told::Listed { objects, next: None }));
    assert_eq!(bed.looked_at_to_the_end(here, there, false), (Vec::new(), 0));
}

#[test]
fn a_layer_that_merges_take_away_is_not_compared() {
    // P5: the other disk has merged it already.
    let at = stamp(1, 4);
    let mut bed = Bed::new();
    bed.map = bed.map.sealed(LayerUse::Inner);
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let order = Order::default();
    bed.apply(Event::Scrub { run: RUN, order });
    let list = bed.step();
    bed.stored(&list, Ok(listed(vec![state(at)])));
    let column = bed.step();
    let merged = Told::Listed {
        objects: Vec::new(),
        next: None,
    };
    bed.heard(&column, Ok(merged));
    assert_eq!(bed.looked_at_to_the_end(at, Stamp::ZERO, false), (Vec::new(), 0));
}

#[test]
fn of_two_disks_that_have_an_object_the_lower_one_tells() {
    let (here, there) = (stamp(1, 4), stamp(1, 3));
    let mut bed = Bed::scrubbing(false, here);
    bed.replica.disk = DiskId(3);
    bed.map.group.slots[0].disk = DiskId(3);
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let out = bed.step();
    let objects = vec![state(there)];
    bed.heard(&out, Ok(Told::Listed { objects, next: None }));
    assert_eq!(bed.looked_at_to_the_end(here, there, false), (Vec::new(), 0));
}

#[test]
fn a_disk_in_sync_may_look_at_anothers_copies_and_no_more() {
    let mut bed = Bed::new();
    let mut ask = |ask| {
        bed.apply(Event::Question {
            from: OTHER,
            number: 1,
            question: Question {
                pg: PG,
                interval: Interval(1),
                from: OTHER,
                ask,
            },
        })
    };
    let column = Ask::Column {
        family: FAMILY,
        index: 0,
    };
    assert!(requested(&ask(column)).is_some());
    let have = Vec::new();
    assert!(
        requested(&ask(Ask::Difference {
            object: object(),
            have
        }))
        .is_some()
    );
    for refused in [Ask::Table, Ask::List { after: None }] {
        let told = Err(Refusal::NotInSync);
        let tell = Action::Tell {
            to: OTHER,
            number: 1,
            told,
        };
        assert_eq!(ask(refused), [tell]);
    }
}

#[test]
fn damage_in_a_group_that_the_disk_was_put_out_of_meanwhile_ends() {
    // Found by the mutant `ForgetDoubt`: the disk's thread went round for ever.
    let mut bed = Bed::scrubbing(true, stamp(1, 4));
    let look = bed.step();
    bed.map.group.slots[0].state = SlotState::Down;
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let out = bed.stored(&look, Ok(verified(stamp(1, 4), true)));
    assert_eq!(
        told(&out),
        [Progress::Step {
            objects: 0,
            blocks: 1
        }]
    );
}

#[test]
fn a_scrub_that_goes_on_reads_nothing_again_and_compares_all() {
    let at = stamp(1, 4);
    for (read, reads) in [
        (Some((FAMILY, 0)), false),
        (Some((FamilyId(0), 7)), true),
        (None, true),
    ] {
        let mut bed = Bed::new();
        let order = Order {
            deep: true,
            only: None,
            read,
        };
        bed.apply(Event::Scrub { run: RUN, order });
        let list = bed.step();
        bed.stored(&list, Ok(listed(vec![state(at)])));
        let mut out = bed.step();
        let looks = matches!(requested(&out), Some(StorageRequest::Verify { .. }));
        assert_eq!(looks, reads, "{read:?}");
        if looks {
            bed.stored(&out, Ok(verified(at, false)));
            out = bed.step();
        }
        let objects = vec![state(at)];
        bed.heard(&out, Ok(Told::Listed { objects, next: None }));
        let passed = Progress::Passed {
            objects: 1,
            column: (FAMILY, 0),
        };
        assert_eq!(told(&bed.step()), [passed]);
    }
}

#[test]
fn a_column_is_passed_only_when_what_was_damaged_in_it_is_mended_or_told_of() {
    let at = stamp(1, 4);
    let (mut bed, mut question) = Bed::damaged(at);
    let mut looks = 0;
    let found = loop {
        // The other disk does not answer: it is asked again later, before anything else is done.
        let mut progress = told(&bed.heard(&question, Err(Refusal::Busy)));
        assert_eq!(progress.len(), 1);
        if let Progress::Step { .. } = progress[0] {
            progress = told(&bed.step());
        }
        match &progress[..] {
            [Progress::Rest] => {}
            [Progress::Found(found)] => break found.clone(),
            other => panic!("{other:?}"),
        }
        looks += 1;
        assert!(looks < 100, "it is given up some time");
        let look = bed.step();
        bed.stored(&look, Ok(verified(at, true)));
        question = bed.step();
    };
    assert!(matches!(found, Finding::Unmended { .. }));
    let out = bed.step();
    let objects = vec![state(at)];
    bed.heard(&out, Ok(Told::Listed { objects, next: None }));
    assert!(matches!(told(&bed.step())[..], [Progress::Passed { .. }]));
}
