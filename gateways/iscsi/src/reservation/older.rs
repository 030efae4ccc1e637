//! The older kind of reservation: RESERVE and RELEASE (SPC-2 clauses 7.17 and 7.21), and resets, which undo it.
//!
//! It is in the cluster's record, beside persistent reservations, so that it holds at all portals. Pure.

use admin_api::iscsi::Reservations;

use crate::reservation::{Nexus, Refusal, holder_of, is_of};
use crate::scsi::command::Command;

/// The type that a record says of it.
const OLDER: u8 = 0;

/// RESERVE.
pub fn reserve(record: &Reservations, nexus: &Nexus) -> Result<Reservations, Refusal> {
    if !record.registrations.is_empty() || is_kept_from(record, nexus) {
        return Err(Refusal::Conflict);
    }
    Ok(Reservations {
        reserved: Some(holder_of(nexus, OLDER)),
        ..record.clone()
    })
}

/// RELEASE, or the end of a path. Whoever releases what is another's changes nothing, and is told that all is well.
pub fn release(record: &Reservations, nexus: &Nexus) -> Reservations {
    let mut next = record.clone();
    if !is_kept_from(record, nexus) {
        next.reserved = None;
    }
    next
}

/// A gateway begins: whoever reserved through its portal group is not there any more.
pub fn release_group(record: &Reservations, portal_group: u16) -> Reservations {
    let stays = |holder: &admin_api::iscsi::Holder| holder.portal_group != portal_group;
    Reservations {
        reserved: record.reserved.clone().filter(stays),
        ..record.clone()
    }
}

/// A reset by a task management function (SAM-5 clause 6.3.3): persistent reservations stay.
pub fn reset(record: &Reservations) -> Reservations {
    Reservations {
        reserved: None,
        resets: record.resets.wrapping_add(1),
        ..record.clone()
    }
}

/// Whether it keeps a path from a command. RESERVE itself is judged by the newest record when it is carried out: the one
/// that is known here may be behind a release by another portal.
pub fn conflicts(record: &Reservations, nexus: &Nexus, command: &Command) -> bool {
    let harmless = matches!(
        command,
        Command::Inquiry { .. }
            | Command::ReportLuns { .. }
            | Command::RequestSense { .. }
            | Command::Reserve
            | Command::Release
    );
    !harmless && is_kept_from(record, nexus)
}

fn is_kept_from(record: &Reservations, nexus: &Nexus) -> bool {
    record
        .reserved
        .as_ref()
        .is_some_and(|holder| !is_of(holder, nexus))
}

#[cfg(test)]
mod tests {
    //! Who has the unit, and how it becomes free again.
    use super::*;

    fn nexus(name: &str, portal_group: u16) -> Nexus {
        Nexus {
            initiator: name.to_owned(),
            isid: "800000000001".to_owned(),
            target: "iqn.2026-01.example:t".to_owned(),
            portal_group,
        }
    }

    #[test]
    fn one_path_has_the_unit_until_it_gives_it_back_or_the_unit_is_reset() {
        let (a, b) = (nexus("a", 1), nexus("b", 2));
        let record = reserve(&Reservations::default(), &a).unwrap();
        assert_eq!(reserve(&record, &b), Err(Refusal::Conflict));
        assert_eq!(reserve(&record, &a).unwrap(), record);
        assert!(conflicts(&record, &b, &Command::TestUnitReady));
        assert!(!conflicts(&record, &b, &Command::Release));
        assert!(!conflicts(&record, &a, &Command::TestUnitReady));
        assert_eq!(release(&record, &b), record);
        assert_eq!(release(&record, &a), Reservations::default());
        assert_eq!(release_group(&record, 2), record);
        assert_eq!(release_group(&record, 1), Reservations::default());
        let after = reset(&record);
        assert_eq!((after.reserved, after.resets), (None, 1));
    }

    #[test]
    fn the_two_kinds_exclude_each_other() {
        let registered = Reservations {
            registrations: vec![admin_api::iscsi::Registration {
                initiator: "a".to_owned(),
                isid: String::new(),
                target: "t".to_owned(),
                portal_group: 1,
                key: 1,
            }],
            ..Reservations::default()
        };
        assert_eq!(reserve(&registered, &nexus("a", 1)), Err(Refusal::Conflict));
    }
}
