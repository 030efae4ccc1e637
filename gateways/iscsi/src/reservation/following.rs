//! What a change that another portal made means for the paths of this one.
//!
//! The other portal answered the command; here only the next record is seen, maybe after several changes. Pure.

use admin_api::iscsi::Reservations;

use crate::reservation::{Nexus, key_of, lets_registrants, nexus_of};
use crate::scsi::sense::Sense;

/// What is to be done here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// Who is to be told what.
    pub attentions: Vec<(Nexus, Sense)>,
    /// Whose tasks are to be aborted.
    pub abort: Vec<Nexus>,
    /// The unit was reset: everybody is told, and all tasks are aborted.
    pub reset: bool,
}

/// What follows from `new`, which replaced `old`, for paths through a portal group.
///
/// A path that lost its registration to another portal was preempted, or everything was cleared. Whether a preemption
/// was one that aborts is not in the record: tasks are aborted in either case, for whoever preempts wants the path to
/// write no more.
pub fn consequences(old: &Reservations, new: &Reservations, portal_group: u16) -> Consequences {
    let mut found = Consequences {
        reset: old.resets != new.resets,
        ..Consequences::default()
    };
    let released = is_released(old, new);
    let own = old.registrations.iter().map(nexus_of);
    for nexus in own.filter(|nexus| nexus.portal_group == portal_group) {
        if key_of(new, &nexus).is_some() {
            if released {
                found.attentions.push((nexus, Sense::RESERVATIONS_RELEASED));
            }
        } else if new.registrations.is_empty() {
            found.attentions.push((nexus, Sense::RESERVATIONS_PREEMPTED));
        } else {
            found
                .attentions
                .push((nexus.clone(), Sense::REGISTRATIONS_PREEMPTED));
            found.abort.push(nexus);
        }
    }
    found
}

/// Whether a reservation that registrants share is gone, or is another one (SPC-4 clauses 5.13.11.2 and 5.13.11.3).
fn is_released(old: &Reservations, new: &Reservations) -> bool {
    let scope_type = |record: &Reservations| record.holder.as_ref().map(|holder| holder.scope_type);
    let former = scope_type(old);
    former.is_some_and(lets_registrants) && scope_type(new) != former
}

#[cfg(test)]
mod tests {
    //! Each kind of change, seen from the other portal.
    use admin_api::iscsi::{Holder, Registration};

    use super::*;

    fn registration(name: &str, portal_group: u16, key: u64) -> Registration {
        Registration {
            initiator: name.to_owned(),
            isid: "800000000001".to_owned(),
            target: "iqn.2026-01.example:t".to_owned(),
            portal_group,
            key,
        }
    }

    fn record(registrations: &[Registration], scope_type: Option<u8>) -> Reservations {
        let holder = registrations.first().zip(scope_type);
        Reservations {
            registrations: registrations.to_vec(),
            holder: holder.map(|(first, scope_type)| Holder {
                initiator: first.initiator.clone(),
                isid: first.isid.clone(),
                target: first.target.clone(),
                portal_group: first.portal_group,
                scope_type,
            }),
            ..Reservations::default()
        }
    }

    #[test]
    fn who_was_preempted_elsewhere_is_told_and_writes_no_more() {
        let (a, b) = (registration("a", 1, 1), registration("b", 2, 2));
        let old = record(&[a.clone(), b.clone()], None);
        let new = record(std::slice::from_ref(&b), None);
        let here = consequences(&old, &new, 1);
        assert_eq!(here.attentions, [(nexus_of(&a), Sense::REGISTRATIONS_PREEMPTED)]);
        assert_eq!(here.abort, [nexus_of(&a)]);
        assert_eq!(consequences(&old, &new, 2), Consequences::default());
    }

    #[test]
    fn a_reset_elsewhere_is_a_reset_here() {
        let old = record(&[registration("a", 1, 1)], None);
        let new = Reservations {
            resets: 1,
            ..old.clone()
        };
        assert!(consequences(&old, &new, 1).reset && !consequences(&new, &new, 1).reset);
    }

    #[test]
    fn what_was_cleared_elsewhere_is_told_and_aborts_nothing() {
        let (a, b) = (registration("a", 1, 1), registration("b", 2, 2));
        let old = record(&[a.clone(), b], Some(1));
        let here = consequences(&old, &Reservations::default(), 1);
        assert_eq!(here.attentions, [(nexus_of(&a), Sense::RESERVATIONS_PREEMPTED)]);
        assert!(here.abort.is_empty());
    }

    #[test]
    fn a_release_elsewhere_is_told_to_registrants_of_shared_reservations_only() {
        let (a, b) = (registration("a", 1, 1), registration("b", 2, 2));
        let both = [b, a.clone()];
        for (scope_type, told) in [(1, false), (3, false), (5, true), (6, true), (7, true), (8, true)] {
            let here = consequences(&record(&both, Some(scope_type)), &record(&both, None), 1);
            assert_eq!(here.attentions.len(), usize::from(told), "type {scope_type}");
            let same = consequences(
                &record(&both, Some(scope_type)),
                &record(&both, Some(scope_type)),
                1,
            );
            assert_eq!(same, Consequences::default());
        }
    }
}
