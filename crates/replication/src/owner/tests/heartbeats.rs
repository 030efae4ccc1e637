//! Without the coordination store: the owner serves on the word of all slots, and of nobody less.

use super::*;

/// Half of the lease time: from then on the owner asks the slots.
const DANGER: u64 = LEASE_MS / 2;
/// When the lease proves nothing any more.
const LAPSED: u64 = LEASE_MS * 8 / 10;

fn pings(actions: &[Action]) -> Vec<Sent> {
    let is_ping = |request: &Sent| matches!(request.2, Request::Ping { .. });
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
