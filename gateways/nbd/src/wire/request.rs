//! Requests of the transmission phase: how they are read, and which of them an export may carry out.

use crate::wire::{
    EXTENDED_REQUEST_MAGIC, Errno, PAYLOAD_MAX, REQUEST_MAGIC, split_u16, split_u32, split_u64,
};

/// Length in bytes of a compact request.
pub const COMPACT_LENGTH: usize = 28;
/// Length in bytes of an extended request.
pub const EXTENDED_LENGTH: usize = 32;

/// Which of the two layouts a connection agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderLayout {
    /// 32-bit lengths.
    Compact,
    /// 64-bit lengths.
    Extended,
}

impl HeaderLayout {
    /// Length in bytes of a request's header.
    pub fn length(self) -> usize {
        match self {
            Self::Compact => COMPACT_LENGTH,
            Self::Extended => EXTENDED_LENGTH,
        }
    }
}

/// The flags that a request may carry.
pub mod flag {
    /// On stable storage before it is answered. Always true here.
    pub const FUA: u16 = 1 << 0;
    /// Zeros must be written, space must not be given back.
    pub const NO_HOLE: u16 = 1 << 1;
    /// The answer to a read in one piece.
    pub const DONT_FRAGMENT: u16 = 1 << 2;
    /// One extent is enough.
    pub const ONE_EXTENT: u16 = 1 << 3;
    /// Only if it is faster than a write.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// Extended layout: the length is that of a payload.
    pub const PAYLOAD_LENGTH: u16 = 1 << 5;
}

mod command {
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const DISCONNECT: u16 = 2;
    pub(super) const FLUSH: u16 = 3;
    pub(super) const TRIM: u16 = 4;
    pub(super) const CACHE: u16 = 5;
    pub(super) const WRITE_ZEROES: u16 = 6;
    pub(super) const BLOCK_STATUS: u16 = 7;
}

/// A request's header, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags, see [`flag`].
    pub flags: u16,
    /// Which command; not checked yet.
    pub command: u16,
    /// Comes back with the answer.
    pub cookie: u64,
    /// From where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub length: u64,
    /// How many bytes of payload follow the header.
    pub payload: u64,
}

impl Request {
    /// Reads a header of the agreed layout, or nothing if these bytes are not one: then the stream
    /// is lost.
    ///
    /// ```text
    /// offset  length (compact)  length (extended)
    ///      0                 4                  4  magic
    ///      4                 2                  2  flags
    ///      6                 2                  2  command
    ///      8                 8                  8  cookie
    ///     16                 8                  8  offset
    ///     24                 4                  8  length
    /// ```
    pub fn parse(layout: HeaderLayout, bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = split_u32(bytes)?;
        let (flags, rest) = split_u16(rest)?;
        let (command, rest) = split_u16(rest)?;
        let (cookie, rest) = split_u64(rest)?;
        let (offset, rest) = split_u64(rest)?;
        let (length, expected) = match layout {
            HeaderLayout::Compact => (u64::from(split_u32(rest)?.0), REQUEST_MAGIC),
            HeaderLayout::Extended => (split_u64(rest)?.0, EXTENDED_REQUEST_MAGIC),
        };
        let has_payload = match layout {
            HeaderLayout::Compact => command == command::WRITE,
            // A write's payload follows whether the flag is there or not.
            HeaderLayout::Extended => command == command::WRITE || flags & flag::PAYLOAD_LENGTH != 0,
        };
        let payload = if has_payload { length } else { 0 };
        (magic == expected).then_some(Self {
            flags,
            command,
            cookie,
            offset,
            length,
            payload,
        })
    }
}

/// What a request asks for, once it is known to be sound. Offsets and lengths are in bytes, lie
/// inside the export and are multiples of its alignment; no length is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Read `length` bytes, at most [`PAYLOAD_MAX`].
    Read {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// Whether the answer must be one piece.
        whole: bool,
    },
    /// Write the payload.
    Write {
        /// Where to.
        offset: u64,
        /// How much, at most [`PAYLOAD_MAX`].
        length: u64,
    },
    /// Make a range read as zeros.
    Zero {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// Whether its space must stay allocated.
        allocate: bool,
    },
    /// Give a range's space back.
    Trim {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// Wait for the writes before.
    Flush,
    /// Nothing is to be done: an empty range, or a hint.
    Nothing,
    /// Tell what holds data.
    Status {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// Whether one extent is enough.
        one: bool,
    },
    /// The client leaves; there is no answer.
    Disconnect,
}

