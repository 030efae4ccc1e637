//! Without the coordination store: the owner serves on the word of all slots, and of nobody less.

use protocol::message::{VOUCH_GROUPS_MAX, VOUCH_SINCE};

use super::*;

/// Half of the lease time: from then on the owner asks the slots.
const DANGER: u64 = LEASE_MS / 2;
/// When the lease proves nothing any more.
const LAPSED: u64 = LEASE_MS * 8 / 10;

fn pings(actions: &[Action]) -> Vec<Sent> {
    let is_ping = |request: &Sent| matches!(request.2, Request::Ping { .. } | Request::Vouch(_));
    sent(actions).into_iter().filter(is_ping).collect()
}

/// Lets time pass until then; who confirms says so at once.
fn confirmed_until(bed: &mut Bed, end: u64, confirm: &[DiskId]) {
    while bed.now < Moment(end) {
        bed.now = bed.owner.deadline(bed.now).unwrap().min(Moment(end));
        for ping in pings(&bed.event(Event::Tick)) {
            if confirm.contains(&ping.0) {
                bed.answer(&ping, Response::Ok);
            }
        }
    }
}

fn writes(actions: &[Action]) -> usize {
    let is_write = |request: &&Sent| matches!(request.2, Request::Write { .. });
    sent(actions).iter().filter(is_write).count()
}

#[test]
fn an_owner_without_a_lease_serves_on_while_all_slots_confirm_what_it_has() {
    let mut bed = Bed::learned();
    confirmed_until(&mut bed, 20 * LEASE_MS, &[A, B]);
    assert_eq!(writes(&bed.write()), 2);
    // The word of a second ago is the last that counts.
    bed.now = bed.now + 1_000;
    assert_eq!(writes(&bed.write()), 0);
    assert!(bed.owner.waiting(bed.now)[0].contains("not all disks confirm"));
}

#[test]
fn slots_are_not_asked_while_the_lease_is_renewed() {
    let mut bed = Bed::learned();
    for step in 1..40 {
        bed.now = Moment(step * DANGER / 2);
        bed.event(Event::Renewed { sent: bed.now });
        assert!(pings(&bed.event(Event::Tick)).is_empty());
    }
    bed.now = bed.now + DANGER;
    assert_eq!(pings(&bed.event(Event::Tick)).len(), 2);
}

#[test]
fn one_slot_that_confirms_is_not_enough() {
    let mut bed = Bed::learned();
    confirmed_until(&mut bed, LAPSED, &[A]);
    assert_eq!(writes(&bed.write()), 0);
}

#[test]
fn a_slot_that_refuses_ends_it_and_one_that_is_full_does_not() {
    for (refusal, sends) in [
        (Refusal::Full, 2),
        (Refusal::Interval(Interval(2)), 0),
        (Refusal::NotInSync, 0),
        (Refusal::Busy, 0),
    ] {
        let mut bed = Bed::learned();
        bed.now = Moment(LAPSED - 1);
        let asked = pings(&bed.event(Event::Tick));
        bed.answer(&asked[0], Response::Ok);
        bed.answer(&asked[1], Response::Refused(refusal));
        bed.now = Moment(LAPSED);
        assert_eq!(writes(&bed.write()), sends);
    }
}

#[test]
fn a_newer_owner_that_a_slot_knows_of_is_the_end() {
    let mut bed = Bed::learned();
    bed.now = Moment(LAPSED - 1);
    let asked = pings(&bed.event(Event::Tick));
    let out = bed.answer(&asked[0], Response::Refused(Refusal::Fenced(Generation(3))));
    assert!(out.iter().any(|action| matches!(action, Action::Deposed)));
}

#[test]
fn what_was_confirmed_in_one_interval_says_nothing_of_the_next() {
    let mut bed = Bed::learned();
    confirmed_until(&mut bed, LAPSED + 10, &[A, B]);
    let mut changed = view();
    changed.groups[0].interval = Interval(2);
    let out = bed.event(Event::View(Box::new(changed)));
    let asked = pings(&out);
    assert_eq!(sent(&out).len(), asked.len(), "nothing else may be sent");
    let of_the_new_one =
        |ping: &Sent| matches!(ping.2, Request::Ping { scope } if scope.interval == Interval(2));
    assert!(asked.len() == 2 && asked.iter().all(of_the_new_one));
    bed.answer(&asked[0], Response::Ok);
    let fences = sent(&bed.answer(&asked[1], Response::Ok));
    assert!(
        fences
            .iter()
            .any(|request| matches!(request.2, Request::Fence { .. }))
    );
}

