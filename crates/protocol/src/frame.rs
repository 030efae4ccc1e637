//! The frame that everything travels in: a header of 32 bytes, a body, a payload.
//!
//! ```text
//! offset  size  field
//!      0     4  magic, the bytes "STGD"
//!      4     1  version of the layout, 1
//!      5     1  kind of message
//!      6     2  flags, all zero in version 1
//!      8     8  request number: an answer carries the number of its request
//!     16     4  length of the body
//!     20     4  length of the payload
//!     24     4  CRC-32C of the body
//!     28     4  CRC-32C of bytes 0 to 27
//! ```
//!
//! All numbers are little endian. The payload has no checksum here: it is made of 4 KiB blocks, and
//! the body carries one checksum for each. What a body means is `codec`'s business.

use crate::checksum::crc;

/// The first four bytes of each frame: "STGD".
pub const MAGIC: u32 = u32::from_le_bytes(*b"STGD");
/// The version of the layout of frames and bodies that this crate writes and reads.
pub const VERSION: u8 = 1;
/// Length of a header in bytes.
pub const HEADER_LEN: usize = 32;
/// The longest body on the data path, in bytes: a list of 6,000 objects in doubt fits, and a peer
/// that sends rubbish makes nobody reserve more than this before a checksum was looked at.
pub const BODY_MAX: u32 = 256 * 1024;
/// The longest body of a session message, in bytes: a view of a pool with thousands of groups fits.
pub const SESSION_BODY_MAX: u32 = 4 * 1024 * 1024;
/// The longest body of what a disk that comes back is told, in bytes: the generations of 200,000 volumes fit,
/// or three thousand layers' objects of one range, all written over and over.
pub const TOLD_BODY_MAX: u32 = 4 * 1024 * 1024;
/// The longest payload, in bytes: one object.
pub const PAYLOAD_MAX: u32 = crate::geometry::OBJECT_SIZE;

/// What a frame carries. Requests have kinds below 0x80, their answers above; the session's own
/// messages are 0x40 to 0x42.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is named after the message that it carries")]
pub enum Kind {
    Hello = 0x01,
    Fence = 0x02,
    Read = 0x03,
    Write = 0x04,
    Map = 0x05,
    Pull = 0x06,
    Level = 0x07,
    Complete = 0x08,
    Ping = 0x09,
    Share = 0x0a,
    Places = 0x0b,
    Area = 0x0c,
    WriteShared = 0x0d,
    Question = 0x0e,
    Vouch = 0x0f,
    Column = 0x10,
    Replace = 0x11,
    WriteFront = 0x12,
    ReadSeveral = 0x13,
    Compare = 0x14,
    SessionRequest = 0x40,
    SessionReply = 0x41,
    SessionPush = 0x42,
    Welcome = 0x81,
    Ok = 0x82,
    Doubt = 0x83,
    Data = 0x84,
    Runs = 0x85,
    Delta = 0x86,
    Refused = 0x87,
    Shared = 0x88,
    Placed = 0x89,
    Told = 0x8a,
    Standing = 0x8b,
    Columns = 0x8c,
    Compared = 0x8d,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 36] = [
        Self::Hello,
        Self::Fence,
        Self::Read,
        Self::Write,
        Self::Map,
        Self::Pull,
        Self::Level,
        Self::Complete,
        Self::Ping,
        Self::Share,
        Self::Places,
        Self::Area,
        Self::WriteShared,
        Self::Question,
        Self::Vouch,
        Self::Column,
        Self::Replace,
        Self::WriteFront,
        Self::ReadSeveral,
        Self::Compare,
        Self::SessionRequest,
        Self::SessionReply,
        Self::SessionPush,
        Self::Welcome,
        Self::Ok,
        Self::Doubt,
        Self::Data,
        Self::Runs,
        Self::Delta,
        Self::Refused,
        Self::Shared,
        Self::Placed,
        Self::Told,
        Self::Standing,
        Self::Columns,
        Self::Compared,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The longest body that a frame of this kind may have, in bytes.
    pub fn body_max(self) -> u32 {
        match self {
            Self::SessionRequest | Self::SessionReply | Self::SessionPush => SESSION_BODY_MAX,
            Self::Told | Self::Columns => TOLD_BODY_MAX,
            _ => BODY_MAX,
        }
    }

    /// The longest payload that a frame of this kind may have, in bytes: none for most.
    pub fn payload_max(self) -> u32 {
        match self {
            Self::Write
            | Self::WriteFront
            | Self::Level
            | Self::Replace
            | Self::Data
            | Self::Delta
            | Self::Told => PAYLOAD_MAX,
            Self::Compare => 2 * crate::shared::COMPARE_MAX,
            _ => 0,
        }
    }
}

