//! Command descriptor blocks, decoded (SPC-4 clause 6, SBC-3 clause 5).
//!
//! Refuses to know the unit: whether blocks exist is judged by whoever carries a command out.

use crate::scsi::extended_copy::PARAMETERS_MAX;
use crate::scsi::fields::{u16_at, u32_at, u64_at};
use crate::scsi::sense::Sense;

/// The longest parameter list of PERSISTENT RESERVE OUT, in bytes: 24, and for REGISTER AND MOVE the name of an initiator,
/// of at most some 250 bytes (SPC-4 clauses 6.16.3 and 6.16.4).
const RESERVATION_PARAMETERS_MAX: u32 = 4096;

/// Blocks, by the unit's block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The first.
    pub block: u64,
    /// How many.
    pub count: u64,
}

/// What a verification compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Nothing: the blocks are only read.
    Nothing,
    /// As much data as there are blocks.
    Data,
    /// One block, with each.
    OneBlock,
}

/// Which operation codes are asked about (SPC-4 clause 6.35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All.
    All,
    /// One without service actions.
    Opcode(u8),
    /// One with a service action that must exist.
    Action(u8, u16),
    /// One, with a service action if it has any.
    Either(u8, u16),
}

/// A command. Fields are named as the standards name them; lengths and allocations are in bytes.
#[allow(missing_docs, reason = "the fields have the standards' names and meanings")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Is the unit ready?
    TestUnitReady,
    /// What is there to tell?
    RequestSense { descriptor: bool, allocation: usize },
    /// What is it? With a page, vital product data.
    Inquiry { page: Option<u8>, allocation: usize },
    /// Blocks to the initiator.
    Read(Area),
    /// Blocks from the initiator.
    Write(Area),
    /// The same, read and compared afterwards.
    WriteVerify(Area, Comparison),
    /// Blocks are read and compared.
    Verify(Area, Comparison),
    /// Blocks become what they were or-ed with the data.
    OrWrite(Area),
    /// Blocks are written if they are what the first half of the data is.
    CompareAndWrite(Area),
    /// One block of data to all blocks.
    WriteSame { area: Area, unmap: bool, no_data: bool },
    /// Blocks are given back.
    Unmap { length: usize },
    /// What was answered is on stable storage.
    Synchronize(Area),
    /// Blocks will be read soon.
    Prefetch(Area),
    /// Which blocks hold data?
    LbaStatus { block: u64, allocation: usize },
    /// How many blocks are there? In eight bytes.
    ReadCapacity,
    /// The same, with more about them.
    ReadCapacityLong { allocation: usize },
    /// Which units are there?
    ReportLuns { select: u8, allocation: usize },
    /// Mode pages.
    ModeSense { query: ModeQuery, allocation: usize },
    /// Mode pages are changed.
    ModeSelect { long: bool, length: usize },
    /// Power.
    StartStop {
        start: bool,
        load_eject: bool,
        condition: u8,
    },
    /// Removal is prevented, or allowed.
    PreventRemoval { prevent: bool },
    /// The unit is this initiator's alone.
    Reserve,
    /// No more.
    Release,
    /// What is reserved?
    PersistentIn { action: u8, allocation: usize },
    /// Reservations are changed.
    PersistentOut {
        action: u8,
        scope_type: u8,
        length: usize,
    },
    /// Blocks are copied from unit to unit.
    ExtendedCopy { length: usize },
    /// What became of a copy?
    CopyStatus { list: u8, allocation: usize },
    /// What can be copied at once?
    CopyParameters { allocation: usize },
    /// Which groups of ports are there?
    ReportTargetPortGroups { extended: bool, allocation: usize },
    /// Which commands are there?
    ReportOperations {
        asked: Asked,
        timeouts: bool,
        allocation: usize,
    },
    /// Which task management functions are there?
    ReportTaskManagement { extended: bool, allocation: usize },
}

