//! Persistent reservations of a unit: the pure machine's changes are swapped into the cluster's record, and changes that
//! other portals made are followed.

use std::rc::Rc;

use admin_api::iscsi::Reservations;

use crate::reservation::following::consequences;
use crate::reservation::request::{Action, Parameters};
use crate::reservation::{Change, Nexus, Refusal, change, status as report_of};
use crate::scsi::sense::{Sense, status};
use crate::source::SourceError;
use crate::unit::tasks::settled;
use crate::unit::{Done, Unit};

/// How often a change is made anew because another portal was faster. Each time another one has made progress; so many
/// times in a row mean that something is wrong.
const TRIES_MAX: u32 = 32;

/// PERSISTENT RESERVE IN: answered from what the cluster has now, for another path may just have changed it.
pub async fn report(unit: &Unit, action: u8, allocation: usize) -> Result<Done, Done> {
    let record = unit.keeper.load().await.map_err(|error| unavailable(&error))?;
    let answer = report_of::answer(&record, action)?;
    Ok(Done::data(answer, allocation))
}

/// PERSISTENT RESERVE OUT.
pub async fn out(unit: &Unit, nexus: &Nexus, action: u8, scope_type: u8, data: &[u8]) -> Result<Done, Done> {
    let action = Action::parse(action, scope_type)?;
    let parameters = Parameters::parse(action, data)?;
    let _changing = unit.changing.lock().await;
    for _ in 0..TRIES_MAX {
        let record = unit.record.borrow().clone();
        let change = match change(&record, nexus, action, &parameters) {
            Ok(change) => change,
            Err(refusal) => {
                // What is known here may be behind what another portal did a moment ago.
                let newer = unit.keeper.load().await.map_err(|error| unavailable(&error))?;
                if newer.revision == record.revision {
                    return Err(refused(refusal));
                }
                unit.replace(newer, nexus.portal_group).await;
                continue;
            }
        };
        match unit.keeper.swap(&change.record).await {
            Ok(Ok(kept)) => {
                *unit.record.borrow_mut() = kept;
                follow_up(unit, change).await;
                return Ok(Done::good());
            }
            Ok(Err(newer)) => unit.replace(newer, nexus.portal_group).await,
            Err(error) => return Err(unavailable(&error)),
        }
    }
    Err(Sense::INTERNAL.into())
}

/// Follows what other portals change, for ever.
pub async fn follow(unit: Rc<Unit>, portal_group: u16) {
    loop {
        let known = unit.record.borrow().revision;
        let newer = unit.keeper.changed(known).await;
        let _changing = unit.changing.lock().await;
        // An own change may have overtaken the answer.
        if unit.record.borrow().revision == known {
            unit.replace(newer, portal_group).await;
        }
    }
}

impl Unit {
    /// Another portal has replaced the record: takes the newer one, and does to the own paths what follows from it.
    /// `changing` must be held.
    async fn replace(&self, newer: Reservations, portal_group: u16) {
        let older = self.record.replace(newer);
        let found = consequences(&older, &self.record.borrow(), portal_group);
        for (nexus, sense) in &found.attentions {
            self.attentions.borrow_mut().tell(nexus, *sense);
        }
        self.abort_tasks_of(&found.abort).await;
    }

    async fn abort_tasks_of(&self, paths: &[Nexus]) {
        if !paths.is_empty() {
            settled(self.tasks.abort(|task| paths.contains(&task.nexus))).await;
        }
    }
}

fn refused(refusal: Refusal) -> Done {
    match refusal {
        Refusal::Conflict => Done::status(status::RESERVATION_CONFLICT),
        Refusal::Check(sense) => sense.into(),
    }
}

/// The cluster's records cannot be had. It passes, and initiators come again.
fn unavailable(error: &SourceError) -> Done {
    tracing::warn!(%error, "reservations cannot be had");
    Done::status(status::BUSY)
}

async fn follow_up(unit: &Unit, change: Change) {
    for (nexus, sense) in &change.attentions {
        unit.attentions.borrow_mut().tell(nexus, *sense);
    }
    unit.abort_tasks_of(&change.abort).await;
}
