//! What the server says: the greeting, answers to options, and replies to requests, as bytes.
//!
//! A reply is a list of pieces, so that what a disk sent goes out without being copied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{
    ALLOCATION_CONTEXT_ID, EXTENDED_REPLY_MAGIC, Errno, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INIT_MAGIC,
    OPTION_MAGIC, OPTION_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, TransmissionFlags,
};

/// Kinds of answers to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OptionReply {
    /// Done; the last answer.
    Ack = 1,
    /// One export.
    Server = 2,
    /// One piece of information about an export.
    Info = 3,
    /// One metadata context.
    MetaContext = 4,
    /// Not known.
    Unsupported = 0x8000_0001,
    /// Known, and refused.
    Policy = 0x8000_0002,
    /// The data make no sense.
    Invalid = 0x8000_0003,
    /// TLS comes first.
    TlsRequired = 0x8000_0005,
    /// There is no such export.
    UnknownExport = 0x8000_0006,
    /// Too much was asked for.
    TooBig = 0x8000_0009,
    /// Extended headers are agreed on, and that does not go with it.
    ExtendedHeaders = 0x8000_000a,
}

/// The longest sentence that is sent with an error, in bytes: the specification's limit of a string.
const MESSAGE_LENGTH_MAX: usize = 4096;

/// The first bytes on a connection.
pub fn greeting() -> Bytes {
    let mut bytes = BytesMut::with_capacity(18);
    bytes.put_u64(INIT_MAGIC);
    bytes.put_u64(OPTION_MAGIC);
    bytes.put_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    bytes.freeze()
}

/// Appends an answer to an option.
///
/// ```text
/// offset  length
///      0       8  OPTION_REPLY_MAGIC
///      8       4  option that is answered
///     12       4  kind
///     16       4  length of the data
/// ```
pub fn put_option_reply(out: &mut BytesMut, option: u32, kind: OptionReply, data: &[u8]) {
    // Every caller's data are far below 4 GiB.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind as u32);
    out.put_u32(length);
    out.put_slice(data);
}

/// The answer to `EXPORT_NAME`: size, flags, and zeros for clients that want them.
pub fn old_style_export(size: u64, flags: TransmissionFlags, zeroes: bool) -> Bytes {
    let mut bytes = BytesMut::with_capacity(134);
    bytes.put_u64(size);
    bytes.put_u16(flags.0);
    if zeroes {
        bytes.put_bytes(0, 124);
    }
    bytes.freeze()
}

/// How a connection agreed to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFormat {
    /// A number and the data.
    Simple,
    /// Chunks.
    Structured,
    /// Chunks with 64-bit lengths.
    Extended,
}

/// One part of what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes, in order.
    Data(Vec<Bytes>),
    /// This many zeros.
    Hole(u64),
}

/// A run of blocks of one state: length in bytes, and `STATE_` flags.
pub type Extent = (u64, u32);

mod chunk {
    pub(super) const DONE: u16 = 1;
    pub(super) const NONE: u16 = 0;
    pub(super) const OFFSET_DATA: u16 = 1;
    pub(super) const OFFSET_HOLE: u16 = 2;
    pub(super) const BLOCK_STATUS: u16 = 5;
    pub(super) const BLOCK_STATUS_EXTENDED: u16 = 6;
    pub(super) const ERROR: u16 = 0x8001;
    pub(super) const ERROR_OFFSET: u16 = 0x8002;
}

/// Makes the replies to one request.
#[derive(Clone, Copy, Debug)]
pub struct Replier {
    /// How the connection agreed to be answered.
    pub format: ReplyFormat,
    /// The request's.
    pub cookie: u64,
    /// The request's.
    pub offset: u64,
}

impl Replier {
    /// The request was carried out and there is nothing to tell.
    pub fn done(&self) -> Vec<Bytes> {
        let mut bytes = BytesMut::with_capacity(32);
        match self.format {
            // Shorter, and allowed for all that carries no data.
            ReplyFormat::Simple | ReplyFormat::Structured => self.put_simple(&mut bytes, 0),
            ReplyFormat::Extended => self.put_chunk(&mut bytes, chunk::DONE, chunk::NONE, 0),
        }
        vec![bytes.freeze()]
    }

    /// The request was not carried out; `at` is the byte that is to blame, where one is.
    pub fn error(&self, errno: Errno, message: &str, at: Option<u64>) -> Vec<Bytes> {
        let mut bytes = BytesMut::with_capacity(64 + message.len());
        if self.format == ReplyFormat::Simple {
            self.put_simple(&mut bytes, errno as u32);
            return vec![bytes.freeze()];
        }
        let message = shorten(message);
        let length = u16::try_from(message.len()).unwrap_or(0);
        let (kind, extra) = if at.is_some() {
            (chunk::ERROR_OFFSET, 8)
        } else {
            (chunk::ERROR, 0)
        };
        self.put_chunk(&mut bytes, chunk::DONE, kind, 6 + u64::from(length) + extra);
        bytes.put_u32(errno as u32);
        bytes.put_u16(length);
        bytes.put_slice(message.as_bytes());
        if let Some(at) = at {
            bytes.put_u64(at);
        }
        vec![bytes.freeze()]
    }

