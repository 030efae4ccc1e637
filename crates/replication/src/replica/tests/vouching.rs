//! Who was told that nothing has changed may serve on for a while, and the next owner waits for that.

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
