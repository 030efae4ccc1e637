//! Commands that need no blocks and no record of reservations: what a unit is, and how it is set.

use crate::reservation::Nexus;
use crate::scsi::command::Command;
use crate::scsi::sense::{Sense, status};
use crate::scsi::{copy_results, inquiry, mode, operations, provisioning};
use crate::unit::{Done, Unit};

/// Carries out a command.
pub fn perform(unit: &Unit, nexus: &Nexus, command: &Command, data: &[u8]) -> Result<Done, Done> {
    let medium = unit.medium();
    Ok(match *command {
        Command::RequestSense {
            descriptor,
            allocation,
        } => {
            let attention = unit.attentions.borrow_mut().take(nexus);
            Done::data(attention.unwrap_or(Sense::NONE).encode(descriptor), allocation)
        }
        Command::Inquiry {
            page: None,
            allocation,
        } => Done::data(inquiry::standard(), allocation),
        Command::Inquiry {
            page: Some(page),
            allocation,
        } => Done::data(
            inquiry::page(page, &unit.identity, medium.block_size)?,
            allocation,
        ),
        Command::ReadCapacity => Done::data(provisioning::capacity(medium), 8),
        Command::ReadCapacityLong { allocation } => {
            Done::data(provisioning::capacity_long(medium), allocation)
        }
        Command::ModeSense { query, allocation } => {
            Done::data(mode::sense(query, unit.mode.get(), medium)?, allocation)
        }
        Command::ModeSelect { long, length } => mode_select(unit, nexus, long, data, length)?,
        Command::StartStop { condition, .. } if condition != 0 => return Err(Sense::cdb(4).into()),
        Command::CopyStatus { list, allocation } => {
            let progress = unit.copies.ask(nexus, list).ok_or(Sense::cdb(2))?;
            Done::data(copy_results::status(progress), allocation)
        }
        Command::CopyParameters { allocation } => {
            Done::data(copy_results::operating_parameters(), allocation)
        }
        Command::ReportTargetPortGroups { extended, allocation } => {
            Done::data(unit.port_groups.borrow().report(extended), allocation)
        }
        Command::ReportOperations {
            asked,
            timeouts,
            allocation,
        } => Done::data(operations::report(asked, timeouts)?, allocation),
        Command::ReportTaskManagement { extended, allocation } => {
            if allocation < 4 {
                return Err(Sense::cdb(6).into());
            }
            Done::data(operations::report_task_management(extended), allocation)
        }
        Command::TestUnitReady | Command::StartStop { .. } | Command::PreventRemoval { .. } => Done::good(),
        _ => Done::status(status::BUSY),
    })
}

fn mode_select(unit: &Unit, nexus: &Nexus, long: bool, data: &[u8], length: usize) -> Result<Done, Done> {
    if data.len() < length {
        return Err(Sense::PARAMETER_LENGTH.into());
    }
    let state = mode::select(long, data, unit.mode.get(), unit.medium())?;
    if unit.mode.replace(state) != state {
        unit.attentions
            .borrow_mut()
            .tell_others(nexus, Sense::MODE_CHANGED);
    }
    Ok(Done::good())
}