#[test]
fn nobody_takes_over_on_the_word_of_slots() {
    // A new owner has proved nothing yet: it opens by its lease.
    let (mut bed, _) = Bed::connected();
    confirmed_until(&mut bed, LAPSED, &[A, B]);
    assert!(!bed.owner.is_open());
    assert!(pings(&bed.event(Event::Tick)).is_empty());
}

/// Groups on both disks, and more than one question is about.
const MANY: usize = VOUCH_GROUPS_MAX + 44;

/// An owner of a volume over many groups, when it must ask; disk A speaks this version of the messages.
fn asking(version: u16) -> (Bed, Vec<Sent>) {
    let mut many = view();
    let group = many.groups[0].clone();
    many.groups = (0..u32::try_from(MANY).unwrap())
        .map(|number| GroupView {
            pg: PgId { number, ..PG },
            ..group.clone()
        })
        .collect();
    many.size = (MANY as u64 * 8) << 22;
    let mut bed = Bed::open_to(many, version);
    bed.now = Moment(LAPSED - 1);
    let asked = pings(&bed.event(Event::Tick));
    (bed, asked)
}

fn all_stand() -> Response {
    Response::Standing { refused: Vec::new() }
}

/// Groups that a question is about.
fn groups(question: &Sent) -> Vec<PgId> {
    match &question.2 {
        Request::Vouch(vouch) => vouch.groups.iter().map(|(pg, _)| *pg).collect(),
        Request::Ping { scope } => vec![scope.pg],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_is_asked_about_all_its_groups_in_few_questions() {
    let (mut bed, asked) = asking(VOUCH_SINCE);
    for disk in [A, B] {
        let lengths = asked.iter().filter(|question| question.0 == disk);
        let lengths: Vec<usize> = lengths.map(|question| groups(question).len()).collect();
        assert_eq!(lengths, [VOUCH_GROUPS_MAX, MANY - VOUCH_GROUPS_MAX], "{disk}");
    }
    bed.now = Moment(LAPSED);
    let (last, first) = asked.split_last().unwrap();
    for question in first {
        bed.answer(question, all_stand());
        assert!(
            !bed.owner.is_vouched_for(bed.now),
            "some slots did not say so yet"
        );
    }
    bed.answer(last, all_stand());
    assert!(bed.owner.is_vouched_for(bed.now));
    // From the moment of the question on, not of the answer.
    let age = crate::moment::HEARTBEAT_AGE_MS;
    assert!(bed.owner.is_vouched_for(Moment(LAPSED - 1 + age - 1)));
    assert!(!bed.owner.is_vouched_for(Moment(LAPSED - 1 + age)));
}

#[test]
fn one_group_that_does_not_stand_ends_it_and_the_view_is_asked_for() {
    let (mut bed, asked) = asking(VOUCH_SINCE);
    for question in &asked[1..] {
        bed.answer(question, all_stand());
    }
    let moved = (groups(&asked[0])[7], Refusal::Interval(Interval(2)));
    let out = bed.answer(&asked[0], Response::Standing { refused: vec![moved] });
    assert!(out.iter().any(|action| matches!(action, Action::WantView)));
    bed.now = Moment(LAPSED);
    assert!(!bed.owner.is_vouched_for(bed.now));
    assert!(bed.owner.waiting(bed.now)[0].contains("not all disks confirm"));
}

#[test]
fn a_disk_of_an_older_version_is_asked_about_each_group() {
    let (mut bed, asked) = asking(VOUCH_SINCE - 1);
    let (old, new): (Vec<&Sent>, Vec<&Sent>) = asked.iter().partition(|question| question.0 == A);
    assert_eq!((old.len(), new.len()), (MANY, 2));
    assert!(old.iter().all(|ping| matches!(ping.2, Request::Ping { .. })));
    for question in new {
        bed.answer(question, all_stand());
    }
    for ping in old {
        assert!(!bed.owner.is_vouched_for(bed.now));
        bed.answer(ping, Response::Ok);
    }
    bed.now = Moment(LAPSED);
    assert!(bed.owner.is_vouched_for(bed.now));
}
