//! What breaks in Vitastor, as far as it is the protocol's, as the same situations are here (docs/lessons.md).

use super::*;

#[test]
fn what_was_deleted_while_a_disk_was_away_does_not_come_back_with_it() {
    // Its known problem: what is deleted in a degraded cluster may come up again.
    let mut script = Script::new(3, 3, 1);
    let owner = script.open();
    script.write_done(owner, 0, 1);
    assert!(script.snapshot(owner, "s"));
    script.write_done(owner, 0, 2);
    script.take_out(C);
    script.delete_snapshot("s");
    let zeros = script.zero(owner, 0, SECOND);
    assert!(script.acknowledged(zeros));
    for disk in [A, B] {
        script.reclaim(disk);
    }
    script.reclaimed();
    let before = script.disks[&C].store.objects().len();
    script.come_back(C);
    assert_eq!(script.copies(0), 0);
    assert!(
        script.disks[&C].store.objects().len() < before,
        "the old layer is gone there, too"
    );
}

#[test]
fn a_disk_takes_writes_of_the_present_owner_only_whoever_is_connected() {
    // By default a secondary takes writes from any connected primary.
    let mut script = Script::new(2, 2, 1);
    let first = script.open();
    script.write_done(first, 0, 1);
    script.hold(Wire::View(first));
    script.depose(first);
    let second = script.open();
    let late = script.write(first, 0, 2);
    script.wait(100);
    assert!(script.is_lost(first));
    assert!(!script.acknowledged(late));
    assert_eq!(script.copies(0), 1);
    script.write_done(second, 0, 3);
    script.assert_equal_copies();
}

#[test]
fn a_disk_that_starts_again_and_again_under_writes_has_the_right_versions() {
    // 79: after a restart some objects were at a version that they should not have had.
    let mut script = Script::new(3, 3, 2);
    let owner = script.open();
    let mut writes = Vec::new();
    for round in 1..40_u64 {
        let disk = [A, B, C][usize::try_from(round % 3).unwrap()];
        script.hold(Wire::Medium(disk));
        for block in 0..3 {
            writes.push(script.write(owner, block, u8::try_from(round).unwrap()));
        }
        // Some of it has become durable.
        for _ in 0..round % 4 {
            script.deliver_from(Wire::Medium(disk));
        }
        script.restart(disk);
        script.release(Wire::Medium(disk));
        script.wait(100);
    }
    script.wait(2_000);
    assert!(writes.iter().all(|write| script.acknowledged(*write)));
    assert_eq!([0, 1, 2].map(|block| script.copies(block)), [39; 3]);
    script.assert_equal_copies();
    assert!(script.suspected.is_empty(), "{:?}", script.suspected);
}
