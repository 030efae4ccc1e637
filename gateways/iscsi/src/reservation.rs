//! Persistent reservations as a pure state machine over the cluster's record of them (SPC-4 clauses 5.13, 6.15, 6.16).
//!
//! A change is made of one record and gives the next; whoever calls swaps the two in the cluster. Refuses to know how.

pub mod access;
pub mod following;
pub mod older;
pub mod request;
pub mod status;

use crate::scsi::sense::Sense;
use admin_api::iscsi::{Holder, REGISTRATIONS_MAX, Registration, Reservations};
use request::{Action, Moved, Parameters};

/// A path from an initiator to a target: an `I_T` nexus.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nexus {
    /// The initiator's name.
    pub initiator: String,
    /// The initiator's part of the session's name: 12 hexadecimal digits.
    pub isid: String,
    /// The target's name.
    pub target: String,
    /// The portal group's tag.
    pub portal_group: u16,
}

/// Types of reservations (SPC-4 table 205).
mod kind {
    pub(super) const WRITE_EXCLUSIVE: u8 = 1;
    pub(super) const EXCLUSIVE: u8 = 3;
    pub(super) const WRITE_REGISTRANTS: u8 = 5;
    pub(super) const EXCLUSIVE_REGISTRANTS: u8 = 6;
    pub(super) const WRITE_ALL: u8 = 7;
    pub(super) const EXCLUSIVE_ALL: u8 = 8;
}

/// Whether there is such a type.
pub(crate) fn is_type(scope_type: u8) -> bool {
    use kind::{
        EXCLUSIVE, EXCLUSIVE_ALL, EXCLUSIVE_REGISTRANTS, WRITE_ALL, WRITE_EXCLUSIVE, WRITE_REGISTRANTS,
    };
    matches!(
        scope_type,
        WRITE_EXCLUSIVE | EXCLUSIVE | WRITE_REGISTRANTS | EXCLUSIVE_REGISTRANTS | WRITE_ALL | EXCLUSIVE_ALL
    )
}

/// Whether all registrants hold a reservation of this type.
fn is_held_by_all(scope_type: u8) -> bool {
    matches!(scope_type, kind::WRITE_ALL | kind::EXCLUSIVE_ALL)
}

/// Whether registrants may do what the holder may.
fn lets_registrants(scope_type: u8) -> bool {
    scope_type >= kind::WRITE_REGISTRANTS
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Status RESERVATION CONFLICT.
    Conflict,
    /// Status CHECK CONDITION.
    Check(Sense),
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

/// What a request makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The next record. Its revision is the one that it was made from.
    pub record: Reservations,
    /// Who is to be told what.
    pub attentions: Vec<(Nexus, Sense)>,
    /// Whose tasks are to be aborted.
    pub abort: Vec<Nexus>,
}

/// The path that a registration is of.
pub fn nexus_of(known: &Registration) -> Nexus {
    Nexus {
        initiator: known.initiator.clone(),
        isid: known.isid.clone(),
        target: known.target.clone(),
        portal_group: known.portal_group,
    }
}

fn holder_of(nexus: &Nexus, scope_type: u8) -> Holder {
    Holder {
        initiator: nexus.initiator.clone(),
        isid: nexus.isid.clone(),
        target: nexus.target.clone(),
        portal_group: nexus.portal_group,
        scope_type,
    }
}

fn is_of(holder: &Holder, nexus: &Nexus) -> bool {
    holder.initiator == nexus.initiator
        && holder.isid == nexus.isid
        && holder.target == nexus.target
        && holder.portal_group == nexus.portal_group
}

/// The key that a path has registered.
pub fn key_of(record: &Reservations, nexus: &Nexus) -> Option<u64> {
    let mut registrations = record.registrations.iter();
    let found = registrations.find(|known| nexus_of(known) == *nexus);
    found.map(|known| known.key)
}

/// Whether a path holds the reservation.
pub fn is_holder(record: &Reservations, nexus: &Nexus) -> bool {
    record.holder.as_ref().is_some_and(|holder| {
        is_of(holder, nexus) || (is_held_by_all(holder.scope_type) && key_of(record, nexus).is_some())
    })
}

