//! What a target sends, written into headers (RFC 7143 sections 11.4 to 11.20).
//!
//! The numbers of the session (`StatSN`, `ExpCmdSN`, `MaxCmdSN`) are put in when a PDU is queued: see
//! [`Outgoing::stamp`].

use std::cmp::Ordering;

use bytes::Bytes;

use crate::wire::header::{Header, NO_TAG};

/// A PDU to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its header, with the length of the data.
    pub header: Header,
    /// Its data, in order.
    pub data: Vec<Bytes>,
    /// Whether it has a status number, and how that counts.
    pub numbering: Numbering,
}

/// What a PDU says about the connection's status numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// It takes the next number.
    Takes,
    /// It tells the next number and leaves it.
    Tells,
    /// The field is reserved.
    Silent,
}

/// The numbers that every PDU of a target tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// `StatSN`.
    pub status: u32,
    /// `ExpCmdSN`.
    pub expected_command: u32,
    /// `MaxCmdSN`.
    pub command_max: u32,
}

impl Outgoing {
    fn new(header: Header, numbering: Numbering) -> Self {
        Self {
            header,
            data: Vec::new(),
            numbering,
        }
    }

    /// The same with data, whose length the caller bounds.
    #[must_use]
    pub fn with_data(mut self, data: Vec<Bytes>) -> Self {
        self.header.set_data_length(data.iter().map(Bytes::len).sum());
        self.data = data;
        self
    }

    /// Puts the session's numbers in.
    pub fn stamp(&mut self, numbers: Numbers) {
        if self.numbering != Numbering::Silent {
            self.header.set_u32(24, numbers.status);
        }
        self.header.set_u32(28, numbers.expected_command);
        self.header.set_u32(32, numbers.command_max);
    }
}

/// How what was transferred differs from what the initiator expected, in bytes (RFC 7143 section 11.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residual {
    /// Not at all.
    #[default]
    None,
    /// So much was left over.
    Under(u32),
    /// So much did not fit.
    Over(u32),
}

impl Residual {
    /// Of a transfer of `actual` bytes where `expected` were.
    pub fn of(actual: u64, expected: u32) -> Self {
        let wide = u64::from(expected);
        let clamp = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        match actual.cmp(&wide) {
            Ordering::Greater => Self::Over(clamp(actual - wide)),
            Ordering::Less => Self::Under(clamp(wide - actual)),
            Ordering::Equal => Self::None,
        }
    }

    fn put(self, header: &mut Header) {
        let (flag, count) = match self {
            Self::None => (0, 0),
            Self::Under(count) => (0x02, count),
            Self::Over(count) => (0x04, count),
        };
        header.0[1] |= flag;
        header.set_u32(44, count);
    }
}

/// A SCSI response. `sense` is the sense data without the length before it; empty for none.
pub fn scsi_response(
    task_tag: u32,
    status: u8,
    residual: Residual,
    data_count: u32,
    sense: &[u8],
) -> Outgoing {
    let mut header = Header::new(0x21, 0x80, task_tag);
    header.0[3] = status;
    header.set_u32(36, data_count);
    residual.put(&mut header);
    let response = Outgoing::new(header, Numbering::Takes);
    if sense.is_empty() {
        return response;
    }
    let mut data = Vec::with_capacity(sense.len() + 2);
    // Sense data has at most 252 bytes (SPC-4 clause 4.5.1).
    data.extend_from_slice(&u16::try_from(sense.len()).unwrap_or(u16::MAX).to_be_bytes());
    data.extend_from_slice(sense);
    response.with_data(vec![data.into()])
}

/// A SCSI response that says that the target could not take part: 1 is a target failure.
pub fn scsi_failure(task_tag: u32, response: u8) -> Outgoing {
    let mut header = Header::new(0x21, 0x80, task_tag);
    header.0[2] = response;
    Outgoing::new(header, Numbering::Takes)
}

/// Data of a read: the piece at `offset`, number `number` of its task.
pub fn data_in(task_tag: u32, number: u32, offset: u32, last: bool, data: Vec<Bytes>) -> Outgoing {
    let mut header = Header::new(0x25, if last { 0x80 } else { 0 }, task_tag);
    header.set_u32(20, NO_TAG);
    header.set_u32(36, number);
    header.set_u32(40, offset);
    Outgoing::new(header, Numbering::Silent).with_data(data)
}

/// Makes the last Data-In of a task that went well its response, too.
pub fn add_status(data_in: &mut Outgoing, residual: Residual) {
    data_in.header.0[1] |= 0x81;
    residual.put(&mut data_in.header);
    data_in.numbering = Numbering::Takes;
}

/// A wish for data of a write: `length` bytes from `offset`.
pub fn ready_to_transfer(
    task_tag: u32,
    lun: [u8; 8],
    target_tag: u32,
    number: u32,
    offset: u32,
    length: u32,
) -> Outgoing {
    let mut header = Header::new(0x31, 0x80, task_tag);
    header.0[8..16].copy_from_slice(&lun);
    header.set_u32(20, target_tag);
    header.set_u32(36, number);
    header.set_u32(40, offset);
    header.set_u32(44, length);
    Outgoing::new(header, Numbering::Tells)
}

