//! What a guest asks for: the 16-byte header of a virtio-blk request and the segments of a discard.
//!
//! Pure: bytes in, a [`Request`] or a [`Refusal`] out. It has never heard of rings or of memory; the
//! caller has read every byte once, and what is checked here is what is carried out.

use telemetry::traffic::Kind;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

/// Bytes of a request's header: type, reserved, first sector.
pub const HEADER_BYTES: usize = 16;
/// The unit in which virtio-blk counts, whatever the block size, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes of one segment of a discard or of a write-zeroes: first sector, count, flags.
pub const SEGMENT_BYTES: usize = 16;
/// The most segments of one discard or write-zeroes. Linux merges up to this many neighbours; each
/// one is a device operation, so the number bounds what one descriptor chain can set off.
pub const SEGMENTS_MAX: u32 = 16;
/// The most sectors of one segment: 1 GiB. Larger ranges are split by the guest, so that one
/// request stays a bounded piece of work.
pub const SEGMENT_SECTORS_MAX: u32 = 1 << 21;
/// The most data bytes of one read or write: 32 MiB, far above what drivers send (1 to 4 MiB) and
/// small enough that a hostile guest cannot take much memory with one chain.
pub const DATA_BYTES_MAX: u64 = 32 << 20;

/// The only flag of a segment: a write-zeroes may give the space back.
const SEGMENT_FLAG_UNMAP: u32 = 1;

/// A range in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// From where.
    pub offset: u64,
    /// How much; not zero.
    pub length: u64,
}

/// Large writes are copied and handed on in parts of this length, cut at its multiples: the disk is at
/// one while the next is copied.
const PART_BYTES: u64 = 512 << 10;
/// A write of whole blocks needs no reading first.
const BLOCK_BYTES: u64 = 4096;

impl Run {
    /// The parts that a write is handed on in, in order. One that is not made of whole blocks stays in
    /// one piece: its edges are read first, and that is done once.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        let whole = (self.offset | self.length).is_multiple_of(BLOCK_BYTES);
        // A guest may name any offset; the device refuses what it has not.
        let end = self.offset.saturating_add(self.length);
        let mut next = Some(self.offset);
        std::iter::from_fn(move || {
            let offset = next?;
            let border = (offset / PART_BYTES + 1).saturating_mul(PART_BYTES);
            let until = if whole { border.min(end) } else { end };
            next = (until < end).then_some(until);
            Some(Self {
                offset,
                length: until - offset,
            })
        })
    }
}

/// A request that makes sense in itself. Whether it lies inside the volume is the device's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the writable buffers from the volume.
    Read(Run),
    /// Write the readable buffers' rest to the volume.
    Write(Run),
    /// All writes answered so far are to be durable.
    Flush,
    /// Put the serial number into the writable buffers.
    Identify,
    /// Give the space of these ranges back; may be empty.
    Discard(Vec<Run>),
    /// Make these ranges read as zeros; may be empty.
    WriteZeroes(Vec<Run>),
}

impl Request {
    /// As what it is counted, and how many bytes it asks for.
    pub fn amount(&self) -> (Kind, u64) {
        let sum = |runs: &[Run]| runs.iter().map(|run| run.length).sum();
        match self {
            Self::Read(run) => (Kind::Read, run.length),
            Self::Write(run) => (Kind::Write, run.length),
            Self::Flush => (Kind::Flush, 0),
            Self::Identify => (Kind::Identify, 0),
            Self::Discard(runs) => (Kind::Discard, sum(runs)),
            Self::WriteZeroes(runs) => (Kind::WriteZeroes, sum(runs)),
        }
    }
}

/// Why a request is answered without asking the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A type or a flag that was never offered: the guest gets `VIRTIO_BLK_S_UNSUPP`.
    #[error("request type or flag {0:#x} is not offered by this device")]
    Unsupported(u32),
    /// The request contradicts itself or a limit of the configuration space: `VIRTIO_BLK_S_IOERR`.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The shape of a request: its header, and how many bytes lie behind and in front of it.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The first 16 bytes that the guest gave to be read.
    pub header: &'a [u8; HEADER_BYTES],
    /// Readable bytes after the header.
    pub readable: u64,
    /// Writable bytes without the last one, which is the status.
    pub writable: u64,
    /// The block size that the configuration space names, in bytes.
    pub block_size: u32,
}

/// What must happen before a request is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It is complete.
    Ready(Request),
    /// The readable bytes after the header are segments: read them, then call [`segments`].
    NeedsSegments(SegmentKind),
}

/// Which request the segments belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// A discard.
    Discard,
    /// A write-zeroes.
    WriteZeroes,
}

