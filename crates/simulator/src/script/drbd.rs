//! What DRBD's change logs of 9.2.13 to 9.3.3 tell of, as the same situations are here (docs/lessons.md).

use super::*;
use SlotState::{Down, InSync, Joining, Syncing};

#[test]
fn a_disk_that_never_heard_of_the_next_owner_is_not_taken_for_equal() {
    // 9.2.19: a new data generation that one peer never received.
    let mut script = Script::new(2, 2, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.kill(first);
    let second = script.begin_open(&[|front| Wire::ToDisk(front, B)]);
    script.wait(200);
    assert!(!script.is_open(second), "nothing is served before B knows");
    script.hold(Wire::Map(B));
    assert!(script.take_out(B));
    script.wait(200);
    script.write_done(second, 0, 2);
    script.kill(second);
    // B is reached again, and knows neither the owner nor that it is out.
    script.crash(A);
    let third = script.begin_open(&[]);
    script.wait(3_000);
    assert!(!script.is_open(third), "B alone is not enough");
    script.start(A);
    script.wait(2_000);
    assert!(script.is_open(third));
    assert_eq!(script.read(third, 0), Some(2));
    script.release(Wire::Map(B));
    script.come_back(B);
    assert_eq!(script.copies(0), 2);
}

#[test]
fn an_owner_that_missed_that_a_disk_was_filled_by_another_acknowledges_nothing_without_it() {
    // 9.2.19: the owner thought that nothing had changed, since a third one had brought the peer up to date.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    script.take_out(C);
    script.write_done(owner, 0, 2);
    script.hold(Wire::View(owner));
    script.come_back(C);
    let write = script.write(owner, 0, 3);
    script.wait(500);
    assert!(!script.acknowledged(write));
    // As far as it may go the other way, too: who has left gives no oks.
    script.release(Wire::View(owner));
    script.wait(200);
    assert!(script.acknowledged(write));
    assert_eq!(script.copies(0), 3);
}

#[test]
fn disks_that_were_out_in_turns_come_back_whatever_owners_they_saw() {
    // 9.2.19, 9.2.12: a history of generations that looked like that of other data.
    let mut script = Script::new(3, 3, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.take_out(C);
    script.write_done(first, 1, 2);
    script.kill(first);
    let second = script.open();
    script.take_out(B);
    script.write_done(second, 2, 3);
    script.kill(second);
    let third = script.open();
    script.write_done(third, 0, 4);
    script.come_back(C);
    assert!(script.take_out(A));
    script.write_done(third, 1, 5);
    script.come_back(B);
    script.write_done(third, 2, 6);
    script.come_back(A);
    assert_eq!([0, 1, 2].map(|block| script.copies(block)), [4, 5, 6]);
    assert_eq!(script.in_sync(), [A, B, C]);
}

#[test]
fn a_stale_disk_alone_serves_nobody() {
    // 9.2.19: a survivor was promoted before it had reconciled.
    let mut script = Script::new(2, 2, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.take_out(B);
    script.write_done(first, 0, 2);
    script.kill(first);
    script.crash(A);
    for _ in 0..10 {
        script.nudge(B);
    }
    assert_ne!(script.state(B), Some(InSync));
    let second = script.begin_open(&[]);
    script.wait(3_000);
    assert!(!script.is_open(second));
    assert!(
        !script.take_out(A),
        "the last one that has everything stays in the record"
    );
    script.start(A);
    script.wait(2_000);
    assert_eq!(script.read(second, 0), Some(2));
    script.come_back(B);
    assert_eq!(script.copies(0), 2);
}

#[test]
fn disks_that_agree_on_everything_but_one_write_are_made_level() {
    // 9.2.19: bits that said so were dropped, as both were at the same generation. Here the doubt is durable.
    let mut script = Script::new(2, 2, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.wait(1_000);
    script.hold(Wire::ToDisk(first, B));
    script.write(first, 0, 2);
    script.lose(Wire::ToDisk(first, B));
    script.kill(first);
    for disk in [A, B] {
        script.restart(disk);
    }
    assert_eq!(
        (script.in_doubt(A), script.in_doubt(B)),
        (1, 0),
        "nobody told of completion"
    );
    let second = script.open();
    assert_eq!(script.copies(0), 2);
    assert_eq!(script.read(second, 0), Some(2));
    script.wait(1_000);
    assert_eq!((script.in_doubt(A), script.in_doubt(B)), (0, 0));
}

#[test]
fn the_end_of_a_resync_that_the_disk_itself_missed_is_found_in_the_record() {
    // 9.2.17: missed ends of resyncs, also of some with nothing to copy, left both ends in different states.
    for written in [false, true] {
        let mut script = Script::new(2, 2, 1);
        let owner = script.open();
        script.write_done(owner, 0, 1);
        script.take_out(B);
        if written {
            script.write_done(owner, 0, 2);
        }
        script.bring(B, Joining);
        script.hold(Wire::Map(B));
        script.release(Wire::Question(B));
        script.wait(1_000);
        assert_eq!(script.state(B), Some(InSync), "and it does not know");
        script.restart(B);
        script.release(Wire::Map(B));
        script.wait(200);
        assert_eq!(script.state(B), Some(InSync));
        script.write_done(owner, 0, 3);
        assert_eq!(script.copies(0), 3);
    }
}

#[test]
fn a_resync_whose_end_came_too_late_begins_anew() {
    // The same, the other way: the disk thinks that it is in sync, and the group has changed meanwhile.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    script.take_out(C);
    script.write_done(owner, 0, 2);
    script.bring(C, Joining);
    script.hold(Wire::Swap(C));
    script.release(Wire::Question(C));
    assert!(script.take_out(C), "the owner waited for too long");
    script.write_done(owner, 0, 3);
    script.release(Wire::Swap(C));
    assert_eq!(script.state(C), Some(Down));
    script.come_back(C);
    assert_eq!(script.copies(0), 3);
}

#[test]
fn a_disk_on_its_way_back_counts_for_nothing() {
    // 9.2.18: the quorum was counted wrongly while a disk was attached or detached.
    for state in [Syncing, Joining] {
        let mut script = Script::new(3, 3, 2);
        let owner = script.open();
        script.write_done(owner, 0, 1);
        script.take_out(C);
        script.bring(C, state);
        assert!(!script.take_out(B), "{state:?}");
        script.crash(B);
        let write = script.write(owner, 0, 2);
        script.wait(1_000);
        assert!(!script.acknowledged(write), "{state:?}");
        // Somebody wrote the record by hand.
        let mut slots = script.cluster.map.group(PG).unwrap().slots.clone();
        slots.iter_mut().find(|slot| slot.disk == B).unwrap().state = Down;
        script.cluster.change_group(PG, slots);
        script.map_changed();
        script.wait(1_000);
        assert!(
            !script.acknowledged(write),
            "{state:?}: one disk is in sync, and two must be"
        );
        script.come_back(C);
        script.wait(200);
        assert!(script.acknowledged(write), "{state:?}");
    }
}

#[test]
fn a_copy_of_zeros_touches_no_block_beside_them() {
    // 9.2.13: zeros of the source became discards of more than that at the target.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    for block in 0..48 {
        script.write_done(owner, block, 1);
    }
    script.take_out(C);
    let zeros = script.zero(owner, 5, 30);
    assert!(script.acknowledged(zeros));
    script.come_back(C);
    script.take_out(A);
    script.take_out(B);
    let mut wanted = [1; 48];
    wanted[5..35].fill(0);
    assert_eq!(script.read_many(owner, 0, 48).unwrap(), wanted);
}

#[test]
fn a_disk_joins_although_a_guest_writes_all_the_time() {
    // 9.2.8, 9.2.15: resyncs that never came to an end under writes.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    for object in 0..u64::from(OBJECTS) {
        script.write_done(owner, object * SECOND, 1);
    }
    script.take_out(C);
    for object in 0..u64::from(OBJECTS) {
        script.write_done(owner, object * SECOND, 2);
    }
    script.feed_disk(C, replica::Event::Nudge { returns: true });
    let (mut writes, patience) = (Vec::new(), 20_000);
    for step in 0..patience {
        if script.state(C) == Some(InSync) {
            break;
        }
        // As many as are answered; a queue that only grows would be nobody's guest.
        if script.mail.len() < 12 {
            let object = u64::try_from(writes.len()).unwrap() % u64::from(OBJECTS);
            writes.push(script.write_unsettled(owner, object * SECOND, 3));
        }
        script.deliver_one();
        if step % 50 == 0 {
            script.let_pass();
            script.feed_disk(C, replica::Event::Nudge { returns: true });
        }
    }
    assert_eq!(script.state(C), Some(InSync));
    script.wait(200);
    assert!(
        writes.len() > 2 * usize::try_from(OBJECTS).unwrap(),
        "{}",
        writes.len()
    );
    assert!(writes.iter().all(|write| script.acknowledged(*write)));
    script.assert_equal_copies();
}

/// What may happen in the middle of a resync of C.
type Incident = fn(&mut Script);

const INCIDENTS: [(&str, Incident); 7] = [
    ("a write", |script| {
        script.write_unsettled(0, 0, 9);
    }),
    ("a discard", |script| {
        script.zero_unsettled(0, 0, 1);
    }),
    ("the disk dies", |script| {
        script.write_unsettled(0, 0, 9);
        script.restart(C);
    }),
    ("one source dies", |script| {
        script.write_unsettled(0, 0, 9);
        script.restart(A);
    }),
    ("one source leaves", |script| {
        script.write_unsettled(0, 0, 9);
        script.take_out(B);
    }),
    ("the owner dies", |script| {
        script.write_unsettled(0, 0, 9);
        script.kill(0);
        script.begin_open(&[]);
    }),
    ("the power of all", |script| {
        script.write_unsettled(0, 0, 9);
        for disk in [A, B, C] {
            script.crash(disk);
        }
        for disk in [C, B, A] {
            script.start(disk);
        }
    }),
];

#[test]
fn whatever_happens_at_any_moment_of_a_resync_the_disk_is_equal_when_it_is_in_sync() {
    // 9.2.14: a write that raced with a very short resync was not resynced. 9.2.12: a connection lost during one.
    for (name, incident) in INCIDENTS {
        let mut moments = 0;
        loop {
            let mut script = Script::new(3, 3, 1);
            let owner = script.open();
            for block in [0, 1, SECOND] {
                script.write_done(owner, block, 1);
            }
            script.take_out(C);
            for block in [0, SECOND] {
                script.write_done(owner, block, 2);
            }
            script.feed_disk(C, replica::Event::Nudge { returns: true });
            let mut left = moments;
            let mut over = false;
            while left > 0 && !over {
                if script.deliver_one() {
                    left -= 1;
                } else {
                    over = script.state(C) == Some(InSync);
                    script.let_pass();
                }
            }
            incident(&mut script);
            script.wait(2_000);
            let last = script.fronts.len() - 1;
            assert!(
                script.is_open(last),
                "{name} after {moments}: {:?}",
                script.waiting(last)
            );
            script.come_back(C);
            script.come_back(B);
            let seen = script.read(last, 0).unwrap();
            assert!([2, 9, 0].contains(&seen), "{name} after {moments}");
            assert_eq!(script.copies(0), seen, "{name} after {moments}");
            assert_eq!(
                (script.copies(1), script.copies(SECOND)),
                (1, 2),
                "{name} after {moments}"
            );
            script.write_done(last, 0, 3);
            assert_eq!(script.copies(0), 3, "{name} after {moments}");
            if over {
                break;
            }
            moments += 1;
        }
        assert!(moments > 20, "{name}: {moments} moments");
    }
}