/// Carries out a PERSISTENT RESERVE OUT of a path on a record.
pub fn change(
    record: &Reservations,
    nexus: &Nexus,
    action: Action,
    parameters: &Parameters,
) -> Result<Change, Refusal> {
    let mut work = Work {
        change: Change {
            record: record.clone(),
            attentions: Vec::new(),
            abort: Vec::new(),
        },
        nexus,
    };
    let key = key_of(record, nexus);
    match action {
        Action::Register | Action::RegisterIgnoring => {
            if action == Action::Register && key.unwrap_or(0) != parameters.key {
                return Err(Refusal::Conflict);
            }
            work.register(key, parameters)?;
        }
        // All others are for those who are registered.
        _ if key != Some(parameters.key) => return Err(Refusal::Conflict),
        Action::Reserve(scope_type) => work.reserve(scope_type)?,
        Action::Release(scope_type) => work.release(scope_type)?,
        Action::Clear => work.clear(),
        Action::Preempt { scope_type, abort } => work.preempt(scope_type, parameters.service_key, abort)?,
        Action::RegisterAndMove => work.move_to(parameters.moved.as_ref(), parameters)?,
    }
    Ok(work.change)
}

struct Work<'a> {
    change: Change,
    nexus: &'a Nexus,
}

impl Work<'_> {
    fn record(&mut self) -> &mut Reservations {
        &mut self.change.record
    }

    fn generation(&mut self) {
        let record = self.record();
        record.generation = record.generation.wrapping_add(1);
    }

    /// Tells all registered paths but the own one.
    fn tell_others(&mut self, sense: Sense) {
        let others: Vec<Nexus> = self.change.record.registrations.iter().map(nexus_of).collect();
        let told = others.into_iter().filter(|other| other != self.nexus);
        self.change.attentions.extend(told.map(|other| (other, sense)));
    }

    fn register(&mut self, present: Option<u64>, parameters: &Parameters) -> Result<(), Refusal> {
        if parameters.service_key == 0 {
            if present.is_some() {
                self.unregister();
            }
        } else {
            self.put(self.nexus.clone(), parameters.service_key)?;
        }
        self.record().aptpl = parameters.aptpl;
        self.generation();
        Ok(())
    }

    fn put(&mut self, nexus: Nexus, key: u64) -> Result<(), Refusal> {
        let registrations = &mut self.change.record.registrations;
        if let Some(known) = registrations.iter_mut().find(|known| nexus_of(known) == nexus) {
            known.key = key;
            return Ok(());
        }
        if registrations.len() >= REGISTRATIONS_MAX {
            return Err(Sense::NO_REGISTRATION_RESOURCES.into());
        }
        let Nexus {
            initiator,
            isid,
            target,
            portal_group,
        } = nexus;
        registrations.push(Registration {
            initiator,
            isid,
            target,
            portal_group,
            key,
        });
        Ok(())
    }

    /// Who leaves gives up what it holds; if all hold it, the last one does.
    fn unregister(&mut self) {
        let nexus = self.nexus;
        let was_holder = is_holder(&self.change.record, nexus);
        let record = self.record();
        record.registrations.retain(|known| nexus_of(known) != *nexus);
        let Some(holder) = record.holder.clone().filter(|_| was_holder) else {
            return;
        };
        match record.registrations.first().map(nexus_of) {
            Some(other) if is_held_by_all(holder.scope_type) => {
                record.holder = Some(holder_of(&other, holder.scope_type));
            }
            _ => {
                record.holder = None;
                if lets_registrants(holder.scope_type) {
                    self.tell_others(Sense::RESERVATIONS_RELEASED);
                }
            }
        }
    }

    fn reserve(&mut self, scope_type: u8) -> Result<(), Refusal> {
        let nexus = self.nexus;
        let record = self.record();
        match &record.holder {
            None => record.holder = Some(holder_of(nexus, scope_type)),
            Some(holder) if holder.scope_type == scope_type && is_holder(record, nexus) => {}
            Some(_) => return Err(Refusal::Conflict),
        }
        Ok(())
    }

    fn release(&mut self, scope_type: u8) -> Result<(), Refusal> {
        let nexus = self.nexus;
        let record = self.record();
        let Some(present) = record.holder.as_ref().map(|holder| holder.scope_type) else {
            return Ok(());
        };
        if !is_holder(record, nexus) {
            return Ok(());
        }
        if present != scope_type {
            return Err(Sense::INVALID_RELEASE.into());
        }
        record.holder = None;
        if lets_registrants(present) {
            self.tell_others(Sense::RESERVATIONS_RELEASED);
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.tell_others(Sense::RESERVATIONS_PREEMPTED);
        let record = self.record();
        record.registrations.clear();
        record.holder = None;
        self.generation();
    }

    fn preempt(&mut self, scope_type: u8, victim: u64, abort: bool) -> Result<(), Refusal> {
        let held = self.change.record.holder.as_ref().map(|holder| {
            let by_all = is_held_by_all(holder.scope_type);
            let key = self
                .change
                .record
                .registrations
                .iter()
                .find(|known| is_of(holder, &nexus_of(known)));
            (holder.scope_type, by_all, key.map(|known| known.key))
        });
        let (takes, everyone) = match held {
            Some((_, true, _)) => (victim == 0, victim == 0),
            Some((_, false, key)) => (key == Some(victim), false),
            None => (false, false),
        };
        if victim == 0 && !takes {
            return Err(Sense::parameter(8).into());
        }
        let nexus = self.nexus;
        let is_victim = |known: &Registration| everyone || known.key == victim;
        let mut removed = Vec::new();
        let mut found = false;
        self.change.record.registrations.retain(|known| {
            found |= is_victim(known);
            let own = nexus_of(known) == *nexus;
            // Whoever takes the reservation stays registered; else its own key goes, too.
            let goes = is_victim(known) && !(own && takes);
            if goes {
                removed.push(nexus_of(known));
            }
            !goes
        });
        if !found && !takes {
            return Err(Refusal::Conflict);
        }
        if takes {
            self.record().holder = Some(holder_of(nexus, scope_type));
            if held.is_some_and(|(former, _, _)| former != scope_type) {
                self.tell_others(Sense::RESERVATIONS_RELEASED);
            }
        } else {
            self.keep_holder();
        }
        let victims = removed.into_iter().filter(|other| other != nexus);
        for other in victims {
            self.change
                .attentions
                .push((other.clone(), Sense::REGISTRATIONS_PREEMPTED));
            if abort {
                self.change.abort.push(other);
            }
        }
        self.generation();
        Ok(())
    }

    /// A reservation that all hold passes on to who is left.
    fn keep_holder(&mut self) {
        let record = self.record();
        let Some(holder) = record.holder.clone() else {
            return;
        };
        let stays = record
            .registrations
            .iter()
            .any(|known| is_of(&holder, &nexus_of(known)));
        if !stays {
            let next = record.registrations.first().map(nexus_of);
            record.holder = next.map(|next| holder_of(&next, holder.scope_type));
        }
    }

    fn move_to(&mut self, moved: Option<&Moved>, parameters: &Parameters) -> Result<(), Refusal> {
        let moved = moved.ok_or(Sense::PARAMETER_LENGTH)?;
        let scope_type = match &self.change.record.holder {
            Some(holder) if is_held_by_all(holder.scope_type) => return Err(Refusal::Conflict),
            Some(holder) if is_of(holder, self.nexus) => holder.scope_type,
            _ => return Err(Refusal::Conflict),
        };
        let destination = Nexus {
            initiator: moved.initiator.clone(),
            isid: moved.isid.clone(),
            target: self.nexus.target.clone(),
            portal_group: moved.port,
        };
        if parameters.service_key == 0 || destination == *self.nexus {
            return Err(Sense::parameter(8).into());
        }
        self.put(destination.clone(), parameters.service_key)?;
        let nexus = self.nexus;
        let record = self.record();
        record.holder = Some(holder_of(&destination, scope_type));
        record.aptpl = parameters.aptpl;
        if moved.unregister {
            record.registrations.retain(|known| nexus_of(known) != *nexus);
        }
        self.generation();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
