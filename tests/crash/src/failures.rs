//! Failing I/O: an error from the n-th operation, for every n, once or from then on. What was
//! acknowledged stays; the disk says what happened; opened again it is in order.

use store::medium::memory::{Disk, Failure, Fate, Image};

use crate::scenario::{self, Allowed, Scenario};
use crate::{Tally, images};

/// Fails every operation of a scenario in turn, in opening, running and closing.
pub fn fail_each(base: &Image, scenario: &Scenario, forever: bool, tally: &mut Tally) {
    let mut operation = 1;
    loop {
        let disk = Disk::new(base.clone());
        disk.plan(Some(Failure { operation, forever }));
        let ran = run(&disk, scenario);
        // Asked before the disk is opened again, which has operations of its own.
        let reached = disk.operations() >= operation;
        disk.plan(None);
        disk.end_process();
        let outcome = ran.and_then(|allowed| look(&disk.image(), scenario, &allowed));
        tally.count(outcome, || {
            format!(
                "{:?}, operation {operation} fails (for ever: {forever})",
                scenario.kinds
            )
        });
        if !reached || tally.is_hopeless() {
            return;
        }
        operation += 1;
    }
}

/// Runs a scenario as far as it goes: what its answers promise.
fn run(disk: &Disk, scenario: &Scenario) -> Result<Allowed, String> {
    let mut allowed = Allowed::from(0);
    if let Ok(mut store) = scenario::open(disk) {
        let run = scenario::run(disk, &mut store, scenario, false)?;
        allowed.answered = run.allowed_before(u64::MAX, scenario).answered;
        // A read may fail and be told; a store whose write failed is out of service. Both answer.
        scenario::view(&mut store)?.ok();
        store.close().ok();
    }
    Ok(allowed)
}

/// The process ended after the failure; and the power, too, before anybody else flushed anything.
fn look(image: &Image, scenario: &Scenario, allowed: &Allowed) -> Result<(), String> {
    for fate in [Fate::Lost, Fate::Torn(1), Fate::Kept] {
        let fates = vec![fate; image.unflushed()];
        let cut = Disk::new(image.after_power_cut(&fates));
        let outcome = scenario::open(&cut)
            .and_then(|mut store| scenario::recognize(&mut store, scenario, allowed).map(drop));
        outcome.map_err(|what| format!("after a power cut, too ({fate:?}): {what}"))?;
        cut.end_process();
    }
    images::survive(image, scenario, allowed)
}