/// Why bytes are not a frame, or not the message that they say they are. The connection that they
/// came on is of no use any more: where the next frame begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame does not begin as frames do.
    #[error("the peer does not speak storaged's protocol: a frame begins with {0:#010x}")]
    Magic(u32),
    /// A version of the layout that this program does not know.
    #[error("the peer speaks version {0} of the wire format, this program speaks {VERSION}")]
    Version(u8),
    /// A kind that this version does not know.
    #[error("a frame is of the unknown kind {0:#04x}")]
    Kind(u8),
    /// A flag that this version does not know.
    #[error("a frame has the unknown flags {0:#06x}")]
    Flags(u16),
    /// A frame that no peer should send in this direction.
    #[error("a frame of kind {0:?} makes no sense here")]
    Unexpected(Kind),
    /// A part is longer than its kind allows.
    #[error("a frame of kind {kind:?} has {length} bytes of {part}, more than {limit}")]
    TooLong {
        /// Of which kind the frame is.
        kind: Kind,
        /// "body" or "payload".
        part: &'static str,
        /// How long it says that it is, in bytes.
        length: u32,
        /// How long it may be, in bytes.
        limit: u32,
    },
    /// A checksum does not match.
    #[error("the checksum of a frame's {0} does not match")]
    Checksum(&'static str),
    /// The body ends too early.
    #[error("the body of a frame of kind {0:?} is too short")]
    Short(Kind),
    /// The body goes on after its end.
    #[error("the body of a frame of kind {0:?} is too long")]
    Long(Kind),
    /// A field has a value that makes no sense.
    #[error("a frame of kind {kind:?} has a field that makes no sense: {field}")]
    Field {
        /// Of which kind the frame is.
        kind: Kind,
        /// Which field.
        field: &'static str,
    },
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame carries.
    pub kind: Kind,
    /// The request's number; zero where nothing is answered.
    pub number: u64,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_crc.to_le_bytes());
        let checksum = crc(&bytes[..28]);
        bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header and checks all of it: magic, version, checksum, kind, flags and lengths.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let [
            m0,
            m1,
            m2,
            m3,
            version,
            kind,
            f0,
            f1,
            n0,
            n1,
            n2,
            n3,
            n4,
            n5,
            n6,
            n7,
            rest @ ..,
        ] = *bytes;
        let magic = u32::from_le_bytes([m0, m1, m2, m3]);
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let word = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        if word(12) != crc(&bytes[..28]) {
            return Err(WireError::Checksum("header"));
        }
        let flags = u16::from_le_bytes([f0, f1]);
        if flags != 0 {
            return Err(WireError::Flags(flags));
        }
        let kind = Kind::from_number(kind).ok_or(WireError::Kind(kind))?;
        let (body_len, payload_len) = (word(0), word(4));
        let within = |part, length, limit| {
            if length > limit {
                Err(WireError::TooLong {
                    kind,
                    part,
                    length,
                    limit,
                })
            } else {
                Ok(())
            }
        };
        within("body", body_len, kind.body_max())?;
        within("payload", payload_len, kind.payload_max())?;
        let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        Ok(Self {
            kind,
            number,
            body_len,
            payload_len,
            body_crc: word(8),
        })
    }
}

#[cfg(test)]
mod tests {
    //! A header comes back as it was, and no other bytes pass for one.
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Write,
            number: 77,
            body_len: 100,
            payload_len: 4096,
            body_crc: 0xdead_beef,
        }
    }

    fn sealed(mut bytes: [u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
        let checksum = crc(&bytes[..28]);
        bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_sound_checksum_does_not_excuse_a_length_over_the_limit() {
        let mut bytes = header().encode();
        bytes[16..20].copy_from_slice(&(BODY_MAX + 1).to_le_bytes());
        assert!(matches!(
            Header::decode(&sealed(bytes)),
            Err(WireError::TooLong { part: "body", .. })
        ));
        let ping = Header {
            kind: Kind::Ping,
            ..header()
        };
        let refused = Header::decode(&ping.encode());
        assert!(matches!(
            refused,
            Err(WireError::TooLong {
                part: "payload",
                limit: 0,
                ..
            })
        ));
    }

    #[test]
    fn unknown_kinds_flags_and_versions_are_told_apart() {
        let mut bytes = header().encode();
        bytes[5] = 0x7f;
        assert_eq!(Header::decode(&sealed(bytes)), Err(WireError::Kind(0x7f)));
        let mut bytes = header().encode();
        bytes[6] = 1;
        assert_eq!(Header::decode(&sealed(bytes)), Err(WireError::Flags(1)));
        let mut bytes = header().encode();
        bytes[4] = 9;
        assert_eq!(Header::decode(&sealed(bytes)), Err(WireError::Version(9)));
    }
}
