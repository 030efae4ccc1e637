//! A disk leaves its groups when the present owner says so, in as many transactions as it takes, and
//! never where it is needed.

use coordination::Compare;

use super::fixture::{OWNED_AT, POOL, VOLUME, map};
use super::*;

const C: DiskId = DiskId(3);

fn suspicion(generation: u64) -> Suspicion {
    Suspicion {
        volume: VOLUME,
        generation: Generation(generation),
        disk: C,
        reason: "it is not connected".into(),
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
