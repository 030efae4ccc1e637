//! The NBD protocol as bytes: numbers, parsers, encoders. All integers are big endian.
//!
//! Pure: bytes come in, values go out, and no input of any length makes it panic. It knows nothing
//! of sockets, of volumes, or of what is done about a request. The subset that this gateway speaks
//! is described in `docs/protocol/nbd.md`.

pub mod option;
pub mod reply;
pub mod request;

/// The first eight bytes that a server says.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second in the greeting, and first in every option: "IHAVEOPT".
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First in every answer to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First in every request of the transmission phase.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First in every request once extended headers are agreed.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// First in every simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First in every chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// First in every chunk of a reply once extended headers are agreed.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Handshake flag, both ways: fixed newstyle.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag, both ways: no 124 zero bytes after `NBD_OPT_EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 2;

/// The longest name of an export in bytes, by the specification.
pub const NAME_LENGTH_MAX: usize = 4096;
/// The longest data of an option that is looked at, in bytes. Sixteen queries of the longest kind
/// fit; longer options are refused as too big.
pub const OPTION_LENGTH_MAX: u32 = 64 * 1024;
/// The longest payload of a write and the longest read, in bytes: what clients assume by themselves.
pub const PAYLOAD_MAX: u32 = 32 * 1024 * 1024;

/// The identity of the one metadata context that there is, `base:allocation`.
pub const ALLOCATION_CONTEXT_ID: u32 = 1;
/// Its name.
pub const ALLOCATION_CONTEXT: &str = "base:allocation";
/// Block status: nothing is allocated there.
pub const STATE_HOLE: u32 = 1;
/// Block status: it reads as zeros.
pub const STATE_ZERO: u32 = 2;

/// What is told of an export before transmission: which commands and flags it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmissionFlags(pub u16);

impl TransmissionFlags {
    const HAS_FLAGS: u16 = 1 << 0;
    /// The export takes no writes.
    pub const READ_ONLY: u16 = 1 << 1;
    const SEND_FLUSH: u16 = 1 << 2;
    const SEND_FUA: u16 = 1 << 3;
    const SEND_TRIM: u16 = 1 << 5;
    const SEND_WRITE_ZEROES: u16 = 1 << 6;
    const SEND_DF: u16 = 1 << 7;
    const CAN_MULTI_CONN: u16 = 1 << 8;
    const SEND_CACHE: u16 = 1 << 10;
    const SEND_FAST_ZERO: u16 = 1 << 11;

    /// What an export takes. Several connections are always safe: they share one owner, and a write
    /// is on stable storage before it is answered, so a flush on one covers all.
    pub fn of_export(read_only: bool, structured: bool) -> Self {
        let mut flags = Self::HAS_FLAGS | Self::SEND_FLUSH | Self::SEND_CACHE | Self::CAN_MULTI_CONN;
        flags |= if read_only {
            Self::READ_ONLY
        } else {
            Self::SEND_FUA | Self::SEND_TRIM | Self::SEND_WRITE_ZEROES | Self::SEND_FAST_ZERO
        };
        if structured {
            flags |= Self::SEND_DF;
        }
        Self(flags)
    }
}

/// An error number as it travels. The values are the protocol's, not this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// `NBD_EPERM`: the export is read only.
    NotPermitted = 1,
    /// `NBD_EIO`.
    Io = 5,
    /// `NBD_EINVAL`.
    Invalid = 22,
    /// `NBD_ENOSPC`: a write past the end, or the pool is full.
    NoSpace = 28,
    /// `NBD_EOVERFLOW`: the answer does not fit in one chunk, as the request demands.
    Overflow = 75,
    /// `NBD_ENOTSUP`: it cannot be done fast.
    NotSupported = 95,
    /// `NBD_ESHUTDOWN`: the server stops serving this export.
    Shutdown = 108,
}

/// The big-endian number at the start of `bytes` and the rest, or nothing if there is too little.
pub(crate) fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*head), rest))
}

/// As [`split_u32`], of two bytes.
pub(crate) fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}

/// As [`split_u32`], of eight bytes.
pub(crate) fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*head), rest))
}
