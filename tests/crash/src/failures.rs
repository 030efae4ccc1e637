//! Failing I/O: an error from the n-th operation, for every n, once or from then on. What was
//! acknowledged stays; the disk says what happened; opened again it is in order.

use store::medium::memory::{Disk, Failure, Image};

use crate::Tally;
use crate::scenario::{self, Allowed, Scenario};

/// Fails every operation of a scenario in turn, in opening, running and closing.
pub fn fail_each(base: &Image, scenario: &Scenario, forever: bool, tally: &mut Tally) {
    let mut operation = 1;
    loop {
        let disk = Disk::new(base.clone());
        disk.plan(Some(Failure { operation, forever }));
        let outcome = with_failures(&disk, scenario);
        let reached = disk.operations() >= operation;
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

fn with_failures(disk: &Disk, scenario: &Scenario) -> Result<(), String> {
    let mut allowed = Allowed::from(0);
    if let Ok(mut store) = scenario::open(disk) {
        let run = scenario::run(disk, &mut store, scenario, false)?;
        allowed.answered = run.allowed_before(u64::MAX).answered;
        // A read may fail and be told; a store whose write failed is out of service. Both answer.
        scenario::view(&mut store)?.ok();
        store.close().ok();
    }
    disk.plan(None);
    disk.end_process();
    let mut store = scenario::open(disk)?;
    scenario::recognize(&mut store, scenario, &allowed)?;
    disk.end_process();
    Ok(())
}
