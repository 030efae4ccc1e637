//! Several ranges of one object, in bytes: their number, u32, and each of them.

use bytes::BytesMut;

use super::field::{Reader, put_count, put_range};
use crate::frame::WireError;
use crate::ranges::BlockRanges;

/// Length of a range.
const RANGE_LEN: usize = 4;

pub(super) fn put_ranges(out: &mut BytesMut, ranges: &BlockRanges) {
    put_count(out, ranges.count());
    for range in ranges.iter() {
        put_range(out, range);
    }
}

pub(super) fn read_ranges(reader: &mut Reader<'_>) -> Result<BlockRanges, WireError> {
    let count = reader.entries(RANGE_LEN)?;
    if !(1..=BlockRanges::COUNT_MAX).contains(&count) {
        return Err(reader.wrong("number of ranges"));
    }
    let ranges = (0..count)
        .map(|_| reader.range())
        .collect::<Result<_, WireError>>()?;
    BlockRanges::new(ranges).ok_or_else(|| reader.wrong("length of the ranges"))
}

#[cfg(test)]
mod tests {
    //! A peer that sends rubbish does not get more read than others.
    use super::*;
    use crate::frame::Kind;
    use crate::geometry::BlockRange;

    fn read(ranges: &[BlockRange]) -> Result<BlockRanges, WireError> {
        let mut body = BytesMut::new();
        put_count(&mut body, ranges.len());
        for range in ranges {
            put_range(&mut body, *range);
        }
        read_ranges(&mut Reader::new(Kind::ReadSeveral, &body))
    }

    #[test]
    fn more_than_a_megabyte_or_sixteen_ranges_are_refused_and_so_are_none() {
        let block = BlockRange::new(7, 1).unwrap();
        assert_eq!(read(&[block; 16]).unwrap().count(), 16);
        assert!(read(&[block; 17]).is_err());
        assert!(read(&[]).is_err());
        let half = BlockRange::new(0, 128).unwrap();
        assert!(read(&[half, half]).is_ok());
        assert!(read(&[half, half, block]).is_err());
    }
}
