//! Who was told that nothing has changed may serve on for a while, and the next owner waits for that.

use protocol::message::{VOUCH_GROUPS_MAX, Vouch};

use super::*;

fn ping(bed: &Bed, generation: u64) -> Request {
    Request::Ping {
        scope: bed.scope(generation),
    }
}

/// Alarms that were asked for.
fn alarms(actions: &[Action]) -> Vec<Option<VolumeId>> {
    let alarm = |action: &Action| match action {
        Action::Alarm { volume, .. } => Some(*volume),
        _ => None,
    };
    actions.iter().filter_map(alarm).collect()
}

#[test]
fn the_next_owner_waits_out_what_was_said_to_the_former_one() {
    // Q7. The former one may send for as long as the word counts, also reads to a disk that knows nothing of the next.
    let mut bed = Bed::fenced(1);
    let out = bed.request(ping(&bed, 1));
    assert_eq!(
        responses(&bed.stored(&out, Ok(StorageReply::Done))),
        [Response::Ok]
    );
    let out = bed.request(bed.fence(2));
    let out = bed.stored(&out, Ok(StorageReply::Done));
    assert!(responses(&out).is_empty());
    assert_eq!(alarms(&out), [Some(VOLUME)]);
    // The former one gets no more of it.
    let out = bed.request(ping(&bed, 1));
    assert_eq!(responses(&out), refused(Refusal::Fenced(Generation(2))));
    let out = bed.request(bed.fence(2));
    assert!(
        responses(&out).is_empty() && alarms(&out).is_empty(),
        "one alarm is enough"
    );
    let out = bed.apply(Event::Alarm { volume: Some(VOLUME) });
    assert_eq!(responses(&out).len(), 2);
    // Nothing is waited for twice.
    let out = bed.request(bed.fence(3));
    assert_eq!(responses(&bed.stored(&out, Ok(StorageReply::Done))).len(), 1);
}

#[test]
fn an_owner_does_not_wait_for_what_it_was_told_itself() {
    let mut bed = Bed::fenced(1);
    let out = bed.request(ping(&bed, 1));
    bed.stored(&out, Ok(StorageReply::Done));
    assert_eq!(responses(&bed.request(bed.fence(1))).len(), 1);
}

#[test]
fn after_a_restart_the_next_owner_waits_as_if_the_former_one_had_been_told() {
    let mut bed = Bed::new();
    let remembered = Remembered {
        generations: vec![(VOLUME, Generation(1))],
        intervals: vec![(PG, Interval(1))],
        doubts: Vec::new(),
        vouched: true,
    };
    let mut out = Vec::new();
    bed.replica = Replica::new(DiskId(1), remembered, Arc::new(bed.map.clone()), &mut out);
    assert_eq!(alarms(&out), [None]);
    assert_eq!(responses(&bed.request(bed.fence(1))).len(), 1);
    let out = bed.request(bed.fence(2));
    let out = bed.stored(&out, Ok(StorageReply::Done));
    assert!(responses(&out).is_empty() && alarms(&out).is_empty());
    assert_eq!(responses(&bed.apply(Event::Alarm { volume: None })).len(), 1);
}

const OTHER: PgId = PgId { number: 1, ..PG };

/// A replica in two groups whose intervals are durable, which the owner of generation 1 has fenced.
fn in_two_groups() -> Bed {
    let mut bed = Bed::fenced(1);
    bed.map.others.push(GroupView {
        pg: OTHER,
        ..bed.map.group.clone()
    });
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let out = bed.request(vouch(1, &[(OTHER, 1)]));
    let out = bed.stored(&out, Ok(StorageReply::Done));
    bed.stored(&out, Ok(StorageReply::Done));
    bed.apply(Event::Alarm { volume: Some(VOLUME) });
    bed
}

fn vouch(generation: u64, groups: &[(PgId, u64)]) -> Request {
    Request::Vouch(Vouch {
        volume: VOLUME,
        generation: Generation(generation),
        revision: TreeRevision(1),
        groups: groups.iter().map(|(pg, at)| (*pg, Interval(*at))).collect(),
    })
}

fn standing(refused: &[(PgId, Refusal)]) -> [Response; 1] {
    [Response::Standing {
        refused: refused.to_vec(),
    }]
}

/// Whether the owner of generation 2 is made wait.
fn next_waits(bed: &mut Bed) -> bool {
    let out = bed.request(bed.fence(2));
    responses(&bed.stored(&out, Ok(StorageReply::Done))).is_empty()
}