/// Reads a request's header.
pub fn parse(shape: Shape<'_>) -> Result<Parsed, Refusal> {
    let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = *shape.header;
    let kind = u32::from_le_bytes([t0, t1, t2, t3]);
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    match kind {
        VIRTIO_BLK_T_IN => data_run(sector, shape.writable, shape.block_size)
            .map(Request::Read)
            .map(Parsed::Ready),
        VIRTIO_BLK_T_OUT => data_run(sector, shape.readable, shape.block_size)
            .map(Request::Write)
            .map(Parsed::Ready),
        VIRTIO_BLK_T_FLUSH => Ok(Parsed::Ready(Request::Flush)),
        VIRTIO_BLK_T_GET_ID => Ok(Parsed::Ready(Request::Identify)),
        VIRTIO_BLK_T_DISCARD => {
            segment_count(shape.readable).map(|()| Parsed::NeedsSegments(SegmentKind::Discard))
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            segment_count(shape.readable).map(|()| Parsed::NeedsSegments(SegmentKind::WriteZeroes))
        }
        other => Err(Refusal::Unsupported(other)),
    }
}

/// Reads the segments of a discard or of a write-zeroes. Segments of no length are left out.
pub fn segments(kind: SegmentKind, bytes: &[u8], block_size: u32) -> Result<Request, Refusal> {
    let (segments, rest) = bytes.as_chunks::<SEGMENT_BYTES>();
    if !rest.is_empty() || segments.len() > SEGMENTS_MAX as usize {
        return Err(Refusal::Invalid(
            "the segments of a discard do not fill whole entries, or are too many",
        ));
    }
    let mut runs = Vec::with_capacity(segments.len());
    for segment in segments {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = *segment;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        // The specification: a discard has no flags, and unknown flags must be refused as unsupported.
        let known = if kind == SegmentKind::WriteZeroes {
            SEGMENT_FLAG_UNMAP
        } else {
            0
        };
        if flags & !known != 0 {
            return Err(Refusal::Unsupported(flags));
        }
        if count > SEGMENT_SECTORS_MAX {
            return Err(Refusal::Invalid(
                "a segment is longer than the configuration space allows",
            ));
        }
        if count > 0 {
            runs.push(run(sector, u64::from(count) * SECTOR_BYTES, block_size)?);
        }
    }
    Ok(match kind {
        SegmentKind::Discard => Request::Discard(runs),
        SegmentKind::WriteZeroes => Request::WriteZeroes(runs),
    })
}

fn segment_count(readable: u64) -> Result<(), Refusal> {
    if readable == 0 || readable > u64::from(SEGMENTS_MAX) * SEGMENT_BYTES as u64 {
        return Err(Refusal::Invalid(
            "a discard or write-zeroes needs 1 to 16 segments",
        ));
    }
    Ok(())
}

fn data_run(sector: u64, length: u64, block_size: u32) -> Result<Run, Refusal> {
    if length == 0 {
        return Err(Refusal::Invalid("a read or write has no data buffer"));
    }
    if length > DATA_BYTES_MAX {
        return Err(Refusal::Invalid("a read or write is longer than 32 MiB"));
    }
    run(sector, length, block_size)
}

fn run(sector: u64, length: u64, block_size: u32) -> Result<Run, Refusal> {
    let offset = sector
        .checked_mul(SECTOR_BYTES)
        .ok_or(Refusal::Invalid("the first sector is beyond any volume"))?;
    if offset.checked_add(length).is_none() {
        return Err(Refusal::Invalid("the last sector is beyond any volume"));
    }
    let block = u64::from(block_size);
    if !offset.is_multiple_of(block) || !length.is_multiple_of(block) {
        return Err(Refusal::Invalid("the range is not a multiple of the block size"));
    }
    Ok(Run { offset, length })
}

#[cfg(test)]
mod tests {
    //! Every field of a header is hostile until it was compared with something.
    use super::*;
    use proptest::prelude::*;

    fn header(kind: u32, sector: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        bytes
    }

