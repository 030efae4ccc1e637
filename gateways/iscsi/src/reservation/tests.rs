//! Dialogues of two and three paths, and laws over random ones.
use super::access::conflicts;
use super::*;
use crate::scsi::command::{Area, Command};
use proptest::prelude::*;

fn nexus(number: u8) -> Nexus {
    Nexus {
        initiator: format!("iqn.2026-01.example:{number}"),
        isid: format!("80000000000{number}"),
        target: "iqn.2026-01.example:t".into(),
        portal_group: 1,
    }
}

fn keys(key: u64, service_key: u64) -> Parameters {
    Parameters {
        key,
        service_key,
        aptpl: false,
        moved: None,
    }
}

/// Two paths, registered with the keys 1 and 2.
fn two() -> Reservations {
    let one = change(&Reservations::default(), &nexus(1), Action::Register, &keys(0, 1)).unwrap();
    change(&one.record, &nexus(2), Action::Register, &keys(0, 2))
        .unwrap()
        .record
}

fn reserved(scope_type: u8) -> Reservations {
    change(&two(), &nexus(1), Action::Reserve(scope_type), &keys(1, 0))
        .unwrap()
        .record
}

const READ: Command = Command::Read(Area { block: 0, count: 1 });
const WRITE: Command = Command::Write(Area { block: 0, count: 1 });

#[test]
fn a_wrong_key_is_a_conflict_and_ignoring_helps() {
    let record = two();
    assert_eq!(
        change(&record, &nexus(1), Action::Register, &keys(9, 3)),
        Err(Refusal::Conflict)
    );
    assert_eq!(
        change(&record, &nexus(3), Action::Register, &keys(9, 3)),
        Err(Refusal::Conflict)
    );
    assert_eq!(
        change(&record, &nexus(3), Action::Reserve(1), &keys(0, 0)),
        Err(Refusal::Conflict)
    );
    let changed = change(&record, &nexus(1), Action::RegisterIgnoring, &keys(0, 3))
        .unwrap()
        .record;
    assert_eq!((key_of(&changed, &nexus(1)), changed.generation), (Some(3), 3));
}

#[test]
fn each_type_lets_in_whom_it_should() {
    // Type; registrants read and write; strangers read and write.
    for (scope_type, expected) in [
        (1, [true, false, true, false]),
        (3, [false, false, false, false]),
        (5, [true, true, true, false]),
        (6, [true, true, false, false]),
        (7, [true, true, true, false]),
        (8, [true, true, false, false]),
    ] {
        let record = reserved(scope_type);
        let may = [(2, READ), (2, WRITE), (3, READ), (3, WRITE)]
            .map(|(path, command)| !conflicts(&record, &nexus(path), &command));
        assert_eq!(may, expected, "type {scope_type}");
        assert!(!conflicts(&record, &nexus(1), &WRITE), "the holder writes");
        assert!(!conflicts(&record, &nexus(3), &Command::TestUnitReady));
    }
}

#[test]
fn a_release_tells_registrants_of_types_that_let_them_in() {
    for (scope_type, told) in [(1, false), (3, false), (5, true), (6, true), (7, true), (8, true)] {
        let change = change(
            &reserved(scope_type),
            &nexus(1),
            Action::Release(scope_type),
            &keys(1, 0),
        )
        .unwrap();
        assert_eq!(change.record.holder, None);
        let expected = told.then(|| (nexus(2), Sense::RESERVATIONS_RELEASED));
        assert_eq!(change.attentions, Vec::from_iter(expected), "type {scope_type}");
    }
    let wrong = change(&reserved(1), &nexus(1), Action::Release(3), &keys(1, 0));
    assert_eq!(wrong, Err(Refusal::Check(Sense::INVALID_RELEASE)));
}