/// Which mode pages are asked for, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeQuery {
    /// The command of 10 bytes.
    pub long: bool,
    /// Without block descriptors.
    pub no_descriptors: bool,
    /// A block descriptor of 16 bytes may come.
    pub long_blocks: bool,
    /// Present, changeable, default or saved values: 0 to 3.
    pub control: u8,
    /// The page.
    pub page: u8,
    /// The subpage.
    pub subpage: u8,
}

/// Decodes a CDB. Commands whose names are not in [`crate::scsi::operations`] are unknown.
pub fn decode(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let control = match cdb[0] >> 5 {
        0 => cdb[5],
        1 | 2 => cdb[9],
        4 => cdb[15],
        5 => cdb[11],
        _ => return Err(Sense::INVALID_OPCODE),
    };
    let command = match cdb[0] >> 5 {
        0 => decode_6(cdb),
        1 | 2 => decode_10(cdb),
        4 => decode_16(cdb),
        _ => decode_12(cdb),
    }?;
    // NACA: an auto contingent allegiance, which is not kept here.
    if control & 0x04 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    Ok(command)
}

fn decode_6(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let area = || {
        let count = if cdb[4] == 0 { 256 } else { u64::from(cdb[4]) };
        let block = u64::from(u32_at(cdb, 0) & 0x001f_ffff);
        Area { block, count }
    };
    Ok(match cdb[0] {
        0x00 => Command::TestUnitReady,
        0x03 => Command::RequestSense {
            descriptor: cdb[1] & 1 != 0,
            allocation: cdb[4].into(),
        },
        0x08 => Command::Read(area()),
        0x0a => Command::Write(area()),
        0x12 => inquiry(cdb)?,
        0x15 => mode_select(cdb, false, cdb[4].into())?,
        0x16 => Command::Reserve,
        0x17 => Command::Release,
        0x1a => mode_sense(cdb, false, cdb[4].into()),
        0x1b => Command::StartStop {
            start: cdb[4] & 1 != 0,
            load_eject: cdb[4] & 2 != 0,
            condition: cdb[4] >> 4,
        },
        0x1e => Command::PreventRemoval {
            prevent: cdb[4] & 1 != 0,
        },
        _ => return Err(Sense::INVALID_OPCODE),
    })
}

fn decode_10(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let length = usize::from(u16_at(cdb, 7));
    let area = || Area {
        block: u32_at(cdb, 2).into(),
        count: u16_at(cdb, 7).into(),
    };
    Ok(match cdb[0] {
        0x25 => {
            // Without PMI, which is obsolete, no block may be named.
            if cdb[8] & 1 == 0 && u32_at(cdb, 2) != 0 {
                return Err(Sense::cdb(2));
            }
            Command::ReadCapacity
        }
        0x28 => Command::Read(unprotected(cdb, area())?),
        0x2a => Command::Write(unprotected(cdb, area())?),
        0x2e => Command::WriteVerify(unprotected(cdb, area())?, comparison(cdb)?),
        0x2f => Command::Verify(unprotected(cdb, area())?, comparison(cdb)?),
        0x34 => Command::Prefetch(area()),
        0x35 => Command::Synchronize(area()),
        0x41 => write_same(cdb, area(), false)?,
        0x42 if cdb[1] & 1 != 0 => return Err(Sense::cdb(1)),
        0x42 => Command::Unmap { length },
        0x55 => mode_select(cdb, true, length)?,
        0x56 => Command::Reserve,
        0x57 => Command::Release,
        0x5a => mode_sense(cdb, true, length),
        0x5e => Command::PersistentIn {
            action: cdb[1] & 0x1f,
            allocation: length,
        },
        // What no connection has memory for would be told for ever that the task set is full.
        0x5f if u32_at(cdb, 5) > RESERVATION_PARAMETERS_MAX => return Err(Sense::PARAMETER_LENGTH),
        0x5f => Command::PersistentOut {
            action: cdb[1] & 0x1f,
            scope_type: cdb[2],
            length: usize::try_from(u32_at(cdb, 5)).unwrap_or(usize::MAX),
        },
        _ => return Err(Sense::INVALID_OPCODE),
    })
}