/// The answer to a task management function (RFC 7143 section 11.6.1).
pub fn task_management_response(task_tag: u32, response: u8) -> Outgoing {
    let mut header = Header::new(0x22, 0x80, task_tag);
    header.0[2] = response;
    Outgoing::new(header, Numbering::Takes)
}

/// The answer to a ping.
pub fn nop_in(task_tag: u32, lun: [u8; 8], data: Bytes) -> Outgoing {
    let mut header = Header::new(0x20, 0x80, task_tag);
    header.0[8..16].copy_from_slice(&lun);
    header.set_u32(20, NO_TAG);
    Outgoing::new(header, Numbering::Takes).with_data(vec![data])
}

/// A ping of ours.
pub fn ping(target_tag: u32) -> Outgoing {
    let mut header = Header::new(0x20, 0x80, NO_TAG);
    header.set_u32(20, target_tag);
    Outgoing::new(header, Numbering::Tells)
}

/// Text keys.
pub fn text_response(task_tag: u32, last: bool, target_tag: u32, text: Bytes) -> Outgoing {
    let flags = if last { 0x80 } else { 0x40 };
    let mut header = Header::new(0x24, flags, task_tag);
    header.set_u32(20, target_tag);
    Outgoing::new(header, Numbering::Takes).with_data(vec![text])
}

/// A login response that goes on, or is the last one.
pub fn login_response(
    task_tag: u32,
    transit: bool,
    stages: (u8, u8),
    isid: [u8; 6],
    tsih: u16,
    text: Bytes,
) -> Outgoing {
    let mut header = Header::new(0x23, 0, task_tag);
    header.0[1] = u8::from(transit) << 7 | (stages.0 & 3) << 2 | if transit { stages.1 & 3 } else { 0 };
    header.0[8..14].copy_from_slice(&isid);
    header.set_u16(14, tsih);
    Outgoing::new(header, Numbering::Takes).with_data(vec![text])
}

/// A login response that ends the login (RFC 7143 section 11.13.5).
pub fn login_refusal(task_tag: u32, isid: [u8; 6], status: (u8, u8), text: Bytes) -> Outgoing {
    let mut header = Header::new(0x23, 0, task_tag);
    header.0[8..14].copy_from_slice(&isid);
    header.0[36] = status.0;
    header.0[37] = status.1;
    Outgoing::new(header, Numbering::Takes).with_data(vec![text])
}

/// The answer to a logout (RFC 7143 section 11.15.1), with how many seconds a task is kept: none.
pub fn logout_response(task_tag: u32, response: u8) -> Outgoing {
    let mut header = Header::new(0x26, 0x80, task_tag);
    header.0[2] = response;
    Outgoing::new(header, Numbering::Takes)
}

/// What cannot be taken, and why (RFC 7143 section 11.17.1).
pub fn reject(reason: u8, rejected: &Header) -> Outgoing {
    let mut header = Header::new(0x3f, 0x80, NO_TAG);
    header.0[2] = reason;
    Outgoing::new(header, Numbering::Takes).with_data(vec![Bytes::copy_from_slice(&rejected.0)])
}

/// A message that nobody asked for (RFC 7143 section 11.9.1): 1 asks for a logout within `parameter` seconds,
/// 2 says that this connection ends, 3 that all of the session do.
pub fn asynchronous(event: u8, parameters: [u16; 3]) -> Outgoing {
    let mut header = Header::new(0x32, 0x80, NO_TAG);
    header.0[36] = event;
    for (index, parameter) in parameters.into_iter().enumerate() {
        header.set_u16(38 + index * 2, parameter);
    }
    Outgoing::new(header, Numbering::Takes)
}

#[cfg(test)]
mod tests {
    //! Golden bytes.
    use super::*;

    #[test]
    fn a_response_with_sense_and_residual() {
        let mut response = scsi_response(7, 2, Residual::Under(512), 0, &[0x70, 0, 5]);
        response.stamp(Numbers {
            status: 1,
            expected_command: 2,
            command_max: 3,
        });
        let mut expected = [0; 48];
        expected[..8].copy_from_slice(&[0x21, 0x82, 0, 2, 0, 0, 0, 5]);
        expected[16..36].copy_from_slice(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        expected[44..].copy_from_slice(&[0, 0, 2, 0]);
        assert_eq!(response.header.0, expected);
        assert_eq!(response.data, [Bytes::from_static(&[0, 3, 0x70, 0, 5])]);
    }

    #[test]
    fn the_last_data_carries_the_status_and_others_have_no_number() {
        let mut piece = data_in(7, 1, 512, false, vec![Bytes::from_static(&[9; 4])]);
        let numbers = Numbers {
            status: 5,
            expected_command: 6,
            command_max: 7,
        };
        piece.stamp(numbers);
        assert_eq!((piece.header.0[1], piece.header.u32(24)), (0, 0));
        add_status(&mut piece, Residual::Over(8));
        piece.stamp(numbers);
        assert_eq!(
            (piece.header.0[1], piece.header.u32(24), piece.header.u32(44)),
            (0x85, 5, 8)
        );
        assert_eq!((piece.header.u32(36), piece.header.u32(40)), (1, 512));
    }

    #[test]
    fn residuals_are_differences() {
        assert_eq!(Residual::of(512, 512), Residual::None);
        assert_eq!(Residual::of(512, 1024), Residual::Under(512));
        assert_eq!(Residual::of(1 << 33, 0), Residual::Over(u32::MAX));
    }
}