#[test]
fn a_preempted_holder_is_gone_and_told() {
    let action = Action::Preempt {
        scope_type: 3,
        abort: true,
    };
    let change = change(&reserved(1), &nexus(2), action, &keys(2, 1)).unwrap();
    assert!(is_holder(&change.record, &nexus(2)) && key_of(&change.record, &nexus(1)).is_none());
    assert_eq!(change.attentions, [(nexus(1), Sense::REGISTRATIONS_PREEMPTED)]);
    assert_eq!(change.abort, [nexus(1)]);
}

#[test]
fn preempting_nobody_is_a_conflict_and_key_zero_is_an_error() {
    let action = Action::Preempt {
        scope_type: 1,
        abort: false,
    };
    assert_eq!(
        change(&reserved(1), &nexus(2), action, &keys(2, 9)),
        Err(Refusal::Conflict)
    );
    assert_eq!(
        change(&reserved(1), &nexus(2), action, &keys(2, 0)),
        Err(Refusal::Check(Sense::parameter(8)))
    );
    let all = change(&reserved(7), &nexus(2), action, &keys(2, 0))
        .unwrap()
        .record;
    assert_eq!(all.registrations.len(), 1);
    assert_eq!(all.holder.unwrap().scope_type, 1);
}

#[test]
fn a_holder_that_leaves_gives_it_up_unless_all_hold_it() {
    let left = change(&reserved(5), &nexus(1), Action::Register, &keys(1, 0)).unwrap();
    assert_eq!(left.record.holder, None);
    assert_eq!(left.attentions, [(nexus(2), Sense::RESERVATIONS_RELEASED)]);
    let left = change(&reserved(7), &nexus(1), Action::Register, &keys(1, 0)).unwrap();
    assert!(is_holder(&left.record, &nexus(2)) && left.attentions.is_empty());
}

#[test]
fn a_reservation_moves_to_a_path_that_is_named() {
    let moved = Moved {
        unregister: true,
        port: 1,
        initiator: nexus(3).initiator,
        isid: nexus(3).isid,
    };
    let parameters = Parameters {
        moved: Some(moved),
        ..keys(1, 7)
    };
    let record = change(&reserved(1), &nexus(1), Action::RegisterAndMove, &parameters)
        .unwrap()
        .record;
    assert!(is_holder(&record, &nexus(3)) && key_of(&record, &nexus(3)) == Some(7));
    assert_eq!(key_of(&record, &nexus(1)), None);
    let parameters = Parameters { key: 2, ..parameters };
    assert_eq!(
        change(&reserved(1), &nexus(2), Action::RegisterAndMove, &parameters),
        Err(Refusal::Conflict)
    );
}

#[test]
fn answers_have_golden_bytes() {
    let record = reserved(1);
    let keys = [
        0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
    ];
    assert_eq!(status::answer(&record, 0).unwrap(), keys);
    let held = status::answer(&record, 1).unwrap();
    assert_eq!((held.len(), held[7], held[15], held[21]), (24, 16, 1, 1));
    assert_eq!(status::answer(&record, 2).unwrap()[..2], [0, 8]);
    let full = status::answer(&record, 3).unwrap();
    assert_eq!(full[8 + 24], 0x45);
    assert_eq!(status::answer(&record, 4), Err(Sense::cdb(1)));
}

proptest! {
    #[test]
    fn a_holder_is_always_registered(steps in proptest::collection::vec((1u8..4, 0u8..8, 0u8..9, 0u64..4, 0u64..4), 0..40)) {
        let mut record = Reservations::default();
        for (path, action, scope_type, key, service_key) in steps {
            let Ok(action) = Action::parse(action, scope_type) else { continue };
            let moved = Moved { unregister: key == 1, port: 1, initiator: nexus(3).initiator, isid: nexus(3).isid };
            let parameters = Parameters { moved: Some(moved), ..keys(key, service_key) };
            if let Ok(change) = change(&record, &nexus(path), action, &parameters) {
                record = change.record;
            }
            prop_assert!(record.registrations.len() <= 3);
            if let Some(holder) = &record.holder {
                prop_assert!(record.registrations.iter().any(|known| is_of(holder, &nexus_of(known))));
            }
        }
    }
}