fn decode_12(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let area = Area {
        block: u32_at(cdb, 2).into(),
        count: u32_at(cdb, 6).into(),
    };
    let allocation = usize::try_from(u32_at(cdb, 6)).unwrap_or(usize::MAX);
    Ok(match (cdb[0], cdb[1] & 0x1f) {
        (0xa0, _) => Command::ReportLuns {
            select: cdb[2],
            allocation,
        },
        (0xa3, 0x0a) => Command::ReportTargetPortGroups {
            extended: cdb[1] >> 5 == 1,
            allocation,
        },
        (0xa3, 0x0c) => Command::ReportOperations {
            asked: asked(cdb)?,
            timeouts: cdb[2] & 0x80 != 0,
            allocation,
        },
        (0xa3, 0x0d) => Command::ReportTaskManagement {
            extended: cdb[2] & 0x80 != 0,
            allocation,
        },
        (0xa3, _) => return Err(Sense::cdb(1)),
        (0xa8, _) => Command::Read(unprotected(cdb, area)?),
        (0xaa, _) => Command::Write(unprotected(cdb, area)?),
        (0xae, _) => Command::WriteVerify(unprotected(cdb, area)?, comparison(cdb)?),
        (0xaf, _) => Command::Verify(unprotected(cdb, area)?, comparison(cdb)?),
        _ => return Err(Sense::INVALID_OPCODE),
    })
}

fn decode_16(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let area = Area {
        block: u64_at(cdb, 2),
        count: u32_at(cdb, 10).into(),
    };
    let allocation = usize::try_from(u32_at(cdb, 10)).unwrap_or(usize::MAX);
    Ok(match (cdb[0], cdb[1] & 0x1f) {
        (0x83, 0) if allocation <= PARAMETERS_MAX => Command::ExtendedCopy { length: allocation },
        (0x83, 0) => return Err(Sense::PARAMETER_LENGTH),
        (0x84, 0) => Command::CopyStatus {
            list: cdb[2],
            allocation,
        },
        (0x84, 3) => Command::CopyParameters { allocation },
        (0x88, _) => Command::Read(unprotected(cdb, area)?),
        (0x89, _) => {
            let count = cdb[13].into();
            Command::CompareAndWrite(unprotected(cdb, Area { count, ..area })?)
        }
        (0x8a, _) => Command::Write(unprotected(cdb, area)?),
        (0x8b, _) => Command::OrWrite(unprotected(cdb, area)?),
        (0x8e, _) => Command::WriteVerify(unprotected(cdb, area)?, comparison(cdb)?),
        (0x8f, _) => Command::Verify(unprotected(cdb, area)?, comparison(cdb)?),
        (0x90, _) => Command::Prefetch(area),
        (0x91, _) => Command::Synchronize(area),
        (0x93, _) => write_same(cdb, area, cdb[1] & 1 != 0)?,
        (0x9e, 0x10) => Command::ReadCapacityLong { allocation },
        (0x9e, 0x12) => Command::LbaStatus {
            block: area.block,
            allocation,
        },
        (0x83 | 0x84 | 0x9e, _) => return Err(Sense::cdb(1)),
        _ => return Err(Sense::INVALID_OPCODE),
    })
}

/// The unit has no protection information, so a command may not ask to look at it.
fn unprotected(cdb: &[u8; 16], area: Area) -> Result<Area, Sense> {
    if cdb[1] & 0xe0 == 0 {
        Ok(area)
    } else {
        Err(Sense::cdb(1))
    }
}

fn comparison(cdb: &[u8; 16]) -> Result<Comparison, Sense> {
    match cdb[1] >> 1 & 3 {
        0 => Ok(Comparison::Nothing),
        1 => Ok(Comparison::Data),
        3 if matches!(cdb[0], 0x2f | 0x8f | 0xaf) => Ok(Comparison::OneBlock),
        _ => Err(Sense::cdb(1)),
    }
}

