//! Counterexamples of the reviews of the protocol, played from their first step to their last. Each is named by
//! what must hold; the letters are the reviews' own (docs/lessons.md).

use super::*;
use SlotState::{InSync, Joining, Syncing};

#[test]
fn a_dead_owners_write_that_only_a_joining_disk_got_is_gone_when_that_is_in_sync() {
    // V2, V3: the next owner's write is on another block, and does not fit there.
    let mut script = Script::new(3, 3, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.take_out(C);
    script.write_done(first, 0, 2);
    script.bring(C, Joining);
    script.hold(Wire::ToDisk(first, A));
    script.hold(Wire::ToDisk(first, B));
    let lost = script.write(first, 0, 3);
    assert_eq!((script.copy(C, 0), script.acknowledged(lost)), (3, false));
    script.lose(Wire::ToDisk(first, A));
    script.lose(Wire::ToDisk(first, B));
    script.kill(first);
    let second = script.open();
    let other = script.write(second, 1, 7);
    assert!(
        !script.acknowledged(other),
        "the joining disk must have it, and has another object"
    );
    script.come_back(C);
    script.wait(200);
    assert!(script.acknowledged(other));
    assert_eq!((script.copies(0), script.copies(1)), (2, 7));
}

#[test]
fn what_a_take_over_levels_is_on_the_disk_that_had_listed_it_before() {
    // V4, V5: whichever of the two disks has the write, and whichever was listed.
    for holder in [A, B] {
        let other = if holder == A { B } else { A };
        let mut script = Script::new(3, 3, 1);
        let first = script.open();
        script.write_done(first, 0, 1);
        script.take_out(C);
        script.bring(C, Joining);
        for disk in [other, C] {
            script.hold(Wire::ToDisk(first, disk));
        }
        script.write(first, 0, 2);
        for disk in [other, C] {
            script.lose(Wire::ToDisk(first, disk));
        }
        script.kill(first);
        script.hold(Wire::Swap(C));
        script.release(Wire::Question(C));
        let second = script.begin_open(&[]);
        script.wait(100);
        script.release(Wire::Swap(C));
        script.wait(200);
        assert!(script.is_open(second));
        script.come_back(C);
        assert_eq!(script.copies(0), 2);
    }
}

#[test]
fn an_ok_of_a_disk_that_was_replaced_meanwhile_does_not_count() {
    // V6: the disk that said ok is an empty one now, filled by one that had not heard of the write.
    let mut script = Script::new(2, 2, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    script.hold(Wire::ToDisk(owner, A));
    let write = script.write(owner, 0, 2);
    assert_eq!(script.copy(B, 0), 2);
    script.hold(Wire::ToDisk(owner, B));
    script.take_out(B);
    script.replace(B);
    script.start(B);
    script.come_back(B);
    assert_eq!(script.copies(0), 1);
    script.release(Wire::ToDisk(owner, A));
    assert!(!script.acknowledged(write));
    script.release(Wire::ToDisk(owner, B));
    script.wait(200);
    assert!(script.acknowledged(write));
    assert_eq!(script.copies(0), 2);
}

#[test]
fn a_restart_forgets_only_what_was_not_said_to_be_done_and_its_disk_may_be_the_source() {
    // V7, V8, V12, V15: ok means durable, so nothing has to be opened, replayed or levelled after a restart.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    script.restart(A);
    assert_eq!(script.copy(A, 0), 1);
    script.hold(Wire::Medium(B));
    let write = script.write(owner, 0, 2);
    script.restart(B);
    assert!(!script.acknowledged(write));
    assert_eq!(script.copy(B, 0), 1, "it was not durable");
    script.release(Wire::Medium(B));
    script.wait(200);
    assert!(script.acknowledged(write), "it was sent again");
    script.take_out(C);
    script.replace(C);
    script.start(C);
    script.come_back(C);
    assert_eq!(script.copies(0), 2);
    assert!(
        script.suspected.is_empty(),
        "nobody is called a liar: {:?}",
        script.suspected
    );
}

#[test]
fn a_disk_is_not_in_sync_before_what_it_copied_is_durable() {
    // V9.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.take_out(C);
    script.bring(C, Joining);
    script.hold(Wire::ToDisk(owner, C));
    script.write(owner, 0, 2);
    script.hold(Wire::Medium(C));
    script.release(Wire::Question(C));
    script.wait(1_000);
    assert_eq!(script.state(C), Some(Joining));
    script.release(Wire::Medium(C));
    script.release(Wire::ToDisk(owner, C));
    script.wait(1_000);
    assert_eq!(script.state(C), Some(InSync));
    assert_eq!(script.copies(0), 2);
}

#[test]
fn sources_that_lose_what_they_have_shown_leave_no_mixture() {
    // V13: a source lists what is not durable yet, and loses it before it is asked for the bytes, or after.
    for crash_first in [true, false] {
        let mut script = Script::new(3, 3, 1);
        let owner = script.open();
        script.write_done(owner, 0, 1);
        script.take_out(C);
        script.bring(C, Joining);
        for wire in [Wire::ToDisk(owner, C), Wire::Medium(A), Wire::Medium(B)] {
            script.hold(wire);
        }
        let write = script.write(owner, 20, 2);
        script.hold(Wire::Swap(C));
        // The table, the list, our own list: then the difference, if anything differs.
        for _ in 0..if crash_first { 2 } else { 10 } {
            script.deliver_from(Wire::Question(C));
            script.settle();
        }
        for disk in [A, B] {
            script.restart(disk);
            assert_eq!(script.copy(disk, 20), 0);
        }
        for wire in [Wire::Medium(A), Wire::Medium(B), Wire::Swap(C), Wire::Question(C)] {
            script.release(wire);
        }
        script.release(Wire::ToDisk(owner, C));
        script.come_back(C);
        script.wait(200);
        assert!(script.acknowledged(write));
        script.assert_equal_copies();
        assert_eq!((script.copies(0), script.copies(20)), (1, 2));
    }
}

#[test]
fn a_write_of_a_dead_owner_that_comes_late_is_refused_by_every_disk() {
    // P2: it was on its way to each of them when the next owner came.
    let mut script = Script::new(3, 3, 2);
    let first = script.open();
    script.write_done(first, 0, 1);
    for disk in [A, B, C] {
        script.hold(Wire::ToDisk(first, disk));
    }
    script.write(first, 0, 2);
    script.kill(first);
    let second = script.open();
    script.write_done(second, 1, 7);
    for disk in [A, B, C] {
        script.release(Wire::ToDisk(first, disk));
    }
    assert_eq!((script.copies(0), script.copies(1)), (1, 7));
    script.assert_equal_copies();
}

#[test]
fn a_seal_waits_for_the_take_over_and_shows_one_thing_on_all_disks() {
    // P1, W11: the next owner never touches the object that the dead one has half written, and makes a snapshot.
    let mut script = Script::new(2, 2, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.hold(Wire::ToDisk(first, B));
    script.write(first, 0, 2);
    script.lose(Wire::ToDisk(first, B));
    script.kill(first);
    assert_ne!(script.copy(A, 0), script.copy(B, 0));
    let second = script.begin_open(&[|front| Wire::ToDisk(front, B)]);
    assert!(!script.snapshot(second, "too early"));
    script.release(Wire::ToDisk(second, B));
    script.wait(100);
    assert!(script.snapshot(second, "s"));
    script.write_done(second, 0, 9);
    script.assert_equal_copies();
    // Whichever disk the reader asks.
    for disk in [A, B] {
        script.crash(disk);
        let reader = script.open_snapshot("s");
        assert_eq!(script.read(reader, 0), Some(2));
        script.start(disk);
    }
}

#[test]
fn a_disk_comes_back_to_a_volume_that_nobody_has_open() {
    // P4, W2: what a dead owner has left half done is copied with its doubt, and the next owner levels it, also
    // when the disk that alone had the write is gone by then.
    for holder in [A, B] {
        let other = if holder == A { B } else { A };
        let mut script = Script::new(3, 3, 1);
        let first = script.open();
        script.write_done(first, 0, 1);
        script.take_out(C);
        script.hold(Wire::ToDisk(first, other));
        script.write(first, 0, 2);
        script.lose(Wire::ToDisk(first, other));
        script.kill(first);
        script.bring(C, InSync);
        assert!(script.take_out(holder));
        let second = script.open();
        let seen = script.read(second, 0).unwrap();
        assert_eq!(script.copies(0), seen);
        script.come_back(holder);
        assert_eq!(script.copies(0), seen, "what was seen is not taken back");
    }
}

#[test]
fn a_disk_that_missed_a_merge_loses_nothing_of_the_parent() {
    // P5: equal stamps, and the parent's blocks are in the child elsewhere.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    script.write_done(owner, 1, 1);
    assert!(script.snapshot(owner, "s"));
    script.write_done(owner, 1, 2);
    script.take_out(C);
    script.delete_snapshot("s");
    for disk in [A, B] {
        script.reclaim(disk);
    }
    script.reclaimed();
    script.come_back(C);
    assert_eq!((script.copies(0), script.copies(1)), (1, 2));
}

#[test]
fn a_level_between_disks_of_which_one_has_merged_a_layer_drops_nothing() {
    // Q5, both ways round.
    for (merged, holder) in [(A, A), (A, B)] {
        let other = if holder == A { B } else { A };
        let mut script = Script::new(2, 2, 1);
        let first = script.open();
        script.write_done(first, 0, 1);
        assert!(script.snapshot(first, "s"));
        script.write_done(first, 1, 2);
        script.delete_snapshot("s");
        script.reclaim(merged);
        script.hold(Wire::ToDisk(first, other));
        script.write(first, 1, 3);
        script.lose(Wire::ToDisk(first, other));
        script.kill(first);
        script.open();
        assert_eq!((script.copies(0), script.copies(1)), (1, 3));
        script.reclaim(if merged == A { B } else { A });
        script.reclaimed();
        script.assert_equal_copies();
        assert_eq!((script.copies(0), script.copies(1)), (1, 3));
    }
}

#[test]
fn a_take_over_ends_only_when_what_it_levelled_is_durable() {
    // P8: else all could lose what the next owner has shown.
    let mut script = half_done(&[A], 2);
    let second = script.begin_open(&[|front| Wire::ToDisk(front, A)]);
    script.hold(Wire::Medium(B));
    script.release(Wire::ToDisk(second, A));
    script.wait(300);
    assert!(!script.is_open(second));
    script.release(Wire::Medium(B));
    script.wait(100);
    assert!(script.is_open(second));
    script.restart(B);
    assert_eq!(script.copies(0), 2);
}

/// The first owner is dead; of its last write, of 2, only these disks heard. Before it was 1.
fn half_done(holders: &[DiskId], disks: u8) -> Script {
    let mut script = Script::new(u32::from(disks), disks, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    let others: Vec<DiskId> = script
        .in_sync()
        .into_iter()
        .filter(|disk| !holders.contains(disk))
        .collect();
    for disk in &others {
        script.hold(Wire::ToDisk(first, *disk));
    }
    script.write(first, 0, 2);
    for disk in &others {
        script.lose(Wire::ToDisk(first, *disk));
    }
    script.kill(first);
    script
}

#[test]
fn a_copy_never_takes_away_what_was_confirmed() {
    // W1: no failure of anything is needed.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    script.take_out(C);
    script.bring(C, Joining);
    script.hold(Wire::ToDisk(owner, A));
    script.hold(Wire::ToDisk(owner, B));
    let write = script.write(owner, 0, 2);
    script.release(Wire::Question(C));
    script.wait(1_000);
    assert_eq!((script.state(C), script.copy(C, 0)), (Some(InSync), 2));
    script.release(Wire::ToDisk(owner, A));
    script.release(Wire::ToDisk(owner, B));
    script.wait(200);
    assert!(script.acknowledged(write));
    assert_eq!(script.copies(0), 2);
}

#[test]
fn what_a_take_over_that_was_cut_off_has_levelled_is_levelled_again() {
    // W3: C alone had the write and leaves when it is on B as well.
    let mut script = half_done(&[C], 3);
    let second = script.begin_open(&[|front| Wire::ToDisk(front, C)]);
    script.hold(Wire::Medium(A));
    script.release(Wire::ToDisk(second, C));
    assert_eq!(script.copy(B, 0), 2);
    script.restart(A);
    assert_eq!(script.copy(A, 0), 1);
    script.take_out(C);
    script.release(Wire::Medium(A));
    script.wait(300);
    assert!(script.is_open(second));
    assert_eq!(script.copies(0), 2);
}

#[test]
fn doubt_stays_until_all_disks_are_level_however_many_owners_die_on_the_way() {
    // W4.
    let mut script = half_done(&[A], 2);
    for _ in 0..3 {
        let next = script.begin_open(&[|front| Wire::ToDisk(front, A)]);
        script.wait(2_500); // B may have vouched for somebody before it was started anew.
        script.hold(Wire::Medium(B));
        script.release(Wire::ToDisk(next, A));
        script.kill(next);
        script.restart(B);
        script.release(Wire::Medium(B));
        assert_eq!((script.copy(A, 0), script.copy(B, 0)), (2, 1));
    }
    let last = script.open();
    assert_eq!(script.read(last, 0), Some(2));
    assert_eq!(script.copies(0), 2);
    script.wait(1_000);
    assert_eq!((script.in_doubt(A), script.in_doubt(B)), (0, 0));
}

#[test]
fn a_restart_in_the_middle_of_a_copy_leaves_an_object_as_it_was() {
    // W6: neither another's bytes under our stamp, nor another's stamp over our bytes.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    script.take_out(C);
    script.write_done(owner, 0, 2);
    script.write_done(owner, 40, 2);
    script.bring(C, Syncing);
    script.hold(Wire::Medium(C));
    script.release(Wire::Question(C));
    script.restart(C);
    assert_eq!((script.copy(C, 0), script.copy(C, 40)), (1, 0));
    script.release(Wire::Medium(C));
    script.come_back(C);
    assert_eq!((script.copies(0), script.copies(40)), (2, 2));
}

#[test]
fn nothing_is_complete_that_a_joining_disk_does_not_have() {
    // W10: all who are in sync have it; the disk that joins lists it only later.
    let mut script = Script::new(3, 3, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.take_out(C);
    script.bring(C, Joining);
    script.wait(1_000);
    script.hold(Wire::ToDisk(first, C));
    let write = script.write(first, 0, 2);
    script.wait(1_500);
    assert!(!script.acknowledged(write));
    assert_eq!((script.in_doubt(A), script.in_doubt(B)), (1, 1));
    script.lose(Wire::ToDisk(first, C));
    script.kill(first);
    let second = script.open();
    let seen = script.read(second, 0);
    script.come_back(C);
    assert_eq!(Some(script.copies(0)), seen);
}

#[test]
fn a_take_over_does_not_wait_for_a_disk_that_only_syncs() {
    // Q6: it gets no writes, and is compared once it joins.
    let mut script = Script::new(3, 3, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.take_out(C);
    script.write_done(first, 0, 2);
    script.bring(C, Syncing);
    script.kill(first);
    let second = script.begin_open(&[|front| Wire::ToDisk(front, C)]);
    script.wait(200);
    assert!(script.is_open(second));
    assert_eq!(script.read(second, 0), Some(2));
    script.write_done(second, 0, 3);
    script.release(Wire::ToDisk(second, C));
    script.come_back(C);
    assert_eq!(script.copies(0), 3);
}
