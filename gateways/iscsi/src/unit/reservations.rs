//! Reservations of a unit, of both kinds: the pure machines' changes are swapped into the cluster's record, and changes
//! that other portals made are followed. A command that changes the record is answered when all portals go by it
//! (`docs/decisions/0067-notices.md`).

use std::rc::Rc;

use admin_api::iscsi::Reservations;

use crate::reservation::following::consequences;
use crate::reservation::request::{Action, Parameters};
use crate::reservation::{Nexus, Refusal, change, older, status as report_of};
use crate::scsi::sense::{Sense, status};
use crate::source::SourceError;
use crate::unit::tasks::{Task, settled};
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
pub async fn out(unit: &Unit, task: &Task, action: u8, scope_type: u8, data: &[u8]) -> Result<Done, Done> {
    let nexus = &task.nexus;
    let action = Action::parse(action, scope_type)?;
    let parameters = Parameters::parse(action, data)?;
    let change = amend(unit, |record| {
        let change = change(record, nexus, action, &parameters).map_err(refused)?;
        Ok((change.record.clone(), change))
    })
    .await?;
    for (nexus, sense) in &change.attentions {
        unit.attentions.borrow_mut().tell(nexus, *sense);
    }
    let aborted = unit.abort_tasks_of(Some(nexus), &change.abort);
    // Two that preempt each other do not wait for each other.
    task.has_changed_all();
    settled(aborted).await;
    told(unit).await
}

/// RESERVE.
pub async fn reserve(unit: &Unit, task: &Task) -> Result<Done, Done> {
    let reserve = |record: &Reservations| Ok((older::reserve(record, &task.nexus).map_err(refused)?, ()));
    amend(unit, reserve).await?;
    task.has_changed_all();
    told(unit).await
}

/// RELEASE.
pub async fn release(unit: &Unit, task: &Task) -> Result<Done, Done> {
    give_up(unit, &task.nexus).await?;
    task.has_changed_all();
    told(unit).await
}

/// Returns when all portals know what has changed.
async fn told(unit: &Unit) -> Result<Done, Done> {
    let told = unit.keeper.give_notice().await;
    told.map(|()| Done::good()).map_err(|error| unavailable(&error))
}

/// A path ends: what it had reserved is free.
pub async fn give_up(unit: &Unit, nexus: &Nexus) -> Result<(), Done> {
    amend(unit, |record| Ok((older::release(record, nexus), ()))).await
}

/// Reads the record for the first time, before anybody uses the unit.
pub async fn read(unit: &Unit) -> Result<(), SourceError> {
    let _changing = unit.changing.lock().await;
    let record = unit.keeper.load().await?;
    *unit.record.borrow_mut() = record;
    Ok(())
}

/// This gateway begins to serve a unit: what was reserved through its portal group was by sessions that are gone.
pub async fn begin(unit: &Unit) -> Result<(), Done> {
    let portal_group = unit.identity.portal_group;
    amend(unit, |record| {
        Ok((older::release_group(record, portal_group), ()))
    })
    .await
}

/// A reset by a task management function. All portals have done it when this returns; an error if one of them may not.
pub async fn reset(unit: &Unit) -> Result<(), Done> {
    unit.forget_settings();
    amend(unit, |record| Ok((older::reset(record), ()))).await?;
    told(unit).await.map(drop)
}

/// Replaces the record by what `decide` makes of it. What is refused is refused by the newest record: the one that is
/// known here may be behind what another portal did a moment ago.
async fn amend<T>(
    unit: &Unit,
    decide: impl Fn(&Reservations) -> Result<(Reservations, T), Done>,
) -> Result<T, Done> {
    let _changing = unit.changing.lock().await;
    for _ in 0..TRIES_MAX {
        let record = unit.record.borrow().clone();
        let (next, decided) = match decide(&record) {
            Ok(decided) => decided,
            Err(done) => {
                let newer = unit.keeper.load().await.map_err(|error| unavailable(&error))?;
                if newer.revision == record.revision {
                    return Err(done);
                }
                unit.replace(newer);
                continue;
            }
        };
        if next == record {
            return Ok(decided);
        }
        match unit.keeper.swap(&next).await {
            Ok(Ok(kept)) => {
                *unit.record.borrow_mut() = kept;
                return Ok(decided);
            }
            Ok(Err(newer)) => unit.replace(newer),
            Err(error) => return Err(unavailable(&error)),
        }
    }
    Err(Sense::INTERNAL.into())
}

/// Follows what other portals change, for ever.
pub async fn follow(unit: Rc<Unit>) {
    loop {
        let known = unit.record.borrow().revision;
        let newer = unit.keeper.changed(known).await;
        let _changing = unit.changing.lock().await;
        // An own change may have overtaken the answer.
        if unit.record.borrow().revision == known {
            unit.replace(newer);
        }
    }
}

/// Another portal wants to go on: returns when the record is the newest, and nothing is under way that it ended.
pub async fn take_notice(unit: &Unit) {
    // Nobody waits for this: own commands are told that the cluster cannot be asked, if it is so.
    let newer = unit.keeper.reload().await;
    {
        let _changing = unit.changing.lock().await;
        // An own change may have overtaken the answer.
        if newer.revision > unit.record.borrow().revision {
            unit.replace(newer);
        }
    }
    // Whoever follows the record may have been faster, and does not wait.
    settled(unit.tasks.aborted()).await;
}

impl Unit {
    /// Another portal has replaced the record: takes the newer one, and does to the own paths what follows from it. Nobody
    /// waits for aborted tasks to end: one of them may be who is at it. `changing` must be held.
    fn replace(&self, newer: Reservations) {
        let older = self.record.replace(newer);
        let found = consequences(&older, &self.record.borrow(), self.identity.portal_group);
        if found.reset {
            self.forget_settings();
            self.tasks.abort(None, |_| true);
        }
        for (nexus, sense) in &found.attentions {
            self.attentions.borrow_mut().tell(nexus, *sense);
        }
        self.abort_tasks_of(None, &found.abort);
    }

    fn abort_tasks_of(&self, by: Option<&Nexus>, paths: &[Nexus]) -> Vec<Rc<Task>> {
        self.tasks.abort(by, |task| paths.contains(&task.nexus))
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