/// Anchored blocks are not kept here, and neither is the obsolete wish to write each block's number.
fn write_same(cdb: &[u8; 16], area: Area, no_data: bool) -> Result<Command, Sense> {
    let unmap = cdb[1] & 0x08 != 0;
    if cdb[1] & 0x16 != 0 {
        return Err(Sense::cdb(1));
    }
    let area = unprotected(cdb, area)?;
    Ok(Command::WriteSame { area, unmap, no_data })
}

fn inquiry(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let vital = cdb[1] & 1 != 0;
    if cdb[1] & 2 != 0 {
        return Err(Sense::cdb(1));
    }
    if !vital && cdb[2] != 0 {
        return Err(Sense::cdb(2));
    }
    Ok(Command::Inquiry {
        page: vital.then_some(cdb[2]),
        allocation: u16_at(cdb, 3).into(),
    })
}

fn mode_sense(cdb: &[u8; 16], long: bool, allocation: usize) -> Command {
    let query = ModeQuery {
        long,
        no_descriptors: cdb[1] & 0x08 != 0,
        long_blocks: long && cdb[1] & 0x10 != 0,
        control: cdb[2] >> 6,
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
    };
    Command::ModeSense { query, allocation }
}

fn mode_select(cdb: &[u8; 16], long: bool, length: usize) -> Result<Command, Sense> {
    // Pages must be as the standard has them, and are not saved.
    if cdb[1] & 0x10 == 0 || cdb[1] & 0x01 != 0 {
        return Err(Sense::cdb(1));
    }
    Ok(Command::ModeSelect { long, length })
}

fn asked(cdb: &[u8; 16]) -> Result<Asked, Sense> {
    match cdb[2] & 7 {
        0 => Ok(Asked::All),
        1 => Ok(Asked::Opcode(cdb[3])),
        2 => Ok(Asked::Action(cdb[3], u16_at(cdb, 4))),
        3 => Ok(Asked::Either(cdb[3], u16_at(cdb, 4))),
        _ => Err(Sense::cdb(2)),
    }
}

#[cfg(test)]
mod tests {
    //! Golden CDBs, and no panic from any.
    use super::*;
    use proptest::prelude::*;

    fn cdb(bytes: &[u8]) -> [u8; 16] {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        cdb
    }

    #[test]
    fn reads_of_all_lengths_name_blocks() {
        let read = |bytes: &[u8], block, count| {
            assert_eq!(decode(&cdb(bytes)), Ok(Command::Read(Area { block, count })));
        };
        read(&[0x08, 0x01, 0, 2, 0], 0x1_0002, 256);
        read(&[0x28, 0x18, 0, 0, 0, 9, 0, 1, 0], 9, 256);
        read(&[0xa8, 0, 0, 0, 0, 9, 0, 0, 1, 0], 9, 256);
        read(&[0x88, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 3], 0x1_0000_0009, 3);
    }

    #[test]
    fn what_the_unit_does_not_do_is_refused_with_the_field() {
        assert_eq!(decode(&cdb(&[0x28, 0x20])), Err(Sense::cdb(1)));
        assert_eq!(decode(&cdb(&[0x2f, 0x04])), Err(Sense::cdb(1)));
        assert_eq!(decode(&cdb(&[0x41, 0x10])), Err(Sense::cdb(1)));
        assert_eq!(decode(&cdb(&[0x12, 0, 0x83])), Err(Sense::cdb(2)));
        assert_eq!(decode(&cdb(&[0x48])), Err(Sense::INVALID_OPCODE));
        let endless = [0x5f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode(&cdb(&endless)), Err(Sense::PARAMETER_LENGTH));
        assert_eq!(decode(&cdb(&[0x00, 0, 0, 0, 0, 4])), Err(Sense::INVALID_FIELD));
    }

    proptest! {
        #[test]
        fn any_cdb_is_a_command_or_an_illegal_request(bytes in any::<[u8; 16]>()) {
            if let Err(sense) = decode(&bytes) {
                prop_assert_eq!(sense.key, 5);
            }
        }
    }
}