    /// What was read. A simple reply needs one segment of data.
    pub fn data(&self, segments: Vec<Segment>) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(segments.len() * 2);
        let mut header = BytesMut::with_capacity(segments.len() * 48);
        if self.format == ReplyFormat::Simple {
            self.put_simple(&mut header, 0);
            pieces.push(header.freeze());
            pieces.extend(segments.into_iter().flat_map(|segment| match segment {
                Segment::Data(data) => data,
                Segment::Hole(_) => Vec::new(),
            }));
            return pieces;
        }
        let last = segments.len().saturating_sub(1);
        let mut at = self.offset;
        for (position, segment) in segments.into_iter().enumerate() {
            let flags = if position == last { chunk::DONE } else { 0 };
            match segment {
                Segment::Data(data) => {
                    let length: u64 = data.iter().map(|piece| piece.len() as u64).sum();
                    self.put_chunk(&mut header, flags, chunk::OFFSET_DATA, 8 + length);
                    header.put_u64(at);
                    pieces.push(header.split().freeze());
                    pieces.extend(data);
                    at += length;
                }
                Segment::Hole(length) => {
                    self.put_chunk(&mut header, flags, chunk::OFFSET_HOLE, 12);
                    header.put_u64(at);
                    // No read is longer than PAYLOAD_MAX.
                    header.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
                    at += length;
                }
            }
        }
        if !header.is_empty() {
            pieces.push(header.freeze());
        }
        pieces
    }

    /// What a range holds. Only for a connection with chunks: no other can choose a context.
    pub fn status(&self, extents: &[Extent]) -> Vec<Bytes> {
        let count = extents.len() as u64;
        let mut bytes = BytesMut::with_capacity(48 + extents.len() * 16);
        if self.format == ReplyFormat::Extended {
            self.put_chunk(
                &mut bytes,
                chunk::DONE,
                chunk::BLOCK_STATUS_EXTENDED,
                8 + count * 16,
            );
            bytes.put_u32(ALLOCATION_CONTEXT_ID);
            bytes.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
            for (length, state) in extents {
                bytes.put_u64(*length);
                bytes.put_u64(u64::from(*state));
            }
        } else {
            self.put_chunk(&mut bytes, chunk::DONE, chunk::BLOCK_STATUS, 4 + count * 8);
            bytes.put_u32(ALLOCATION_CONTEXT_ID);
            for (length, state) in extents {
                // An extent is never longer than the request, whose length had 32 bits.
                bytes.put_u32(u32::try_from(*length).unwrap_or(u32::MAX));
                bytes.put_u32(*state);
            }
        }
        vec![bytes.freeze()]
    }

    fn put_simple(&self, out: &mut BytesMut, errno: u32) {
        out.put_u32(SIMPLE_REPLY_MAGIC);
        out.put_u32(errno);
        out.put_u64(self.cookie);
    }

    fn put_chunk(&self, out: &mut BytesMut, flags: u16, kind: u16, length: u64) {
        let extended = self.format == ReplyFormat::Extended;
        out.put_u32(if extended {
            EXTENDED_REPLY_MAGIC
        } else {
            STRUCTURED_REPLY_MAGIC
        });
        out.put_u16(flags);
        out.put_u16(kind);
        out.put_u64(self.cookie);
        if extended {
            out.put_u64(self.offset);
            out.put_u64(length);
        } else {
            out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        }
    }
}

/// The longest prefix of whole characters that may be sent.
fn shorten(message: &str) -> &str {
    message
        .get(..message.floor_char_boundary(MESSAGE_LENGTH_MAX))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    //! The laws of encoding: the bytes are the specification's, and a read's chunks cover it.
    use super::*;

    fn flat(pieces: &[Bytes]) -> Vec<u8> {
        pieces.concat()
    }

    const STRUCTURED: Replier = Replier {
        format: ReplyFormat::Structured,
        cookie: 0x0102,
        offset: 0x1000,
    };

    #[test]
    fn the_greeting_is_eighteen_known_bytes() {
        assert_eq!(&greeting()[..], b"NBDMAGICIHAVEOPT\x00\x03");
    }

    #[test]
    fn a_simple_reply_is_these_bytes() {
        let replier = Replier {
            format: ReplyFormat::Simple,
            ..STRUCTURED
        };
        let expected = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(flat(&replier.error(Errno::NoSpace, "full", None)), expected);
    }

    #[test]
    fn the_chunks_of_a_read_are_these_bytes() {
        let segments = vec![
            Segment::Hole(0x200),
            Segment::Data(vec![Bytes::from_static(b"abc")]),
        ];
        let mut expected = vec![
            0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 12,
        ];
        expected.extend([0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0]);
        expected.extend([
            0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 11,
        ]);
        expected.extend([0, 0, 0, 0, 0, 0, 0x12, 0, b'a', b'b', b'c']);
        assert_eq!(flat(&STRUCTURED.data(segments)), expected);
    }

    #[test]
    fn an_error_with_its_place_is_these_bytes() {
        let mut expected = vec![
            0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 17,
        ];
        expected.extend([0, 0, 0, 5, 0, 3, b'b', b'a', b'd', 0, 0, 0, 0, 0, 0, 0x20, 0]);
        assert_eq!(flat(&STRUCTURED.error(Errno::Io, "bad", Some(0x2000))), expected);
    }

    #[test]
    fn an_extended_status_is_these_bytes() {
        let replier = Replier {
            format: ReplyFormat::Extended,
            ..STRUCTURED
        };
        let mut expected = vec![0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 1, 2];
        expected.extend([
            0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 1,
        ]);
        expected.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(flat(&replier.status(&[(1 << 33, 3)])), expected);
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        // A sentence with a volume's name in it may be long, and a cut inside a character is not UTF-8.
        let message = "\u{e4}".repeat(4000);
        assert_eq!(shorten(&message).len(), 4096);
        let message = format!("x{message}");
        assert_eq!(shorten(&message).len(), 4095);
    }
}
