//! Persistent reservations of a unit: the pure machine's changes are swapped into the cluster's record.

use crate::reservation::request::{Action, Parameters};
use crate::reservation::{Change, Nexus, Refusal, change, status as report_of};
use crate::scsi::sense::{Sense, status};
use crate::unit::tasks::settled;
use crate::unit::{Done, Unit};

/// How often a change is made anew because another portal was faster. Each time another one has made progress; so many
/// times in a row mean that something is wrong.
const TRIES_MAX: u32 = 32;

/// PERSISTENT RESERVE IN.
pub fn report(unit: &Unit, action: u8, allocation: usize) -> Result<Done, Done> {
    let answer = report_of::answer(&unit.record.borrow(), action)?;
    Ok(Done::data(answer, allocation))
}

/// PERSISTENT RESERVE OUT.
pub async fn out(unit: &Unit, nexus: &Nexus, action: u8, scope_type: u8, data: &[u8]) -> Result<Done, Done> {
    let action = Action::parse(action, scope_type)?;
    let parameters = Parameters::parse(action, data)?;
    for _ in 0..TRIES_MAX {
        let record = unit.record.borrow().clone();
        let change = change(&record, nexus, action, &parameters).map_err(|refusal| match refusal {
            Refusal::Conflict => Done::status(status::RESERVATION_CONFLICT),
            Refusal::Check(sense) => sense.into(),
        })?;
        match unit.keeper.swap(&change.record) {
            Ok(Ok(kept)) => {
                *unit.record.borrow_mut() = kept;
                follow_up(unit, change).await;
                return Ok(Done::good());
            }
            Ok(Err(newer)) => *unit.record.borrow_mut() = newer,
            Err(error) => {
                tracing::warn!(%error, "the cluster's reservations cannot be changed");
                return Err(Sense::INTERNAL.into());
            }
        }
    }
    Err(Sense::INTERNAL.into())
}

async fn follow_up(unit: &Unit, change: Change) {
    for (nexus, sense) in &change.attentions {
        unit.attentions.borrow_mut().tell(nexus, *sense);
    }
    if !change.abort.is_empty() {
        settled(unit.tasks.abort(|task| change.abort.contains(&task.nexus))).await;
    }
}
