//! Which commands a reservation lets whom do (SPC-4 table 76, SBC-3 table 13).

use crate::reservation::{Nexus, is_holder, key_of, kind, lets_registrants};
use crate::scsi::command::Command;
use admin_api::iscsi::Reservations;

/// What a command does with what is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing that a reservation keeps anybody from.
    Harmless,
    /// It looks at the medium.
    Reads,
    /// It changes the medium or the unit.
    Writes,
}

/// What a command does.
pub fn access(command: &Command) -> Access {
    match command {
        Command::TestUnitReady
        | Command::RequestSense { .. }
        | Command::Inquiry { .. }
        | Command::ReadCapacity
        | Command::ReadCapacityLong { .. }
        | Command::ReportLuns { .. }
        | Command::ReportOperations { .. }
        | Command::ReportTaskManagement { .. }
        | Command::ReportTargetPortGroups { .. }
        | Command::PersistentIn { .. }
        | Command::PersistentOut { .. }
        | Command::StartStop { start: true, .. }
        | Command::PreventRemoval { prevent: false } => Access::Harmless,
        Command::Read(_)
        | Command::Verify(..)
        | Command::Prefetch(_)
        | Command::LbaStatus { .. }
        | Command::ModeSense { .. } => Access::Reads,
        Command::Write(_)
        | Command::WriteVerify(..)
        | Command::OrWrite(_)
        | Command::CompareAndWrite(_)
        | Command::WriteSame { .. }
        | Command::Unmap { .. }
        | Command::Synchronize(_)
        | Command::ModeSelect { .. }
        | Command::ExtendedCopy { .. }
        | Command::CopyStatus { .. }
        | Command::CopyParameters { .. }
        | Command::StartStop { .. }
        | Command::PreventRemoval { .. }
        | Command::Reserve
        | Command::Release => Access::Writes,
    }
}

/// Whether a reservation keeps a path from a command.
pub fn conflicts(record: &Reservations, nexus: &Nexus, command: &Command) -> bool {
    // The older kind of reservation and this one exclude each other.
    if matches!(command, Command::Reserve | Command::Release) {
        return !record.registrations.is_empty();
    }
    let Some(holder) = &record.holder else {
        return false;
    };
    let registered = key_of(record, nexus).is_some();
    if is_holder(record, nexus) || (registered && lets_registrants(holder.scope_type)) {
        return false;
    }
    let exclusive = matches!(
        holder.scope_type,
        kind::EXCLUSIVE | kind::EXCLUSIVE_REGISTRANTS | kind::EXCLUSIVE_ALL
    );
    match access(command) {
        Access::Harmless => false,
        Access::Reads => exclusive,
        Access::Writes => true,
    }
}