/// What an export is, as far as requests are judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its size in bytes.
    pub size: u64,
    /// What offsets and lengths must be a multiple of.
    pub alignment: u32,
    /// Whether nothing may change.
    pub read_only: bool,
    /// Whether the connection agreed on structured replies.
    pub structured: bool,
    /// Whether the connection chose `base:allocation`.
    pub allocation: bool,
}

/// A request that is not carried out: the number and a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error's number.
    pub errno: Errno,
    /// Why.
    pub message: &'static str,
}

fn refuse<T>(errno: Errno, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { errno, message })
}

impl Request {
    /// Judges the request. What comes out may be handed to a device as it is.
    pub fn judge(&self, layout: HeaderLayout, bounds: &Bounds) -> Result<Task, Refusal> {
        let (offset, length) = (self.offset, self.length);
        self.check_flags(layout, bounds)?;
        match self.command {
            command::DISCONNECT => return Ok(Task::Disconnect),
            command::FLUSH if offset == 0 && length == 0 => return Ok(Task::Flush),
            command::FLUSH => return refuse(Errno::Invalid, "a flush has neither offset nor length"),
            _ => {}
        }
        self.check_rights(bounds)?;
        self.check_range(bounds)?;
        if length == 0 {
            return match self.command {
                command::BLOCK_STATUS => refuse(Errno::Invalid, "a status of nothing was asked for"),
                _ => Ok(Task::Nothing),
            };
        }
        match self.command {
            command::READ => Ok(Task::Read {
                offset,
                length,
                whole: self.flags & flag::DONT_FRAGMENT != 0,
            }),
            command::WRITE => Ok(Task::Write { offset, length }),
            command::TRIM => Ok(Task::Trim { offset, length }),
            command::CACHE => Ok(Task::Nothing),
            command::WRITE_ZEROES => {
                let allocate = self.flags & flag::NO_HOLE != 0;
                if allocate && self.flags & flag::FAST_ZERO != 0 {
                    return refuse(Errno::NotSupported, "allocated zeros are no faster than a write");
                }
                Ok(Task::Zero {
                    offset,
                    length,
                    allocate,
                })
            }
            command::BLOCK_STATUS => Ok(Task::Status {
                offset,
                length,
                one: self.flags & flag::ONE_EXTENT != 0,
            }),
            _ => refuse(Errno::Invalid, "this server does not know the command"),
        }
    }

    fn check_flags(&self, layout: HeaderLayout, bounds: &Bounds) -> Result<(), Refusal> {
        // The specification lets FUA ride on anything; it is always so here.
        let mut allowed = flag::FUA;
        allowed |= match self.command {
            command::READ if bounds.structured => flag::DONT_FRAGMENT,
            command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
            command::BLOCK_STATUS => flag::ONE_EXTENT,
            _ => 0,
        };
        if layout == HeaderLayout::Extended && self.command == command::WRITE {
            // The specification wants it set; QEMU's client does not set it.
            allowed |= flag::PAYLOAD_LENGTH;
        }
        if self.flags & !allowed != 0 {
            return refuse(Errno::Invalid, "the command does not take these flags");
        }
        Ok(())
    }

    fn check_rights(&self, bounds: &Bounds) -> Result<(), Refusal> {
        match self.command {
            command::WRITE | command::TRIM | command::WRITE_ZEROES if bounds.read_only => {
                refuse(Errno::NotPermitted, "the export is read only")
            }
            command::BLOCK_STATUS if !bounds.allocation => {
                refuse(Errno::Invalid, "no metadata context was agreed on")
            }
            _ => Ok(()),
        }
    }

    fn check_range(&self, bounds: &Bounds) -> Result<(), Refusal> {
        let inside = self
            .offset
            .checked_add(self.length)
            .is_some_and(|end| end <= bounds.size);
        if !inside {
            return match self.command {
                command::WRITE | command::WRITE_ZEROES => {
                    refuse(Errno::NoSpace, "the request leaves the export")
                }
                _ => refuse(Errno::Invalid, "the request leaves the export"),
            };
        }
        let unit = u64::from(bounds.alignment);
        if !self.offset.is_multiple_of(unit) || !self.length.is_multiple_of(unit) {
            return refuse(
                Errno::Invalid,
                "the request is not aligned to the least block size",
            );
        }
        let carries_data = matches!(self.command, command::READ | command::WRITE);
        if carries_data && self.length > u64::from(PAYLOAD_MAX) {
            return refuse(Errno::Invalid, "the request is longer than 32 MiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