    fn segment(sector: u64, count: u32, flags: u32) -> Vec<u8> {
        [
            &sector.to_le_bytes()[..],
            &count.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    }

    fn parse_at(
        kind: u32,
        sector: u64,
        readable: u64,
        writable: u64,
        block_size: u32,
    ) -> Result<Parsed, Refusal> {
        parse(Shape {
            header: &header(kind, sector),
            readable,
            writable,
            block_size,
        })
    }

    #[test]
    fn a_large_write_is_cut_at_borders_and_one_with_edges_is_not() {
        let parts = |offset, length| -> Vec<(u64, u64)> {
            let run = Run { offset, length };
            run.parts().map(|part| (part.offset, part.length)).collect()
        };
        assert_eq!(parts(0, 4096), [(0, 4096)]);
        assert_eq!(parts(0, 1 << 20), [(0, 512 << 10), (512 << 10, 512 << 10)]);
        let (begin, end) = (500 << 10, 1100 << 10);
        assert_eq!(
            parts(begin, end - begin),
            [
                (begin, 12 << 10),
                (512 << 10, 512 << 10),
                (1 << 20, end - (1 << 20))
            ]
        );
        assert_eq!(parts(512, 1 << 20), [(512, 1 << 20)]);
        let last = u64::MAX - 4095;
        assert_eq!(parts(last, 8192).len(), 1);
    }

    #[test]
    fn a_read_takes_its_length_from_the_writable_buffers_and_a_write_from_the_readable() {
        let read = parse_at(VIRTIO_BLK_T_IN, 8, 0, 4096, 512);
        assert_eq!(
            read,
            Ok(Parsed::Ready(Request::Read(Run {
                offset: 4096,
                length: 4096
            })))
        );
        let write = parse_at(VIRTIO_BLK_T_OUT, 1, 512, 0, 512);
        assert_eq!(
            write,
            Ok(Parsed::Ready(Request::Write(Run {
                offset: 512,
                length: 512
            })))
        );
    }

    #[test]
    fn a_sector_near_the_end_of_all_numbers_does_not_wrap_into_the_volume() {
        // 2^55 sectors are 2^64 bytes: unchecked, the offset would be 0.
        assert!(matches!(
            parse_at(VIRTIO_BLK_T_OUT, 1 << 55, 512, 0, 512),
            Err(Refusal::Invalid(_))
        ));
        assert!(matches!(
            parse_at(VIRTIO_BLK_T_OUT, (1 << 55) - 1, 1024, 0, 512),
            Err(Refusal::Invalid(_))
        ));
        let far = segment(u64::MAX, 8, 0);
        assert!(matches!(
            segments(SegmentKind::Discard, &far, 512),
            Err(Refusal::Invalid(_))
        ));
    }

    #[test]
    fn data_that_is_no_multiple_of_the_block_size_is_refused() {
        assert!(parse_at(VIRTIO_BLK_T_OUT, 0, 511, 0, 512).is_err());
        assert!(parse_at(VIRTIO_BLK_T_OUT, 0, 512, 0, 4096).is_err());
        assert!(parse_at(VIRTIO_BLK_T_OUT, 1, 4096, 0, 4096).is_err());
        assert!(parse_at(VIRTIO_BLK_T_IN, 0, 0, 0, 512).is_err());
    }

    #[test]
    fn flags_that_were_never_offered_are_unsupported_and_not_an_input_output_error() {
        // A guest may fall back to plain writes on UNSUPP; on IOERR it would fail the file system.
        let unmap = segment(0, 8, SEGMENT_FLAG_UNMAP);
        assert_eq!(
            segments(SegmentKind::Discard, &unmap, 512),
            Err(Refusal::Unsupported(1))
        );
        assert!(segments(SegmentKind::WriteZeroes, &unmap, 512).is_ok());
        let unknown = segment(0, 8, 2);
        assert_eq!(
            segments(SegmentKind::WriteZeroes, &unknown, 512),
            Err(Refusal::Unsupported(2))
        );
        assert_eq!(parse_at(99, 0, 0, 0, 512), Err(Refusal::Unsupported(99)));
    }

    #[test]
    fn a_segment_beyond_the_advertised_limits_is_refused() {
        let long = segment(0, SEGMENT_SECTORS_MAX + 8, 0);
        assert!(matches!(
            segments(SegmentKind::Discard, &long, 512),
            Err(Refusal::Invalid(_))
        ));
        let many = segment(0, 8, 0).repeat(SEGMENTS_MAX as usize + 1);
        assert!(matches!(
            segments(SegmentKind::Discard, &many, 512),
            Err(Refusal::Invalid(_))
        ));
        assert!(parse_at(VIRTIO_BLK_T_DISCARD, 0, many.len() as u64, 0, 512).is_err());
        assert!(parse_at(VIRTIO_BLK_T_DISCARD, 0, 0, 0, 512).is_err());
    }

    #[test]
    fn segments_come_out_in_order_and_empty_ones_are_left_out() {
        let bytes = [segment(8, 8, 0), segment(0, 0, 0), segment(16, 16, 0)].concat();
        let expected = vec![
            Run {
                offset: 4096,
                length: 4096,
            },
            Run {
                offset: 8192,
                length: 8192,
            },
        ];
        assert_eq!(
            segments(SegmentKind::Discard, &bytes, 4096),
            Ok(Request::Discard(expected))
        );
    }

    proptest! {
        #[test]
        fn any_header_is_refused_or_gives_an_aligned_range_that_does_not_wrap(
            header: [u8; HEADER_BYTES], readable: u64, writable: u64, large: bool,
        ) {
            let block_size = if large { 4096 } else { 512 };
            let parsed = parse(Shape { header: &header, readable, writable, block_size });
            if let Ok(Parsed::Ready(Request::Read(run) | Request::Write(run))) = parsed {
                prop_assert!(run.length > 0 && run.length <= DATA_BYTES_MAX);
                prop_assert!(run.offset.checked_add(run.length).is_some());
                prop_assert!(run.offset.is_multiple_of(u64::from(block_size)));
            }
        }

        #[test]
        fn any_segments_are_refused_or_give_aligned_bounded_ranges(bytes: Vec<u8>, zeroes: bool) {
            let kind = if zeroes { SegmentKind::WriteZeroes } else { SegmentKind::Discard };
            if let Ok(Request::Discard(runs) | Request::WriteZeroes(runs)) = segments(kind, &bytes, 512) {
                for run in runs {
                    prop_assert!(run.length > 0 && run.length <= u64::from(SEGMENT_SECTORS_MAX) * SECTOR_BYTES);
                    prop_assert!(run.offset.checked_add(run.length).is_some());
                }
            }
        }
    }
}
