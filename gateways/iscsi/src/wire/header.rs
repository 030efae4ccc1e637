//! The basic header segment, of which every PDU has one (RFC 7143 section 11.2.1).
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | bit 6: immediate; bits 0-5: opcode |
//! | 1 | bit 7: final; the rest by opcode |
//! | 4 | length of additional headers, in words of 4 bytes |
//! | 5-7 | length of the data segment in bytes, without padding |
//! | 8-15 | LUN, or by opcode |
//! | 16-19 | initiator task tag |
//! | 20-47 | by opcode |

/// Bytes of a basic header segment.
pub const HEADER_LENGTH: usize = 48;
/// A tag that names nothing.
pub const NO_TAG: u32 = 0xffff_ffff;

/// A basic header segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub [u8; HEADER_LENGTH]);

impl Header {
    /// One that says only what it is; `flags` is the whole second byte.
    pub fn new(opcode: u8, flags: u8, task_tag: u32) -> Self {
        let mut header = Self([0; HEADER_LENGTH]);
        header.0[0] = opcode;
        header.0[1] = flags;
        header.set_u32(16, task_tag);
        header
    }

    /// What kind of PDU it is (RFC 7143 section 11.2.1.2).
    pub fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// Whether it is to be taken at once, out of the order of commands.
    pub fn is_immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// Bytes of additional headers: at most 1020.
    pub fn additional_length(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// Bytes of data, without padding: less than 16 MiB.
    pub fn data_length(&self) -> usize {
        usize::from(self.0[5]) << 16 | usize::from(self.0[6]) << 8 | usize::from(self.0[7])
    }

    /// Says how much data follows. Data that a field of 24 bits cannot tell is never sent: every sender cuts
    /// what it sends at a smaller limit.
    pub fn set_data_length(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        self.0[5..8].copy_from_slice(&length[1..]);
    }

    /// The 8 bytes that name a logical unit.
    pub fn lun(&self) -> [u8; 8] {
        let mut lun = [0; 8];
        lun.copy_from_slice(&self.0[8..16]);
        lun
    }

    /// The initiator's name for the task.
    pub fn task_tag(&self) -> u32 {
        self.u32(16)
    }

    /// The two bytes from `at`, which is inside the header.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    /// The four bytes from `at`, which is inside the header.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Sets two bytes.
    pub fn set_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Sets four bytes.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
}
