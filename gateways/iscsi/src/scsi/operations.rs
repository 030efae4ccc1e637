//! Which commands there are, and which bits of them mean something (SPC-4 clause 6.35).

use crate::scsi::command::Asked;
use crate::scsi::fields::{length16, length32};
use crate::scsi::sense::Sense;

/// One command: its opcode, its service action, and the bits of its CDB that are looked at.
struct Operation(u8, Option<u8>, &'static [u8]);

/// Seconds that an initiator should wait for any command: none are told.
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const READ_WRITE_10: &[u8] = &[0, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0];
const VERIFY_10: &[u8] = &[0, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0];
const READ_WRITE_12: &[u8] = &[0, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
const VERIFY_12: &[u8] = &[0, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
const REPORT_12: &[u8] = &[0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
const READ_WRITE_16: &[u8] = &long(0x18);
const VERIFY_16: &[u8] = &long(0x16);
const COPY_16: &[u8] = &[0, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
const PERSISTENT_IN: &[u8] = &[0, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
const PERSISTENT_OUT: &[u8] = &[0, 0x1f, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];

const fn long(flags: u8) -> [u8; 16] {
    [
        0, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
    ]
}

const OPERATIONS: &[Operation] = &[
    Operation(0x00, None, &[0, 0, 0, 0, 0, 0]),
    Operation(0x03, None, &[0, 0x01, 0, 0, 0xff, 0]),
    Operation(0x08, None, &[0, 0x1f, 0xff, 0xff, 0xff, 0]),
    Operation(0x0a, None, &[0, 0x1f, 0xff, 0xff, 0xff, 0]),
    Operation(0x12, None, &[0, 0x01, 0xff, 0xff, 0xff, 0]),
    Operation(0x15, None, &[0, 0x11, 0, 0, 0xff, 0]),
    Operation(0x16, None, &[0, 0, 0, 0, 0, 0]),
    Operation(0x17, None, &[0, 0, 0, 0, 0, 0]),
    Operation(0x1a, None, &[0, 0x08, 0xff, 0xff, 0xff, 0]),
    Operation(0x1b, None, &[0, 0x01, 0, 0x0f, 0xf7, 0]),
    Operation(0x1e, None, &[0, 0, 0, 0, 0x03, 0]),
    Operation(0x25, None, &[0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0]),
    Operation(0x28, None, READ_WRITE_10),
    Operation(0x2a, None, READ_WRITE_10),
    Operation(0x2e, None, VERIFY_10),
    Operation(0x2f, None, VERIFY_10),
    Operation(0x34, None, &[0, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    Operation(0x35, None, &[0, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    Operation(0x41, None, &[0, 0x08, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    Operation(0x42, None, &[0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    Operation(0x55, None, &[0, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    Operation(0x56, None, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    Operation(0x57, None, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    Operation(0x5a, None, &[0, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0]),
    Operation(0x5e, Some(0), PERSISTENT_IN),
    Operation(0x5e, Some(1), PERSISTENT_IN),
    Operation(0x5e, Some(2), PERSISTENT_IN),
    Operation(0x5e, Some(3), PERSISTENT_IN),
    Operation(0x5f, Some(0), PERSISTENT_OUT),
    Operation(0x5f, Some(1), PERSISTENT_OUT),
    Operation(0x5f, Some(2), PERSISTENT_OUT),
    Operation(0x5f, Some(3), PERSISTENT_OUT),
    Operation(0x5f, Some(4), PERSISTENT_OUT),
    Operation(0x5f, Some(5), PERSISTENT_OUT),
    Operation(0x5f, Some(6), PERSISTENT_OUT),
    Operation(0x5f, Some(7), PERSISTENT_OUT),
    Operation(0x83, Some(0), COPY_16),
    Operation(
        0x84,
        Some(0),
        &[0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
    ),
    Operation(0x84, Some(3), COPY_16),
    Operation(0x88, None, READ_WRITE_16),
    Operation(
        0x89,
        None,
        &[
            0, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, 0,
        ],
    ),
    Operation(0x8a, None, READ_WRITE_16),
    Operation(0x8b, None, READ_WRITE_16),
    Operation(0x8e, None, VERIFY_16),
    Operation(0x8f, None, VERIFY_16),
    Operation(0x90, None, &long(0x02)),
    Operation(0x91, None, &long(0x02)),
    Operation(0x93, None, &long(0x09)),
    Operation(0x9e, Some(0x10), &long(0x1f)),
    Operation(0x9e, Some(0x12), &long(0x1f)),
    Operation(0xa0, None, &[0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    Operation(
        0xa3,
        Some(0x0a),
        &[0, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
    ),
    Operation(
        0xa3,
        Some(0x0c),
        &[0, 0x1f, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    ),
    Operation(0xa3, Some(0x0d), REPORT_12),
    Operation(0xa8, None, READ_WRITE_12),
    Operation(0xaa, None, READ_WRITE_12),
    Operation(0xae, None, VERIFY_12),
    Operation(0xaf, None, VERIFY_12),
];

impl Operation {
    fn is(&self, opcode: u8, action: u16) -> bool {
        self.0 == opcode && self.1.is_none_or(|own| u16::from(own) == action)
    }

    fn describe(&self, timeouts: bool) -> Vec<u8> {
        let mut bytes = vec![self.0, 0, 0, self.1.unwrap_or(0), 0, 0];
        bytes[5] = u8::from(self.1.is_some()) | if timeouts { 0x02 } else { 0 };
        bytes.extend_from_slice(&length16(self.2.len()));
        if timeouts {
            bytes.extend_from_slice(&TIMEOUTS);
        }
        bytes
    }

    fn usage(&self, timeouts: bool) -> Vec<u8> {
        let mut bytes = vec![0, 0x03 | if timeouts { 0x80 } else { 0 }];
        bytes.extend_from_slice(&length16(self.2.len()));
        bytes.push(self.0);
        bytes.extend_from_slice(&self.2[1..]);
        if let Some(action) = self.1 {
            // The field holds the service action itself, beside bits that are looked at.
            bytes[5] = bytes[5] & 0xe0 | action;
        }
        if timeouts {
            bytes.extend_from_slice(&TIMEOUTS);
        }
        bytes
    }
}

/// The answer to REPORT SUPPORTED OPERATION CODES.
pub fn report(asked: Asked, timeouts: bool) -> Result<Vec<u8>, Sense> {
    let with_actions = |opcode| {
        OPERATIONS
            .iter()
            .any(|known| known.0 == opcode && known.1.is_some())
    };
    let (opcode, action) = match asked {
        Asked::All => {
            let list: Vec<u8> = OPERATIONS
                .iter()
                .flat_map(|known| known.describe(timeouts))
                .collect();
            return Ok([&length32(list.len())[..], &list].concat());
        }
        Asked::Opcode(opcode) if with_actions(opcode) => return Err(Sense::cdb(2)),
        Asked::Action(opcode, _) if is_known(opcode) && !with_actions(opcode) => return Err(Sense::cdb(2)),
        Asked::Opcode(opcode) => (opcode, 0),
        Asked::Action(opcode, action) | Asked::Either(opcode, action) => (opcode, action),
    };
    let found = OPERATIONS.iter().find(|known| known.is(opcode, action));
    // 1 says that there is no such command.
    Ok(found.map_or_else(|| vec![0, 1, 0, 0], |known| known.usage(timeouts)))
}

fn is_known(opcode: u8) -> bool {
    OPERATIONS.iter().any(|known| known.0 == opcode)
}

/// The answer to REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: abort task, abort task set, clear task set, logical
/// unit reset and target reset.
pub fn report_task_management(extended: bool) -> Vec<u8> {
    let mut bytes = vec![0xda, 0, 0, 0];
    if extended {
        bytes[3] = 12;
        bytes.resize(16, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    //! The table agrees with the decoder.
    use super::*;
    use crate::scsi::command::decode;

    #[test]
    fn each_command_of_the_table_is_decoded_and_no_other_is() {
        for opcode in 0..=u8::MAX {
            for action in 0..32 {
                let mut cdb = [0; 16];
                cdb[0] = opcode;
                cdb[1] = action;
                let known = OPERATIONS.iter().any(|known| known.is(opcode, action.into()));
                let decoded = decode(&cdb);
                let unknown = decoded == Err(Sense::INVALID_OPCODE)
                    || (decoded == Err(Sense::cdb(1))
                        && OPERATIONS
                            .iter()
                            .any(|other| other.0 == opcode && other.1.is_some()));
                // What PERSISTENT RESERVE does not know is told by its own state machine.
                if !matches!(opcode, 0x5e | 0x5f) {
                    assert_eq!(known, !unknown, "{opcode:#x} {action:#x}");
                }
            }
        }
    }

    #[test]
    fn a_report_of_one_command() {
        let read = report(Asked::Opcode(0x28), false).unwrap();
        assert_eq!(
            read,
            [0, 3, 0, 10, 0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]
        );
        assert_eq!(report(Asked::Opcode(0x48), false), Ok(vec![0, 1, 0, 0]));
        assert_eq!(report(Asked::Opcode(0x5e), false), Err(Sense::cdb(2)));
        assert_eq!(
            report(Asked::Action(0x9e, 0x10), true).unwrap().len(),
            4 + 16 + 12
        );
        let all = report(Asked::All, true).unwrap();
        assert_eq!(all.len(), 4 + OPERATIONS.len() * 20);
    }
}
