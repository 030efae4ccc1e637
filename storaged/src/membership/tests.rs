//! A disk leaves its groups when the present owner says so, in as many transactions as it takes, and
//! never where it is needed.

use coordination::Compare;

use super::fixture::{GROUPS_AT, OWNED_AT, POOL, VOLUME, map, map_with};
use super::*;

const C: DiskId = DiskId(3);

fn suspicion(generation: u64) -> Suspicion {
    Suspicion {
        volume: VOLUME,
        generation: Generation(generation),
        disk: C,
        reason: "it is not connected".into(),
        slow: false,
    }
}

fn decided(map: &ClusterMap, suspicion: &Suspicion) -> Result<Box<Plan<Outcome>>, Outcome> {
    match plan(map, suspicion).unwrap() {
        Decision::Change(plan) => Ok(plan),
        Decision::Unchanged(outcome) => Err(outcome),
    }
}

#[test]
fn an_eviction_is_on_the_condition_that_owner_and_groups_are_as_they_were() {
    // P10, rule 4: a zombie, or one who saw an older record, changes nothing.
    let plan = decided(&map(2, 2), &suspicion(OWNED_AT)).unwrap();
    let group = Key::Group(PgId {
        pool: POOL,
        number: 1,
    })
    .to_text();
    assert_eq!(
        plan.transaction.compares[0],
        Compare::Created(Key::Owner(VOLUME).to_text(), Revision(OWNED_AT))
    );
    assert_eq!(
        plan.transaction.compares[2],
        Compare::Modified(group, Revision(3))
    );
    let told = plan.event.unwrap();
    assert!(
        told.message.contains("disk-3") && told.message.contains("2 placement groups"),
        "{told:?}"
    );
}

#[test]
fn a_former_owner_evicts_nobody() {
    assert_eq!(
        decided(&map(2, 2), &suspicion(OWNED_AT - 1)).unwrap_err(),
        Outcome::default()
    );
}

#[test]
fn a_disk_that_is_needed_stays() {
    let outcome = decided(&map(2, 3), &suspicion(OWNED_AT)).unwrap_err();
    assert_eq!(outcome, Outcome { left: 0, needed: 2 });
}

#[test]
fn many_groups_take_several_transactions_each_within_the_limit() {
    let plan = decided(&map(256, 2), &suspicion(OWNED_AT)).unwrap();
    assert_eq!(plan.result.left, GROUPS_MAX);
    let most = coordination::store::TRANSACTION_STEPS_MAX;
    assert!(plan.transaction.compares.len() < most && plan.transaction.changes.len() < most);
}

fn step(number: u32, interval: u64, from: SlotState, to: SlotState) -> Step {
    let (settled, _) = oneshot::channel();
    Step {
        disk: C,
        pg: PgId { pool: POOL, number },
        interval: Interval(interval),
        from,
        to,
        settled,
    }
}

#[test]
fn a_disk_takes_its_steps_in_one_transaction_and_people_are_told_of_the_first_and_the_last() {
    use SlotState::{Down, InSync, Joining, Syncing};
    let told = |state, from, to| {
        let steps = [step(0, GROUPS_AT, from, to), step(1, GROUPS_AT, from, to)];
        match plan_steps(&map_with(state, 2), C, &steps).unwrap() {
            Decision::Change(plan) => {
                assert_eq!(plan.transaction.compares.len(), 2);
                assert_eq!(plan.transaction.changes.len(), 2);
                plan.event.map(|event| event.message)
            }
            Decision::Unchanged(()) => panic!("nothing was done"),
        }
    };
    assert_eq!(
        told(Down, Down, Syncing).unwrap(),
        "disk-3 comes back to 2 placement groups of pool fast"
    );
    assert_eq!(told(Syncing, Syncing, Joining), None);
    assert_eq!(
        told(Joining, Joining, InSync).unwrap(),
        "disk-3 is in sync in all its placement groups of pool fast again"
    );
}

#[test]
fn a_step_of_another_interval_or_from_another_state_is_not_taken() {
    use SlotState::{Down, Joining, Syncing};
    let wrong = [
        step(0, GROUPS_AT - 1, Down, Syncing),
        step(1, GROUPS_AT, Syncing, Joining),
    ];
    let decision = plan_steps(&map_with(Down, 2), C, &wrong).unwrap();
    assert!(matches!(decision, Decision::Unchanged(())));
}

#[test]
fn a_disk_that_died_while_it_came_back_is_not_waited_for_any_more() {
    for state in [SlotState::Syncing, SlotState::Joining] {
        let Decision::Change(plan) = plan_absence(&map_with(state, 3), C).unwrap() else {
            panic!("it stays");
        };
        assert_eq!(plan.result, 2);
    }
    for state in [SlotState::InSync, SlotState::Down] {
        let decision = plan_absence(&map_with(state, 2), C).unwrap();
        assert!(matches!(decision, Decision::Unchanged(0)));
    }
}
