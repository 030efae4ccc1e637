//! Nobody sees or overwrites what may be done a second time.
use super::*;

const A: u64 = 1;
const B: u64 = 2;
const BLOCK: Span = (0, 4096);

#[test]
fn what_is_not_confirmed_is_neither_seen_nor_overwritten_by_others() {
    let mut gate = Gate::new([]);
    let first = gate.enter(A, BLOCK, Access::Write, false);
    let read = gate.enter(B, BLOCK, Access::Read, false);
    let write = gate.enter(B, BLOCK, Access::Write, false);
    let elsewhere = gate.enter(B, (4096, 8192), Access::Write, false);
    assert_eq!(gate.begin(), [first, elsewhere]);
    gate.done(first);
    assert_eq!(gate.begin(), []);
    gate.confirm(first);
    // Both are of one attachment, whose own order they have; a read is nothing to wait for.
    assert_eq!(gate.begin(), [read, write]);
}

#[test]
fn one_attachment_does_not_wait_for_itself() {
    let mut gate = Gate::new([]);
    let first = gate.enter(A, BLOCK, Access::Write, false);
    let second = gate.enter(A, BLOCK, Access::Write, false);
    let read = gate.enter(A, BLOCK, Access::Read, false);
    assert_eq!(gate.begin(), [first, second, read]);
}

#[test]
fn its_order_is_kept_behind_what_it_waits_for() {
    let mut gate = Gate::new([]);
    let foreign = gate.enter(B, BLOCK, Access::Write, false);
    assert_eq!(gate.begin(), [foreign]);
    let first = gate.enter(A, (0, 8192), Access::Write, false);
    let second = gate.enter(A, (4096, 8192), Access::Write, false);
    assert_eq!(gate.begin(), []);
    gate.done(foreign);
    gate.confirm(foreign);
    assert_eq!(gate.begin(), [first, second]);
}

#[test]
fn a_new_owner_does_what_is_sent_again_first_and_shows_nothing_before_all_of_that_has_come() {
    let mut gate = Gate::new([A, B]);
    let again = gate.enter(A, BLOCK, Access::Write, true);
    let read = gate.enter(A, BLOCK, Access::Read, true);
    assert_eq!(gate.begin(), [again]);
    gate.done(again);
    gate.confirm(again);
    gate.rejoined(A);
    let fresh = gate.enter(A, BLOCK, Access::Write, false);
    assert_eq!(gate.begin(), []);
    let late = gate.enter(B, BLOCK, Access::Write, true);
    assert_eq!(gate.begin(), [late]);
    gate.done(late);
    gate.rejoined(B);
    assert_eq!(gate.begin(), []);
    gate.confirm(late);
    assert_eq!(gate.begin(), [read, fresh]);
}

#[test]
fn nobody_waits_for_an_attachment_that_has_ended() {
    let mut gate = Gate::new([A, B]);
    let running = gate.enter(A, BLOCK, Access::Write, true);
    assert_eq!(gate.begin(), [running]);
    gate.rejoined(B);
    let next = gate.enter(B, BLOCK, Access::Write, false);
    gate.expel(A);
    assert!(gate.awaited().is_empty());
    // It may be on its way to the disks.
    assert_eq!(gate.begin(), []);
    gate.done(running);
    assert_eq!(gate.begin(), [next]);
}

#[test]
fn who_is_not_waited_for_has_nothing_to_send_again() {
    let mut gate = Gate::new([B]);
    gate.enter(A, BLOCK, Access::Write, true);
    assert_eq!(gate.begin(), []);
}

#[test]
fn a_compare_and_write_keeps_out_even_its_own_attachment_until_it_is_confirmed() {
    let mut gate = Gate::new([]);
    let write = gate.enter(A, BLOCK, Access::Write, false);
    let compare = gate.enter(A, BLOCK, Access::Compare, false);
    let read = gate.enter(A, BLOCK, Access::Read, false);
    let second = gate.enter(A, BLOCK, Access::Compare, false);
    let elsewhere = gate.enter(A, (4096, 8192), Access::Compare, false);
    assert_eq!(gate.begin(), [write, elsewhere]);
    gate.done(write);
    assert_eq!(gate.begin(), []);
    gate.confirm(write);
    assert_eq!(gate.begin(), [compare]);
    gate.done(compare);
    assert_eq!(gate.begin(), []);
    gate.confirm(compare);
    // The device knows of reads that are under way.
    assert_eq!(gate.begin(), [read, second]);
}

#[test]
fn what_is_compared_again_comes_after_the_writes_that_are_sent_again_and_before_all_who_look() {
    let mut gate = Gate::new([A, B]);
    let compare = gate.enter(A, BLOCK, Access::Compare, true);
    let read = gate.enter(A, BLOCK, Access::Read, true);
    gate.rejoined(A);
    let fresh = gate.enter(A, BLOCK, Access::Compare, false);
    // What B wrote may be what A compares with, and it may be written once more.
    assert_eq!(gate.begin(), []);
    let late = gate.enter(B, BLOCK, Access::Write, true);
    let second = gate.enter(B, BLOCK, Access::Compare, true);
    assert_eq!(gate.begin(), [late]);
    gate.rejoined(B);
    gate.done(late);
    gate.confirm(late);
    assert_eq!(gate.begin(), [compare]);
    assert!(gate.is_compared_again(compare) && !gate.is_compared_again(fresh));
    gate.done(compare);
    gate.confirm(compare);
    assert_eq!(gate.begin(), [second]);
    gate.done(second);
    gate.confirm(second);
    assert_eq!(gate.begin(), [read, fresh]);
}

#[test]
fn a_compare_and_write_that_found_another_ones_doing_waits_until_that_is_confirmed() {
    let mut gate = Gate::new([A, B]);
    let second = gate.enter(B, BLOCK, Access::Compare, true);
    let done = gate.enter(A, BLOCK, Access::Compare, true);
    gate.rejoined(A);
    gate.rejoined(B);
    assert_eq!(gate.begin(), [second]);
    // It was found that the other one may have been done; its attachment is told so.
    gate.retreat(second);
    gate.done(done);
    assert_eq!(gate.begin(), []);
    gate.confirm(done);
    assert_eq!(gate.begin(), [second]);
}
