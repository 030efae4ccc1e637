//! What an initiator sends, read from a header (RFC 7143 sections 11.3 to 11.19).
//!
//! Refuses to judge whether a request may come now: it only says what it is.

use crate::wire::header::Header;

/// A request, as its header tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether it stands outside of the order of commands.
    pub immediate: bool,
    /// Whether nothing more of the same follows unasked.
    pub last: bool,
    /// Which logical unit, where that has a meaning.
    pub lun: [u8; 8],
    /// The initiator's name for the task.
    pub task_tag: u32,
    /// Its number among the commands of the session (`CmdSN`); of no meaning in a Data-Out.
    pub command_number: u32,
    /// The next status that the initiator awaits (`ExpStatSN`).
    pub expected_status: u32,
    /// What is asked for.
    pub kind: Kind,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A ping, or the answer to one of ours, by its target tag.
    NopOut {
        /// Our ping's tag, or [`crate::wire::header::NO_TAG`].
        target_tag: u32,
    },
    /// A SCSI command.
    Command(ScsiCommand),
    /// A task management function (RFC 7143 section 11.5.1).
    TaskManagement {
        /// Which.
        function: u8,
        /// The task that it is about.
        referenced_tag: u32,
    },
    /// A login.
    Login(LoginRequest),
    /// Text keys.
    Text {
        /// Whether the text goes on in the next request.
        continues: bool,
        /// The tag of our answer that this goes on with.
        target_tag: u32,
    },
    /// Data of a write.
    DataOut {
        /// The tag of the R2T that asked for it, or [`crate::wire::header::NO_TAG`].
        target_tag: u32,
        /// Its number in its sequence.
        number: u32,
        /// Where in the command's data it lies, in bytes.
        offset: u32,
    },
    /// The end of a connection or of a session.
    Logout {
        /// Why (RFC 7143 section 11.14.1).
        reason: u8,
        /// Which connection, if it is about one.
        connection: u16,
    },
    /// A wish to have something sent again, which error recovery level 0 does not know.
    Snack,
}

/// A SCSI command (RFC 7143 section 11.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiCommand {
    /// Data to the initiator is awaited.
    pub read: bool,
    /// Data from the initiator is offered.
    pub write: bool,
    /// How much data at most, in bytes.
    pub expected_length: u32,
    /// The command descriptor block.
    pub cdb: [u8; 16],
}

/// A login request (RFC 7143 section 11.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// Whether the initiator wants to go to the next stage.
    pub transit: bool,
    /// Whether the text goes on in the next request.
    pub continues: bool,
    /// The present stage: 0, 1 or 3; 2 is of no meaning.
    pub stage: u8,
    /// The next one.
    pub next_stage: u8,
    /// The least version that the initiator speaks.
    pub version_min: u8,
    /// The initiator's part of the session's name.
    pub isid: [u8; 6],
    /// Our part; 0 for a new session.
    pub tsih: u16,
    /// The connection's name in its session.
    pub connection: u16,
}

/// No target knows this opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOpcode;

/// Reads a header.
pub fn parse(header: &Header) -> Result<Request, UnknownOpcode> {
    let kind = match header.opcode() {
        0x00 => Kind::NopOut {
            target_tag: header.u32(20),
        },
        0x01 => Kind::Command(command(header)),
        0x02 => Kind::TaskManagement {
            function: header.0[1] & 0x7f,
            referenced_tag: header.u32(20),
        },
        0x03 => Kind::Login(login(header)),
        0x04 => Kind::Text {
            continues: header.0[1] & 0x40 != 0,
            target_tag: header.u32(20),
        },
        0x05 => Kind::DataOut {
            target_tag: header.u32(20),
            number: header.u32(36),
            offset: header.u32(40),
        },
        0x06 => Kind::Logout {
            reason: header.0[1] & 0x7f,
            connection: header.u16(20),
        },
        0x10 => Kind::Snack,
        _ => return Err(UnknownOpcode),
    };
    Ok(Request {
        immediate: header.is_immediate(),
        last: header.0[1] & 0x80 != 0,
        lun: header.lun(),
        task_tag: header.task_tag(),
        command_number: header.u32(24),
        expected_status: header.u32(28),
        kind,
    })
}

fn command(header: &Header) -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb.copy_from_slice(&header.0[32..48]);
    ScsiCommand {
        read: header.0[1] & 0x40 != 0,
        write: header.0[1] & 0x20 != 0,
        expected_length: header.u32(20),
        cdb,
    }
}

fn login(header: &Header) -> LoginRequest {
    let mut isid = [0; 6];
    isid.copy_from_slice(&header.0[8..14]);
    LoginRequest {
        transit: header.0[1] & 0x80 != 0,
        continues: header.0[1] & 0x40 != 0,
        stage: header.0[1] >> 2 & 3,
        next_stage: header.0[1] & 3,
        version_min: header.0[3],
        isid,
        tsih: header.u16(14),
        connection: header.u16(20),
    }
}

#[cfg(test)]
mod tests {
    //! Golden bytes, one PDU of each kind that has fields of its own.
    use super::*;

    fn header(first: &[u8], at: usize, more: &[u8]) -> Header {
        let mut header = Header([0; 48]);
        header.0[..first.len()].copy_from_slice(first);
        header.0[at..at + more.len()].copy_from_slice(more);
        header
    }

    #[test]
    fn a_write_command_is_read() {
        let cdb = [0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0];
        let mut bytes = header(&[0x41, 0xa1, 0, 0, 0, 0, 2, 0, 0, 5], 32, &cdb);
        bytes.0[16..32].copy_from_slice(&[0, 0, 0, 7, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 4]);
        let request = parse(&bytes).unwrap();
        assert!(request.immediate && request.last);
        assert_eq!((request.lun[1], request.task_tag), (5, 7));
        assert_eq!((request.command_number, request.expected_status), (3, 4));
        let Kind::Command(command) = request.kind else {
            panic!("a command")
        };
        assert!(command.write && !command.read);
        assert_eq!(
            (command.expected_length, command.cdb[0], command.cdb[5]),
            (512, 0x2a, 9)
        );
        assert_eq!(bytes.data_length(), 512);
    }

    #[test]
    fn a_login_is_read() {
        let mut bytes = header(&[0x43, 0x87], 8, &[0x80, 1, 2, 3, 4, 5, 0, 6]);
        bytes.set_u16(20, 9);
        let Kind::Login(login) = parse(&bytes).unwrap().kind else {
            panic!("a login")
        };
        let expected = LoginRequest {
            transit: true,
            continues: false,
            stage: 1,
            next_stage: 3,
            version_min: 0,
            isid: [0x80, 1, 2, 3, 4, 5],
            tsih: 6,
            connection: 9,
        };
        assert_eq!(login, expected);
    }

    #[test]
    fn data_and_logout_are_read_and_an_unknown_opcode_is_not() {
        let bytes = header(&[0x05, 0x80], 36, &[0, 0, 0, 1, 0, 0, 2, 0]);
        let data = Kind::DataOut {
            target_tag: 0,
            number: 1,
            offset: 512,
        };
        assert_eq!(parse(&bytes).unwrap().kind, data);
        let bytes = header(&[0x06, 0x81], 20, &[0, 2]);
        assert_eq!(
            parse(&bytes).unwrap().kind,
            Kind::Logout {
                reason: 1,
                connection: 2
            }
        );
        assert_eq!(parse(&header(&[0x1c], 1, &[])), Err(UnknownOpcode));
    }
}