#[test]
fn one_answer_vouches_for_all_groups_and_the_next_owner_waits_that_out() {
    let mut bed = in_two_groups();
    let out = bed.request(vouch(1, &[(PG, 1), (OTHER, 1)]));
    assert!(responses(&out).is_empty(), "the store is asked first");
    assert_eq!(
        responses(&bed.stored(&out, Ok(StorageReply::Done))),
        standing(&[])
    );
    assert!(next_waits(&mut bed));
    let out = bed.request(vouch(1, &[(PG, 1), (OTHER, 1)]));
    assert_eq!(responses(&out), refused(Refusal::Fenced(Generation(2))));
}

#[test]
fn groups_that_do_not_stand_are_named_and_nobody_is_vouched_for() {
    let mut bed = in_two_groups();
    bed.map.others[0].interval = Interval(2);
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let out = bed.request(vouch(1, &[(PG, 1), (OTHER, 1)]));
    assert_eq!(
        responses(&out),
        standing(&[(OTHER, Refusal::Interval(Interval(2)))])
    );
    assert!(!next_waits(&mut bed));
}

#[test]
fn no_group_stands_before_the_intervals_of_all_are_durable() {
    let mut bed = in_two_groups();
    bed.map.group.interval = Interval(2);
    bed.map.others[0].interval = Interval(2);
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let asked = bed.request(vouch(1, &[(PG, 2), (OTHER, 2)]));
    let tokens: Vec<u64> = asked
        .iter()
        .filter_map(|action| match action {
            Action::Store { token, request } => {
                assert!(matches!(request, StorageRequest::RaiseInterval(_, Interval(2))));
                Some(*token)
            }
            _ => None,
        })
        .collect();
    assert_eq!(tokens.len(), 2);
    let done = |token| Event::Stored {
        token,
        result: Ok(StorageReply::Done),
    };
    let out = bed.apply(done(tokens[0]));
    assert!(out.is_empty(), "{out:?}");
    let out = bed.apply(done(tokens[1]));
    assert_eq!(
        responses(&bed.stored(&out, Ok(StorageReply::Done))),
        standing(&[])
    );
}

#[test]
fn a_question_of_a_newer_map_waits_for_it_as_a_whole() {
    let mut bed = in_two_groups();
    let out = bed.request(vouch(1, &[(PG, 1), (OTHER, 2)]));
    assert_eq!(out, [Action::Refresh]);
    let out = bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let behind = (OTHER, Refusal::Interval(Interval(1)));
    assert_eq!(responses(&out), standing(&[behind]));
}

#[test]
fn a_full_disk_stands_and_one_that_is_out_of_service_does_not() {
    for (error, answer) in [
        (StorageError::Full, standing(&[]).to_vec()),
        (
            StorageError::Poisoned("broken".into()),
            refused(Refusal::Poisoned).to_vec(),
        ),
    ] {
        let mut bed = in_two_groups();
        let out = bed.request(vouch(1, &[(PG, 1), (OTHER, 1)]));
        assert_eq!(responses(&bed.stored(&out, Err(error))), answer);
    }
}

#[test]
fn a_list_of_no_groups_or_too_many_makes_no_sense() {
    let mut bed = in_two_groups();
    for count in [0, VOUCH_GROUPS_MAX + 1] {
        let out = bed.request(vouch(1, &vec![(PG, 1); count]));
        assert_eq!(responses(&out), refused(Refusal::Invalid), "{count}");
    }
}

#[test]
fn a_fence_that_comes_while_the_store_is_asked_waits_that_answer_out() {
    let mut bed = in_two_groups();
    let question = bed.request(vouch(1, &[(PG, 1), (OTHER, 1)]));
    assert!(next_waits(&mut bed));
    // The former owner may count on it, for it asked before.
    assert_eq!(
        responses(&bed.stored(&question, Ok(StorageReply::Done))),
        standing(&[])
    );
    assert_eq!(
        responses(&bed.apply(Event::Alarm { volume: Some(VOLUME) })).len(),
        1
    );
}

#[test]
fn an_owner_that_is_fenced_while_its_question_waits_is_vouched_for_by_nobody() {
    let mut bed = in_two_groups();
    bed.map.others[0].interval = Interval(2);
    bed.apply(Event::Map(Arc::new(bed.map.clone())));
    let question = bed.request(vouch(1, &[(PG, 1), (OTHER, 2)]));
    assert!(!next_waits(&mut bed));
    let out = bed.stored(&question, Ok(StorageReply::Done));
    assert_eq!(responses(&out), refused(Refusal::Fenced(Generation(2))));
}
